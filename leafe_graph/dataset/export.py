"""A run's rows as files: JSONL, Parquet and a dataset card."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..errors import ConfigError, MissingDependency
from ..files import check_file, path_of, replace_file, save_text
from ..parsing import json_line
from ..prompts import Prompts
from ..settings import Live, Rows, part, takes
from ..text import utf8, utf8_all
from ..tree.branches import refuse_unplayed
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from ..types import MESSAGES, Example, Message
from .card import card
from .examples import examples
from .messages import with_tools
from .summary import Summary


class Arguments(Rows):
    """What `export` is called with."""

    run: Live[RunFolder | str | Path] = Field(kw_only=False)
    """A run folder."""
    test_tasks: bool = False
    """Also take a run of tasks of the test split, which are to judge by and not to learn from."""
    history: int | Literal["run"] | None = "run"
    """Earlier turns shown in a prompt, None is all; "run": as the policy was run."""
    out: Live[str | Path | None] = None
    """Folder to write to; None is ``examples`` in the run folder."""
    prompts: Live[Prompts | None] = None
    """The texts that the policy was run with; those that the run kept if None."""
    other_texts: bool = False
    """Render the rows with ``prompts`` even if the policy was run with other texts."""
    license: str = "unknown"
    """For the dataset card; a Hugging Face licence name."""


@takes(Arguments)
def export(args: Arguments) -> Summary:
    """Write a run's examples as JSONL, Parquet and a dataset card; ``datasets.load_dataset(out)`` reads them.

    Files are replaced whole, never half-written. Without pyarrow the JSONL is written alone and a note says so.

    Raises:
        ConfigError: no run folder, one of tasks of the test split, other prompts than were played, or rows that the run
            does not tell enough for.
        NothingPlayed: every branch of the run was failed by its model or its environment.
        RunFolderError: the rows cannot be written.
    """
    run, out, prompts = args.run, args.out, args.prompts
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    target = path_of(out) if out is not None else folder.folder / "examples"
    folder.require()
    refuse_unplayed(folder.branches, folder.folder)
    settings = folder.settings
    if not args.test_tasks and (told := _on_test(folder)):
        raise ConfigError(
            f"{folder.folder} was played on tasks of the test split, as its {told} says: they are to judge by, and "
            "rows of them no training data. Explore the train split; test_tasks=True (--test-tasks), if that is meant"
        )
    for name in ("examples.jsonl", "examples.parquet", "README.md"):
        check_file(target / name)
    if args.teacher and settings.experience_turns == 0:
        raise ConfigError(
            f"{folder.folder} was played with experience_turns 0, so no prompt of it showed an experience that a "
            "teacher could know: leave teacher out"
        )
    shown = settings.history if args.history == "run" else args.history
    played = as_played(folder, prompts or Prompts(), known=args.other_texts)
    if prompts is not None and not args.other_texts:
        _refuse_other_texts(folder, prompts, played)
    prompts = prompts or played
    rows, summary = examples(
        folder.branches,
        **dict(part(args, Rows)),
        history=shown,
        prompts=prompts,
        played=played,
        prompt_ids=shown == settings.history and prompts.texts == played.texts,
    )
    summary.notes += _notes(rows, args, settings)
    replace_file(target / "examples.jsonl", lambda file: write_jsonl(rows, file))
    summary.files = ["examples.jsonl", "README.md"]
    data = "examples.parquet"
    try:
        if rows:
            replace_file(target / data, lambda file: write_parquet(rows, file))
            summary.files.insert(1, data)
        else:
            summary.notes.append("there are no rows: load_dataset reads no files without any, so none is in Parquet")
    except MissingDependency as error:
        summary.notes.append(f"no Parquet file: {error}")
    if data not in summary.files:
        (target / data).unlink(missing_ok=True)  # of an earlier export: its rows would contradict the new ones
        data = "examples.jsonl"
    text = card(
        summary,
        dict(folder.config.get("settings", {})),
        data=data,
        license=args.license,
        tools=any(map(with_tools, rows)),
    )
    save_text(target / "README.md", text)
    return summary


def _notes(rows: list[Example], args: Rows, settings: RunSettings) -> list[str]:
    """What the rows are short of, for whoever trains on them."""
    notes = []
    cf = [row for row in rows if row["kind"] == "counterfactual"]
    if args.teacher and (untold := sum("teacher_prompt" not in row for row in cf)):
        notes.append(f"{untold} of {len(cf)} counterfactual rows have no teacher_prompt: they were told no experience")
    if "rollout" in args.kinds and settings.limits.stop_on_success:
        notes.append(
            "the run ended each task with its first success, so the groups of its rollouts are cut short and their "
            "means too low: explore without stop_on_success for rollouts"
        )
    return notes


def _on_test(run: RunFolder) -> str | None:
    """What says that tasks of the test split were played: the run's settings or, without a split there, a task."""
    split = (run.settings.model_extra or {}).get("split")
    if split is not None:
        return "setting split" if split == "test" else None
    tasks = (branch["task"] for branch in run.branches)
    tells = (t for t in tasks if "test" in (*t["id"].split("-"), (t.get("options") or {}).get("split")))
    return next((f"task {task['id']!r}" for task in tells), None)


