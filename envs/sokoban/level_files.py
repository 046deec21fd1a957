"""Collections of levels as they are passed round: rows of symbols, and between them titles, authors and comments.

What is read is the common part of what programs write (sokobano.de's wiki has it as "Sok format"): rows as they are, or
run-length encoded (``5#|#@$.#|5#``), but not with groups in parentheses.
"""

import codecs
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from leafe_graph.errors import ConfigError
from leafe_graph.files import path_of
from leafe_graph.types import Task

from .env import INSTRUCTION
from .levels import to_text, unsolved

_SYMBOLS = re.compile(r"[#@+$*._OXPS√\s-]*")
_WALL_FIRST = re.compile(r"[\s_-]*#")
_ENCODED = re.compile(r"[0-9|#@+$*._ -]*[0-9|][0-9|#@+$*._ -]*")
_RUN = re.compile(r"([0-9]{1,4})([^0-9])")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def load_levels(path: str | Path, *, instruction: str = INSTRUCTION) -> list[Task]:
    """The levels of a text file; what stands between them (blank lines, titles, comments, solutions) is left out.

    A line that begins with a wall, or holds nothing but a level's symbols, a wall or a player among them, is a row of a
    level. The file is in UTF-8, UTF-16 with a byte order mark, or else taken for Latin-1. An id is the file's name, the
    level's number in it and a digest of the level, so that levels of files of the same name differ.

    Raises:
        ConfigError: a level that is not well formed (file and line are named), a file that cannot be read, or one
            without levels.
    """
    path = path_of(path)
    result: list[Task] = []
    for line, rows in _levels(_text(path)):
        level = to_text(unsolved("\n".join(rows), where=str(path), line=line))
        digest = hashlib.sha256(level.encode()).hexdigest()[:8]
        task_id = f"{path.stem}-{len(result):06d}-{digest}"
        result.append({"id": task_id, "instruction": instruction, "options": {"level": level}})
    if not result:
        raise ConfigError(f"{path}: no level found, expected rows of # @ + $ * . and spaces")
    return result


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a text file of levels") from error
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _levels(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each level's rows, and the 1-based number of its first line."""
    rows: list[str] = []
    first = 0
    for number, line in enumerate([*re.split("\r\n|\r|\n", text), ""], start=1):
        if found := _rows(line):
            first = first if rows else number
            rows += found
        elif rows:
            yield first, rows
            rows = []


def _rows(line: str) -> list[str]:
    """The rows of a level that a line holds; none where it is something else."""
    if "#" in line and _ENCODED.fullmatch(line):
        return _RUN.sub(lambda run: int(run[1]) * run[2], line).split("|")
    known = _SYMBOLS.fullmatch(line) is not None and any(symbol in "#@$" for symbol in line)
    return [line] if known or _WALL_FIRST.match(line) else []
