"""Example files: read and checked, whoever wrote them.

A record that is not a row as the exporter writes it is an error that says file, line and field; nothing is guessed or
cut, and nothing is converted but a branch's number into its text. All bad records of all files are collected before
anything is raised.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError, ExampleError, MissingDependency
from leafe_graph.files import path_of
from leafe_graph.parsing import keys_once
from leafe_graph.text import matches
from leafe_graph.types import MESSAGES, Example

from .checks import checked, short

_BOM = b"\xef\xbb\xbf"
_SHOWN = 10  # bad rows in an error message


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A checked example and where it stands.

    ``source``: the file. ``row``: its 0-based position there. ``place``: the same for people: the 1-based line of a
    JSONL file, the row of a Parquet file.
    """

    source: str
    row: int
    place: str
    example: Example


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row, the field first."""

    source: str
    row: int
    place: str
    text: str


def example_files(path: Path) -> list[Path]:
    """The JSONL or Parquet files behind a path: itself, a folder's, or a run folder's ``examples/``.

    A folder that holds both formats holds the same rows twice: its JSONL files are read.
    """
    if path.is_file():
        return [path]
    folder = path / "examples" if (path / "examples").is_dir() else path
    if (folder / "branches.jsonl").is_file() or (folder / "branches").is_dir():
        raise ConfigError(f"{path} is a run without example rows: leafe export {path} makes them")
    for pattern in ("*.jsonl", "*.parquet"):
        if files := sorted(folder.glob(pattern)):
            _refuse_parts(files)
            return files
    raise ConfigError(f"no example rows at {path}: expected a .jsonl or .parquet file, or a folder that holds some")


def _refuse_parts(files: Sequence[Path]) -> None:
    """See that of each set of files, ``NAME-00000-of-00002`` and so on, all are there."""
    for file in files:
        if told := re.fullmatch(r"(.*-)\d{5}(-of-(\d{5}))", file.stem):
            whole = [file.with_name(f"{told[1]}{n:05}{told[2]}{file.suffix}") for n in range(int(told[3]))]
            if missing := sorted({*whole} - {*files}):
                raise ConfigError(f"{missing[0]} is missing: an export was killed, or lost a file; export again")


def read_examples(paths: Sequence[Path]) -> list[SourceRow]:
    """Read and check the rows of all files; raises `ExampleError` with every bad row (the first ten are shown)."""
    rows: list[SourceRow] = []
    problems: list[Problem] = []
    for file in (f for path in paths for f in example_files(path_of(path))):
        records = _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
        for position, (place, raw) in enumerate(records):
            try:
                if isinstance(raw, ValueError):
                    raise raw
                rows.append(SourceRow(str(file), position, place, checked(raw)))
            except ValueError as error:
                problems.append(Problem(str(file), position, place, str(error)))
    raise_problems(problems)
    if not rows:
        raise ConfigError(f"no example rows in {', '.join(map(str, paths))}: the files are empty")
    return rows


def split_tasks(rows: Sequence[SourceRow], share: float) -> tuple[list[SourceRow], list[SourceRow]]:
    """The rows to train on, and those of the share of the tasks, roughly, that is held out.

    A task's side is told by its own name, so that it stays on it when rows of other tasks come.
    """

    def place(task: str) -> float:
        return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8]) / 2**64

    tasks = {row.example["task_id"] for row in rows}
    held = {task for task in tasks if place(task) < share} or {min(tasks, key=place)}
    if held == tasks:
        raise ConfigError(
            f"eval_share={share:g} of {len(tasks)} task(s) leaves nothing to train on: collect rows of more tasks, or "
            "give rows of other tasks as eval_data"
        )
    return (
        [row for row in rows if row.example["task_id"] not in held],
        [row for row in rows if row.example["task_id"] in held],
    )


def of_nodes(rows: Sequence[SourceRow], nodes: Sequence[str] | None) -> list[SourceRow]:
    """The rows whose decisions these nodes made, by their names or patterns of them; None: all.

    Raises:
        ConfigError: a pattern is that of no row's node.
    """
    if nodes is None:
        return [*rows]
    known = sorted({row.example["node"] for row in rows if "node" in row.example})
    if unknown := [pattern for pattern in nodes if not any(matches(node, [pattern]) for node in known)]:
        there = f"those of the rows are {', '.join(known)}" if known else "the rows name none"
        raise ConfigError(f"nodes: no row is {unknown[0]!r}'s: {there}")
    return [row for row in rows if matches(row.example.get("node"), nodes)]


def refuse_shared_tasks(rows: Sequence[SourceRow], held_out: Sequence[SourceRow]) -> None:
    """Held-out rows of a task that is trained on would tell what was learned by heart."""
    if shared := {row.example["task_id"] for row in rows} & {row.example["task_id"] for row in held_out}:
        raise ConfigError(
            f"eval_data has rows of {len(shared)} task(s) that are trained on as well, such as {short(min(shared))}: "
            "hold out whole tasks, as eval_share does"
        )


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise `ExampleError` if there are any."""
    if not problems:
        return
    lines = [f"{p.source}, {p.place}: {p.text}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more")
    between = "\n  " if len(lines) > 1 else " "
    raise ExampleError(
        between.join([f"{len(problems)} row(s) would train wrongly:", *lines]),
        row=problems[0].row,
        source=problems[0].source,
        rows=[(p.source, p.row) for p in problems],
    )


def _jsonl(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of every line that is not blank; a ValueError where it cannot be read."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip():
                continue
            value: Any
            try:
                value = json.loads(line.decode("utf-8"), object_pairs_hook=keys_once)
            except UnicodeDecodeError as error:
                value = ValueError(
                    f"not UTF-8 ({error.reason} at byte {error.start}): expected JSON lines, "
                    "neither compressed nor UTF-16"
                )
            except RecursionError:
                value = ValueError("not JSON of a row: nested too deep")
            except ValueError as error:
                value = ValueError(f"not JSON: {error}")
            yield f"line {number}", value


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency(extra="train", needed_for=f"reading {file}") from error
    try:
        records = pq.read_table(file).to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        yield "row 0", ValueError(f"not Parquet: {short(str(error))}")
        return
    for position, record in enumerate(records):
        # Parquet gives every message every key that any message has: an absent one comes back as None.
        try:
            for part in MESSAGES:
                if isinstance(held := record.get(part), list):
                    record[part] = [_message(each) for each in held]
            if "tools" in record:
                record["tools"] = _object("tools", record["tools"])
        except ValueError as error:
            yield f"row {position}", error
            continue
        yield f"row {position}", record


def _message(told: Any) -> Any:
    """A message of a table without what is null in it; arguments of calls are JSON text there."""
    if not isinstance(told, dict):
        return told
    held = {name: value for name, value in told.items() if value is not None}
    for call in held.get("tool_calls", ()):
        if isinstance(call, dict) and isinstance(function := call.get("function"), dict):
            function["arguments"] = _object("arguments of a call", function.get("arguments"))
            if call.get("id", "") is None:
                del call["id"]
    return held


def _object(what: str, value: Any) -> Any:
    """What a JSON text holds; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=keys_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: not JSON: {error} (got {short(value)})") from None
