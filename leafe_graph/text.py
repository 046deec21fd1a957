"""Texts: what every file, checkpoint and terminal can hold, and what of a model's text is thinking."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

Value = TypeVar("Value")

THOUGHTS_OPENED, THOUGHTS_CLOSED = (
    rf"(?:<{slash}(?:seed:)?(?:think(?:ing)?|thought|reasoning)>|\[{slash}THINK\])" for slash in ("", "/")
)
"""Patterns of the tags around what a model thinks aloud."""
_THOUGHT = re.compile(
    rf"\A(?:(?!{THOUGHTS_OPENED}).)*?{THOUGHTS_CLOSED}|{THOUGHTS_OPENED}.*?(?:{THOUGHTS_CLOSED}|\Z)", re.DOTALL
)


def utf8(text: str) -> str:
    """The text with ``?`` for what some file or checkpoint refuses or changes.

    That is half a surrogate pair, which UTF-8 cannot say, and NUL, which PostgreSQL cannot hold.
    """
    return text.encode(errors="replace").decode().replace("\0", "?")


def utf8_all(value: Value) -> Value:
    """The same value with `utf8` of every text in it, names included."""
    if isinstance(value, str):
        return cast(Value, utf8(value))
    if isinstance(value, dict):
        return cast(Value, {utf8_all(name): utf8_all(held) for name, held in value.items()})
    if isinstance(value, list | tuple):
        held = [utf8_all(each) for each in value]
        return cast(Value, held if isinstance(value, list) else tuple(held))
    return value


def without_thoughts(text: str) -> str:
    """What a model says, without what it thinks aloud between tags (``<think>…</think>`` and its like).

    A chat template may have opened the thoughts: what stands before a closing tag that nothing opened is thought. So is
    all that follows an opening tag without a closing one: the model was cut short.
    """
    return _THOUGHT.sub("", text)


def matches(name: str | None, patterns: Iterable[str]) -> bool:
    """Whether any of these patterns, as a shell's of file names, is the whole name's; no name has none."""
    from fnmatch import fnmatchcase

    return name is not None and any(fnmatchcase(name, pattern) for pattern in patterns)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, line separators, what turns a text's direction, halves of surrogates."""


def printable(text: str) -> str:
    """The text with what a terminal would obey rather than show written as escapes: colours, titles, directions, NUL.

    For whatever a model, an environment, a file or a server said. Done twice it is the same.
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'known'?`` for a word that is nearly one of these, else nothing: the end of an error message."""
    from difflib import get_close_matches

    names = {each.lstrip("-"): each for each in known}
    near = get_close_matches(word.lstrip("-"), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
