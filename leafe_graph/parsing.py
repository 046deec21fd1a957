"""What people write by hand, read strictly: YAML, JSON and KEY=VALUE.

A slip is told with its file and line. A key that stands twice is one: readers of YAML and JSON silently take the last.
A byte order mark and the line ends of any system are no slip.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError

LINE_ENDS = str.maketrans({char: f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"})
"""What JSON lets stand in a text and other readers of lines take for a line's end."""
KEY = r"[A-Za-z_][\w.-]*"
_PAIR = re.compile(rf"\s*({KEY})\s*=\s*")
_NEXT = re.compile(rf"\s*(?:$|,\s*(?={KEY}\s*=|\{{))")


def json_text(value: Any) -> str:
    """The value as JSON, its letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def json_line(record: Mapping[str, Any]) -> str:
    """The record as one line of a JSONL file, for whatever reads lines."""
    return json_text(record).translate(LINE_ENDS) + "\n"


def read_text(file: Path) -> str:
    """The text of a file that somebody wrote.

    Raises:
        ConfigError: it cannot be read, or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8, if it is a text"
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error


def load_json(text: str, what: str) -> Any:
    """The value of a JSON text; ``what`` it is, for errors, such as the file.

    Raises:
        ConfigError: it is none, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=keys_once)
    except _Twice as error:
        raise ConfigError(f"{what}{_line_of(text, error.key)}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{what} is not JSON: nested too deep") from None
    except ValueError as error:
        raise ConfigError(f"{what} is not JSON: {error}") from error


def load_yaml(text: str, what: str) -> tuple[Any, Any]:
    """The value of a YAML text, and its nodes with their places; ``what`` it is, for errors, such as the file.

    Raises:
        ConfigError: it is none, or a mapping in it has a key twice.
    """
    import yaml

    try:
        node, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{what}:{line}: not YAML: {error.context or ''} {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())}") from error
    if twice := list(_twice(node, set())):
        raise ConfigError("\n".join(f"{what}:{line}: {'.'.join(where)}: given twice" for line, where in twice))
    return data, node


def key_values(given: Any) -> Any:
    """KEY=VALUE,KEY=VALUE or JSON objects, from a command line, as a mapping; what is no text stays as it is.

    A comma ends a value only where another KEY= follows, so texts may hold some. A value that begins as JSON's lists,
    objects and quoted texts do is read as JSON; any other is a text.

    Raises:
        ValueError: it is neither, or a key is given twice.
    """
    if not isinstance(given, str):
        return given
    found: dict[str, Any] = {}
    decoder, place = json.JSONDecoder(object_pairs_hook=keys_once), 0
    while given[place:].strip():
        pairs: Any = None
        if given[place:].lstrip().startswith("{"):
            pairs, place = _json(decoder, given, given.index("{", place))
        elif key := _PAIR.match(given, place):
            value, place = _value(decoder, given, key.end())
            pairs = {key[1]: value}
        end = _NEXT.match(given, place)
        if pairs is None or end is None:
            raise ValueError("expected KEY=VALUE,KEY=VALUE or a JSON object")
        if twice := sorted(found.keys() & pairs.keys()):
            raise ValueError(f"{', '.join(twice)} is given twice")
        found |= pairs
        place = end.end()
    return found


def _value(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """The value that begins there, and its end."""
    if text[start : start + 1] in ("[", "{", '"'):
        value, end = _json(decoder, text, start)
        if value is not None and _NEXT.match(text, end):
            return value, end
    end = next(each.start() for each in _NEXT.finditer(text, start))
    return text[start:end], end


def _json(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """The JSON that begins there, and its end; None where there is none."""
    try:
        return decoder.raw_decode(text, start)
    except _Twice as error:
        raise ValueError(f"{error.key} is given twice") from None
    except (ValueError, RecursionError):
        return None, start


class _Twice(ValueError):
    """A key that an object has twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r:.80} is given twice")
        self.key = key


def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for ``object_pairs_hook``.

    Raises:
        ValueError: a key stands in it twice.
    """
    held = dict(pairs)
    if len(held) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for place, key in enumerate(keys) if key in keys[:place]))
    return held


def _line_of(text: str, key: str) -> str:
    """:LINE of the key that an object of a JSON text has twice; nothing where YAML does not read that text."""
    import yaml

    with contextlib.suppress(yaml.YAMLError, RecursionError):
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)  # JSON's white space, which YAML refuses
        return next((f":{line}" for line, where in _twice(node, set()) if where[-1] == key), "")
    return ""


def _twice(node: Any, seen: set[int], where: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and name of every field that a mapping names more than once; nodes that aliases share are looked at once."""
    if node is None or node.id == "scalar" or id(node) in seen:
        return
    seen.add(id(node))
    if node.id == "sequence":
        for number, value in enumerate(node.value):
            yield from _twice(value, seen, (*where, str(number)))
        return
    keys: set[tuple[str, str]] = set()
    for key, value in node.value:
        name = str(key.value)
        if (key.tag, name) in keys:
            yield key.start_mark.line + 1, (*where, name)
        keys.add((key.tag, name))
        yield from _twice(value, seen, (*where, name))
