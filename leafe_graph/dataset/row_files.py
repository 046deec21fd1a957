"""Rows as files: JSONL and Parquet, of any number of rows with few of them in memory."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import MissingDependency
from ..files import make_folder, replace_file, writing
from ..parsing import json_line, json_text
from ..text import utf8, utf8_all
from ..types import MESSAGES, Example, Message
from .asked import weights
from .messages import with_tools

SHARD_BYTES = 2**30
"""From this size on a JSONL file is followed by another one."""
_ROWS, _BYTES = 1000, 2**26
"""What is put into a Parquet file at once: so many rows, or what they have as JSON."""
_NAME = re.compile(r"examples(-\d{5}-of-\d{5})?\.(jsonl|parquet)")
_HALF = re.compile(r"\.(?:rows-(\d+)-.*|examples.*\.(\d+)\.tmp)")
"""What is not whole yet, with the id of the process that makes it."""


class RowFiles:
    """Takes rows one by one, and leaves them kind by kind in files.

    One pair of files is ``examples.jsonl`` and ``examples.parquet``; of several the first is
    ``examples-00000-of-00002.jsonl``. Until they are put in their places they are in a hidden folder, which is left
    only by a kill, until the next export.

    Args:
        folder: where the files are put; made if it is not there.
        shard_bytes: from this size on a JSONL file is followed by another.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        self.tools = False
        """Whether a row has tools, or messages with calls."""
        self.notes: list[str] = []
        """What the user should know of the files."""
        self._readable = _Readable()
        self._numbers: Counter[tuple[str, str]] = Counter()  # rows by kind and task
        self._spools: dict[str, IO[str]] = {}

    def __enter__(self) -> "RowFiles":
        with writing(make_folder(self.folder)):
            for left in self.folder.iterdir():
                if (told := _HALF.fullmatch(left.name)) and not _is_there(int(told[1] or told[2])):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            self._scratch = tempfile.TemporaryDirectory(prefix=f".rows-{os.getpid()}-", dir=self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            with contextlib.suppress(OSError):  # a full disk, again
                spool.close()
        self._scratch.cleanup()
        with contextlib.suppress(OSError):  # rows are in it, of this export or of an earlier one
            self.folder.rmdir()

    def add(self, row: Example) -> None:
        """Keep a row.

        Raises:
            RunFolderError: there is no room.
        """
        kind = row["kind"]
        with writing(self.folder):
            if kind not in self._spools:
                file = self._file(f"{kind}.rows")
                self._spools[kind] = open(file, "w", encoding="utf-8", errors="replace", newline="\n")  # noqa: SIM115
            self._spools[kind].write(json_line(self._readable(row)))
        self._numbers[kind, row["task_id"]] += 1
        self.tools = self.tools or with_tools(row)

    def finish(self, balance: str) -> list[str]:
        """Write the files, not yet in their places; ``balance`` is as `weights` has it.

        Returns:
            The names that they will have, JSONL first.

        Raises:
            RunFolderError: there is no room; what was there is as it was.
        """
        with writing(self.folder):
            for spool in self._spools.values():
                spool.close()
            shards, tables = self._write(weights(self._numbers, balance))
        kinds = [".jsonl", *[".parquet"] * tables]
        self._made = {_name(n, shards, kind): self._file(f"{n}{kind}") for kind in kinds for n in range(shards)}
        return [*self._made]

    def place(self) -> None:
        """Put the files in their places, without those of earlier exports; a card should name them all by then.

        So whoever reads the folder by its card after a kill finds that one is missing.
        """
        old = [file for file in self.folder.iterdir() if _NAME.fullmatch(file.name)]
        several = any("-of-" in name for name in self._made)
        for file in old:  # else they would contradict the new ones, also where a kill comes between
            if several or file.name not in self._made:
                file.unlink()
        for name, file in self._made.items():
            replace_file(self.folder / name, lambda new, file=file: shutil.move(file, new))  # type: ignore[misc]

    def _write(self, weights: Mapping[tuple[str, str], float]) -> tuple[int, bool]:
        """Write the files beside the spools: how many, and whether they are Parquet too."""
        rows, shards, tables = self._weighted(weights), 0, bool(self._numbers)
        if not tables:
            self.notes.append("there are no rows: load_dataset reads no files without any, so none is in Parquet")
        upcoming = next(rows, None)
        while upcoming is not None or not shards:
            with contextlib.ExitStack() as stack:
                lines = stack.enter_context(open(self._file(f"{shards}.jsonl"), "wb"))
                table: _Table | None = None
                if tables:
                    try:
                        table = stack.enter_context(_Table(self._file(f"{shards}.parquet"), tools=self.tools))
                    except MissingDependency as error:
                        self.notes.append(f"no Parquet file: {error}")
                        tables = False
                size = 0
                while upcoming is not None and size < self._shard_bytes:
                    text, row = upcoming
                    line = text.encode(errors="replace")
                    lines.write(line)
                    size += len(line)
                    if table is not None:
                        table.add(row, len(line))
                    upcoming = next(rows, None)
            shards += 1
        return shards, tables

    def _weighted(self, weights: Mapping[tuple[str, str], float]) -> Iterator[tuple[str, dict[str, Any]]]:
        """All rows with their weights, kind by kind, each with its line."""
        for kind in sorted(self._spools):
            with open(self._file(f"{kind}.rows"), encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    row: dict[str, Any] = json.loads(line)
                    weight = weights.get((kind, row["task_id"]), 1.0)
                    if weight != row["weight"]:
                        row["weight"] = weight
                        yield json_line(row), row
                    else:
                        yield line, row

    def _file(self, name: str) -> Path:
        return Path(self._scratch.name) / name


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _name(number: int, shards: int, suffix: str) -> str:
    return f"examples{suffix}" if shards == 1 else f"examples-{number:05}-of-{shards:05}{suffix}"


def write_jsonl(rows: Iterable[Example], file: Path) -> None:
    """Write one row a line."""
    with open(file, "w", encoding="utf-8", errors="replace", newline="\n") as out:
        out.writelines(map(json_line, map(_Readable(), rows)))


def write_parquet(rows: list[Example], file: Path) -> None:
    """Write rows with a fixed schema, see `_Table`.

    Raises:
        MissingDependency: pyarrow is not installed.
    """
    with _Table(file, tools=any(map(with_tools, rows))) as table:
        for row in map(_Readable(), rows):
            table.add(row)


class _Table:
    """A Parquet file with a fixed schema, so that an export without token ids has the same columns as one with them.

    What differs from tool to tool is JSON text: Arrow has one type for a column, and would put each tool's arguments
    into every other's as nulls. Messages have calls where any row has some: a null is one to some chat templates.
    """

    def __init__(self, file: Path, *, tools: bool) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingDependency(extra="train", needed_for="Writing Parquet") from error
        self._tools, self._from_rows = tools, pa.Table.from_pylist
        fields = [("role", pa.string()), ("content", pa.string())]
        if tools:
            function = pa.struct([("name", pa.string()), ("arguments", pa.string())])
            call = pa.struct([("type", pa.string()), ("function", function), ("id", pa.string())])
            fields += [("tool_calls", pa.list_(call)), ("name", pa.string()), ("tool_call_id", pa.string())]
        message = pa.list_(pa.struct(fields))
        types: dict[str, Any] = {
            "version": pa.int32(),
            "prompt": message,
            "completion": message,
            "decision_point": pa.int32(),
            "weight": pa.float64(),
            "prompt_token_ids": pa.list_(pa.int32()),
            "completion_token_ids": pa.list_(pa.int32()),
            "rejected": message,
            "rejected_token_ids": pa.list_(pa.int32()),
            "teacher_prompt": message,
            "advantage": pa.float64(),
            "logprobs": pa.list_(pa.float64()),
        }
        self._schema = pa.schema([(name, types.get(name, pa.string())) for name in Example.__annotations__])
        self._out = pq.ParquetWriter(file, self._schema)
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def __enter__(self) -> "_Table":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._out.close()

    def add(self, row: dict[str, Any], size: int = 0) -> None:
        """Write a row, with others; ``size`` is about what it takes."""
        self._rows.append(_as_json_text(row) if self._tools else row)
        self._size += size
        if len(self._rows) >= _ROWS or self._size >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._out.write_table(self._from_rows(self._rows, schema=self._schema))
        self._rows, self._size = [], 0


def _as_json_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with tools and arguments as JSON text."""

    def message(held: dict[str, Any]) -> dict[str, Any]:
        if not (calls := held.get("tool_calls")):
            return held
        functions = [call["function"] | {"arguments": json_text(call["function"]["arguments"])} for call in calls]
        return held | {
            "tool_calls": [call | {"function": function} for call, function in zip(calls, functions, strict=True)]
        }

    told = {name: [message(each) for each in row[name]] for name in MESSAGES if row.get(name)}
    return row | told | ({"tools": json_text(row["tools"])} if row.get("tools") else {})


class _Readable:
    """Rows as they are written: their texts are what every file can hold, also where a run's log was written by others.

    Prompts of a task repeat each other, so each text, message with calls and list of tools of it is looked at once.
    """

    def __init__(self) -> None:
        self._task: str | None = None
        self._known: dict[str, str] = {}
        self._whole: dict[int, tuple[Any, Any]] = {}  # by identity: rows share them

    def __call__(self, row: Example) -> dict[str, Any]:
        if row["task_id"] != self._task:
            self._task, self._known, self._whole = row["task_id"], {}, {}
        held: dict[str, Any] = dict(row)
        clean, clean_all = self._clean, self._clean_all
        for column in MESSAGES:
            messages: list[Message] = held.get(column) or []
            if any(len(message) > 2 or clean(message["content"]) != message["content"] for message in messages):
                held[column] = [
                    clean_all(message) if len(message) > 2 else {**message, "content": clean(message["content"])}
                    for message in messages
                ]
        if held.get("tools"):
            held["tools"] = clean_all(row["tools"])
        return held | {name: clean(held[name]) for name in ("task_id", "branch_id") if held[name]}

    def _clean(self, text: str) -> str:
        if text not in self._known:
            self._known[text] = utf8(text)
        return self._known[text]

    def _clean_all(self, value: Any) -> Any:
        if id(value) not in self._whole:
            self._whole[id(value)] = value, utf8_all(value)
        return self._whole[id(value)][1]
