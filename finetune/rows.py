"""Example files: read and checked, whoever wrote them.

A record that is not a row as the exporter writes it is an error that says file, line and field; nothing is guessed or
cut, and nothing is converted but a branch's number into its text. All bad records of all files are collected before
anything is raised.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leafe_graph.errors import ConfigError, ExampleError, MissingDependency
from leafe_graph.files import path_of
from leafe_graph.parsing import keys_once
from leafe_graph.types import FORMAT_VERSION, Example

ROLES = ("system", "user", "assistant", "tool")
"""Roles of a prompt's messages. Templates write a role as it stands: any other text could open a message of its own."""

_EXAMPLE: TypeAdapter[Example] = TypeAdapter(Example)
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
    if (folder / "branches.jsonl").is_file():
        raise ConfigError(f"{path} is a run without example rows: leafe export {path} makes them")
    for pattern in ("*.jsonl", "*.parquet"):
        if files := sorted(folder.glob(pattern)):
            return files
    raise ConfigError(f"no example rows at {path}: expected a .jsonl or .parquet file, or a folder that holds some")


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
                rows.append(SourceRow(str(file), position, place, _checked(raw)))
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


def short(value: Any) -> str:
    """The value as it stands in an error message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list ...
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:77] + "..."


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
        for part in ("prompt", "completion", "rejected", "teacher_prompt"):
            if isinstance(held := record.get(part), list):
                record[part] = [
                    {k: v for k, v in m.items() if v is not None} if isinstance(m, dict) else m for m in held
                ]
        yield f"row {position}", record


def _checked(raw: Any) -> Example:
    """The record itself if it is a row; ValueError with the field's name otherwise."""
    if not isinstance(raw, dict):
        raise ValueError(f"expected a JSON object, got {type(raw).__name__}")
    if "version" not in raw:
        raise ValueError(
            f"not a row of this trainer's: it has the columns {short(', '.join(map(str, raw)))}; expected "
            f"{', '.join(Example.__annotations__)}, as docs/training_rows.md tells and leafe export writes them"
        )
    version = raw.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"version is {short(version)}, this trainer reads {FORMAT_VERSION}: export the run anew")
    if type(raw.get("branch_id")) is int:  # readers of tables make numbers of texts: "1" is 1 again
        raw["branch_id"] = str(raw["branch_id"])
    for name in Example.__optional_keys__:  # tables have every column: null is what a row does not have
        if raw.get(name, ...) is None:
            del raw[name]
    try:
        _EXAMPLE.validate_python(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        shown = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {short(e['input'])})" for e in found[:_SHOWN]]
        raise ValueError("; ".join(shown)) from None
    example: Example = raw  # type: ignore[assignment]  # validation drops keys it does not know
    _check_messages("prompt", example["prompt"])
    _check_answer("completion", example["completion"])
    _check_text("task_id", example["task_id"])
    _check_text("branch_id", example["branch_id"])
    _check_what_its_kind_has(example)
    if not (math.isfinite(example["weight"]) and example["weight"] >= 0):
        raise ValueError(f"weight is {example['weight']}: expected a finite number that is not negative")
    if example["decision_point"] < 0:
        raise ValueError(f"decision_point is {short(example['decision_point'])}: expected 0 or more")
    for field, ids in (
        ("prompt_token_ids", example["prompt_token_ids"]),
        ("completion_token_ids", example["completion_token_ids"]),
        ("rejected_token_ids", example.get("rejected_token_ids")),
    ):
        if ids and not 0 <= min(ids) <= max(ids) < 2**31:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(f"{field} holds {short(wrong)}: expected token ids, from 0 to 2**31 - 1")
    return example


_OF_A_KIND = {"preference": "rejected", "rollout": "advantage"}
"""What makes rows of a kind what they are: those have it, and no others."""


def _check_what_its_kind_has(example: Example) -> None:
    kind = example["kind"]
    for owner, field in (*_OF_A_KIND.items(), ("preference", "rejected_token_ids"), ("rollout", "logprobs")):
        if kind != owner and field in example:
            raise ValueError(f"{field} in a row of the kind {kind}: expected it in those of the kind {owner} alone")
    if (needed := _OF_A_KIND.get(kind)) and needed not in example:
        raise ValueError(f"{needed} is missing: a row of the kind {kind} needs it")
    if "rejected" in example:
        _check_answer("rejected", example["rejected"])
        if example["rejected"][0]["content"].strip() == example["completion"][0]["content"].strip():
            raise ValueError("rejected says what completion says: there is nothing to prefer")
    if "teacher_prompt" in example:
        if kind != "counterfactual":
            raise ValueError(f"teacher_prompt in a row of the kind {kind}: expected it in counterfactual rows alone")
        _check_messages("teacher_prompt", example["teacher_prompt"])
    if not math.isfinite(example.get("advantage", 0.0)):
        raise ValueError(f"advantage is {example['advantage']}: expected a finite number")
    if (logprobs := example.get("logprobs")) is not None:
        ids = example["completion_token_ids"]
        if ids is None or len(ids) != len(logprobs):
            raise ValueError(
                f"logprobs has {len(logprobs)} numbers, completion_token_ids {'null' if ids is None else len(ids)}: "
                "expected one for each id"
            )
        if wrong := [each for each in logprobs if not (math.isfinite(each) and each <= 0)]:
            raise ValueError(f"logprobs holds {wrong[0]}: expected finite numbers that are not above 0")


def _check_messages(field: str, messages: Sequence[Any]) -> None:
    if not messages:
        raise ValueError(f"{field} is empty: expected at least one message")
    for i, message in enumerate(messages):
        _check_message(f"{field}.{i}", message)


def _check_answer(field: str, messages: Sequence[Any]) -> None:
    roles = [m["role"] for m in messages]
    if roles != ["assistant"]:
        raise ValueError(f"{field} has the roles {short(roles)}: expected exactly one assistant message")
    _check_message(f"{field}.0", messages[0])
    if not messages[0]["content"].strip():
        raise ValueError(f"{field}.0.content is empty, so all labels are masked: expected a non-empty action")


def _check_message(field: str, message: Any) -> None:
    if unknown := sorted(message.keys() - {"role", "content"}):
        raise ValueError(f"{field}: unknown keys {short(unknown)}: expected role and content alone")
    if message["role"] not in ROLES:
        raise ValueError(f"{field}.role is {short(message['role'])}: expected one of {', '.join(ROLES)}")
    _check_text(f"{field}.content", message["content"])


def _check_text(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field}: half a surrogate pair at character {error.start}, which is no text") from None
