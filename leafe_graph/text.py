"""Texts: what every file, checkpoint and terminal can hold."""

import re
from collections.abc import Iterable
from typing import Any


def utf8(text: str) -> str:
    """The text without what UTF-8 cannot say (half a surrogate pair), which files and checkpoints refuse or change."""
    return text.encode(errors="replace").decode()


def markdown_table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    """A table of two columns in Markdown."""
    return "\n".join(f"| {a} | {b} |" for a, b in [head, ("---", "---"), *rows])


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