def as_played(run: RunFolder, prompts: Prompts, *, known: bool = False) -> Prompts:
    """The prompts with the texts that the run kept, as the policy was run with them.

    ``known``: only those texts that they have; else a ConfigError names what they lack.
    """
    kept: Any = run.settings.texts
    if known:
        kept = {name: text for name, text in kept.items() if name in prompts.texts}
    if lacking := sorted(kept.keys() - prompts.texts.keys()):
        raise ConfigError(
            f"{run.folder} was played with texts that {type(prompts).__name__} does not have "
            f"({', '.join(lacking)}): give the prompts that it was played with"
        )
    return replace(prompts, **kept)


def _refuse_other_texts(run: RunFolder, given: Prompts, played: Prompts) -> None:
    """Rows of other prompts than were played would train on what the policy never saw."""
    if other := sorted(name for name, text in given.texts.items() if text != played.texts.get(name)):
        raise ConfigError(
            f"{run.folder} was played with other texts ({', '.join(other)}) than the prompts that were given have: "
            "leave prompts out to render the rows as they were played, or give other_texts=True if others are meant"
        )


def write_jsonl(rows: list[Example], file: Path) -> None:
    """Write one row a line."""
    with open(file, "w", encoding="utf-8", errors="replace", newline="\n") as out:
        out.writelines(json_line(row) for row in _readable(rows))


def write_parquet(rows: list[Example], file: Path) -> None:
    """Write rows with a fixed schema, so that an export without token ids has the same columns as one with them.

    What differs from tool to tool is JSON text: Arrow has one type for a column, and would put each tool's arguments
    into every other's as nulls. Messages have calls where any row has some: a null is one to some chat templates.

    Raises:
        MissingDependency: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency(extra="train", needed_for="Writing Parquet") from error
    fields = [("role", pa.string()), ("content", pa.string())]
    readable = list(_readable(rows))
    if any(map(with_tools, rows)):
        function = pa.struct([("name", pa.string()), ("arguments", pa.string())])
        call = pa.struct([("type", pa.string()), ("function", function), ("id", pa.string())])
        fields += [("tool_calls", pa.list_(call)), ("name", pa.string()), ("tool_call_id", pa.string())]
        readable = [_as_json_text(row) for row in readable]
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
    schema = pa.schema([(name, types.get(name, pa.string())) for name in Example.__annotations__])
    pq.write_table(pa.Table.from_pylist(readable, schema=schema), file)


def _as_json_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with tools and arguments as JSON text."""

    def message(held: dict[str, Any]) -> dict[str, Any]:
        if not (calls := held.get("tool_calls")):
            return held
        functions = [call["function"] | {"arguments": _json(call["function"]["arguments"])} for call in calls]
        return held | {
            "tool_calls": [call | {"function": function} for call, function in zip(calls, functions, strict=True)]
        }

    told = {name: [message(each) for each in row[name]] for name in MESSAGES if row.get(name)}
    return row | told | ({"tools": _json(row["tools"])} if row.get("tools") else {})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _readable(rows: Iterable[Example]) -> Iterator[dict[str, Any]]:
    """Rows as they are written: their texts are what every file can hold, also where a run's log was written by others.

    Prompts repeat each other, so each text, message with calls and list of tools is looked at once.
    """
    known: dict[str, str] = {}
    whole: dict[int, Any] = {}  # by identity: rows share them

    def clean(text: str) -> str:
        if text not in known:
            known[text] = utf8(text)
        return known[text]

    def clean_all(value: Any) -> Any:
        if id(value) not in whole:
            whole[id(value)] = utf8_all(value)
        return whole[id(value)]

    for row in rows:
        held: dict[str, Any] = dict(row)
        for column in MESSAGES:
            messages: list[Message] = held.get(column) or []
            if any(len(message) > 2 or clean(message["content"]) != message["content"] for message in messages):
                held[column] = [
                    clean_all(message) if len(message) > 2 else {**message, "content": clean(message["content"])}
                    for message in messages
                ]
        if held.get("tools"):
            held["tools"] = clean_all(row["tools"])
        yield held | {name: clean(held[name]) for name in ("task_id", "branch_id") if held[name]}
