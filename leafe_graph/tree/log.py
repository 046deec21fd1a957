"""The log of a run: finished branches as lines of JSON, in files of a bounded size of which only the last one grows.

A branch is found again by its place, so that no more of the log than an outline of each branch is kept in memory. Files
that grow no more may be made Parquet, see `Log.compact`.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import RunFolderError
from ..files import replace_file, writing
from ..parsing import json_line
from ..types import FORMAT_VERSION, Branch
from .outline import Outline, Place, outlined, skimmed
from .packing import PACKED_VERSION, packed, unpacked
from .parquet_rows import Rows, read_outlines, write_rows

SHARD_BYTES = 256 * 2**20
"""From this size on a file of the log is closed, and another one is begun."""
_VERSIONS = (FORMAT_VERSION, PACKED_VERSION)


class Entry(NamedTuple):
    """A branch as the log has it, for who encodes branches elsewhere than where they are written."""

    line: bytes
    outline: Outline
    """Without a place."""


def encoded(branch: Branch) -> Entry:
    """The entry of a branch."""
    return Entry(json_line(packed(branch)).encode(errors="replace"), outlined(branch))


class Log:
    """``branches.jsonl``, then ``branches/000001.jsonl`` and so on, as far as there is need of them.

    Args:
        folder: the run's.
        shard_bytes: from this size on a file is closed.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        self._last: IO[bytes] | None = None
        self._shard = 0
        self._rows = Rows()
        self._read = 0, 0, 0
        """How far `news` has come: file, bytes and lines of it."""
        self._tables: set[int] = set()
        """Files that it has read as Parquet."""

    def file(self, shard: int) -> Path:
        """The name of a file by its number; the first one is called as the only one of a small run."""
        return self.folder / (f"branches/{shard:06}.jsonl" if shard else "branches.jsonl")

    def table(self, shard: int) -> Path:
        """The name of the Parquet file that may be in its place."""
        return self.folder / f"branches/{shard:06}.parquet"

    def news(self, *, repair: bool = False) -> Iterator[Outline]:
        """The outlines of the branches that were logged since the last time, at first of all.

        A last line without its end was torn by a kill: it is left out, and cut off on ``repair``.

        Raises:
            RunFolderError: a line is no branch record, or a file of the log is missing or ends within a line.
        """
        first, done, lines = self._read
        shards = self._shards()
        for shard in range(first, shards):
            if (log := self._of_lines(shard, "r+b" if repair else "rb")) is None:
                if self.table(shard).exists() and (shard > first or not done):
                    yield from self._of_rows(shard)
                done = lines = 0
                continue
            with log:
                if os.fstat(log.fileno()).st_size < done:
                    raise RunFolderError(f"{log.name} has become shorter since it was read: open the run again")
                log.seek(done)
                for line in log:
                    if not line.endswith(b"\n"):
                        if shard < shards - 1:
                            raise RunFolderError(
                                f"{log.name} ends within a line, and the log goes on after it: restore it, or delete "
                                "that line and the files that follow to have their branches done again"
                            )
                        if repair:
                            log.truncate(done)
                        break
                    place, lines = Place(shard, done, len(line)), lines + 1
                    outline = self._outline(line, place, lines)
                    done += len(line)
                    self._read = shard, done, lines
                    yield outline
            done = lines = 0

    def read(self, outlines: Iterable[Outline]) -> Iterator[Branch]:
        """The branches of these outlines, one after the other; quickest in the order of the log.

        Raises:
            RunFolderError: they are not there any more.
        """
        with contextlib.ExitStack() as stack:
            opened: dict[int, IO[bytes]] = {}
            for outline in outlines:
                place = outline.place
                assert place is not None
                if not place.length:
                    yield self._branch(place, outline)
                    continue
                if place.shard not in opened:
                    stack.pop_all().close()
                    opened = {place.shard: stack.enter_context(self._opened(place.shard))}
                log = opened[place.shard]
                log.seek(place.offset)
                yield self._branch(log.read(place.length), outline)

    def has(self, outline: Outline) -> bool:
        """Whether a branch is in its place, and all that `news` has given before it in files of the same kind."""
        if any(self.table(shard).exists() != (shard in self._tables) for shard in range(self._read[0] + 1)):
            return False
        try:
            return any(True for _ in self.read([outline]))
        except RunFolderError:
            return False

    def open(self) -> None:
        """Go on with the last file."""
        self._shard = max(self._shards() - 1, 0)
        if self.table(self._shard).exists():
            self._shard += 1
        self._last = open(self.file(self._shard), "ab", buffering=0)  # noqa: SIM115

    def append(self, branches: Sequence[Branch | Entry]) -> list[Outline]:
        """Write branches; on disk when this returns. Nothing of them is left where they could not be written whole.

        Raises:
            RunFolderError: the log is not open, or the disk is full.
        """
        if self._last is None:
            raise RunFolderError(f"{self.folder} is not open for writing: call open() first")
        entries = [each if isinstance(each, Entry) else encoded(each) for each in branches]
        with writing(self.folder):
            if os.fstat(self._last.fileno()).st_size >= self._shard_bytes:
                self._begin()
            file = self._last.fileno()
            size, rest = os.fstat(file).st_size, b"".join(entry.line for entry in entries)
            try:
                while rest:  # a disk that becomes full takes a part first
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            except OSError:
                with contextlib.suppress(OSError):  # else the torn line is cut off when the run is resumed
                    os.ftruncate(file, size)
                raise
        for entry in entries:
            entry.outline.place = Place(self._shard, size, len(entry.line))
            size += len(entry.line)
        known = self._read[2] if self._read[0] == self._shard else 0
        self._read = self._shard, size, known + len(entries)
        return [entry.outline for entry in entries]

    def compact(self) -> tuple[int, list[str]]:
        """Make Parquet of the files that grow no more: of how many, and why of others not.

        A file that is not given back record by record as it was stays as it is. What was read before is not found in
        its place any more.

        Raises:
            MissingDependency: pyarrow is not installed.
            RunFolderError: there is no room; what was there is as it was.
        """
        done, refused = 0, []
        for left in self.folder.glob("branches/.*.parquet.*.tmp"):  # of a process that was killed: there is one writer
            left.unlink()
        for shard in range(self._shards() - 1):
            if not (lines := self.file(shard)).exists():
                continue
            if not self.table(shard).exists():
                try:
                    replace_file(self.table(shard), partial(_compact, lines))
                except ValueError as error:
                    refused.append(f"{lines} stays as it is: {error}")
                    continue
            _sync(self.table(shard).parent)
            lines.unlink()
            done += 1
        return done, refused

    def close(self) -> None:
        """Stop writing."""
        if self._last is not None:
            self._last.close()
        self._last = None

    def _begin(self) -> None:
        """Begin another file; its name is on the disk before anything is in it."""
        assert self._last is not None
        new = self.file(self._shard + 1)
        new.parent.mkdir(exist_ok=True)
        log = open(new, "ab", buffering=0)  # noqa: SIM115
        _sync(self.folder)
        _sync(new.parent)
        self._last.close()
        self._last, self._shard = log, self._shard + 1

    def _shards(self) -> int:
        """How many files there are.

        Raises:
            RunFolderError: one before the last is missing.
        """
        names = re.compile(r"(\d{6})\.(jsonl|parquet)")
        there = {int(told[1]) for file in self.folder.glob("branches/*") if (told := names.fullmatch(file.name))}
        last = max(there, default=0)
        there |= {0} if self.file(0).exists() else set()
        if missing := sorted({*range(last + (last > 0))} - there):
            raise RunFolderError(
                f"{self.file(missing[0])} is missing, and the log goes on after it: restore it, or delete "
                f"{self.folder / 'branches'} and what follows it to have its branches done again"
            )
        return last + 1

    def _of_rows(self, shard: int) -> Iterator[Outline]:
        """The outlines of a Parquet file's rows."""
        table = self.table(shard)
        try:
            for number, told in enumerate(read_outlines(table)):
                if told["version"] not in _VERSIONS:
                    raise ValueError(f"format version {told['version']}")
                yield outlined(told, Place(shard, number, 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{table} is no part of a run's log: {_said(error)}; restore it") from error
        self._read = shard, 1, 0
        self._tables.add(shard)

    def _of_lines(self, shard: int, mode: str) -> IO[bytes] | None:
        """A file of lines, opened; None where there is none, or Parquet: where a kill came between they are both."""
        if self.table(shard).exists():
            return None
        try:
            return open(self.file(shard), mode)
        except (FileNotFoundError, NotADirectoryError):  # also where another process has just made Parquet of it
            return None

    def _outline(self, line: bytes, place: Place, number: int) -> Outline:
        """The outline of a line, its number counted from 1."""
        where = f"{self.file(place.shard)}:{number}"
        try:
            told = skimmed(line) or _record(line)
            if told.get("version") in _VERSIONS:
                return outlined(told, place)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunFolderError(
                f"{where} is not a branch record: {_said(error)}; only a torn last line is repaired: restore this "
                "line, or delete it and all lines that follow to have their branches done again"
            ) from error
        read = " and ".join(map(str, _VERSIONS))
        raise RunFolderError(f"{where} has format version {told.get('version')!r}; this release reads {read}")

    def _opened(self, shard: int) -> IO[bytes]:
        try:
            return open(self.file(shard), "rb")
        except OSError as error:
            raise RunFolderError(
                f"{self.file(shard)} cannot be read any more: {error.strerror}; open the run again"
            ) from error

    def _branch(self, line: bytes | Place, outline: Outline) -> Branch:
        with contextlib.suppress(ValueError, RecursionError, OSError, LookupError):
            read = self._rows.read
            branch = unpacked(_record(line) if isinstance(line, bytes) else read(self.table(line.shard), line.offset))
            if (branch["task"]["id"], branch["id"]) == (outline.task["id"], outline.id):
                return branch
        raise RunFolderError(
            f"{self.folder}: the log was changed by others since it was opened, it no longer has branch {outline.id} "
            f"of task {outline.task['id']!r} in its place; open the run again"
        )


def _compact(lines: Path, new: Path) -> None:
    """Write a file of lines as rows, and see that they are the same; on disk when this returns."""

    def records() -> Iterator[dict[str, Any]]:
        with open(lines, "rb") as log:
            yield from (_record(line) for line in log if line.endswith(b"\n"))

    write_rows(records(), new)
    rows = Rows()
    for number, record in enumerate(records()):
        if rows.read(new, number) != record:
            raise ValueError(
                f"branch {record['id']} of task {record['task']['id']!r} has what a table cannot give back"
            )
    _sync(new)


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _record(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"it holds {line[:40]!r}")
    return record


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
