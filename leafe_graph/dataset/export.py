"""A run's rows as files: JSONL, Parquet and a dataset card."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..errors import ConfigError
from ..files import check_file, path_of, save_text
from ..models.hub import Repo, check_hub
from ..prompts import Prompts
from ..settings import Live, Rows, part, takes
from ..tree.branches import refuse_unplayed
from ..tree.probes import FILE, Probes
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from .card import card
from .examples import Arguments as Making
from .examples import clean_rows
from .formats import RowFormat, refuse_formats, write_formats
from .hub import push_rows
from .rollouts import episodes
from .row_files import SHARD_BYTES, RowFiles
from .row_files import write_jsonl as write_jsonl
from .row_files import write_parquet as write_parquet
from .summary import Summary


class Arguments(Rows):
    """What `export` is called with."""

    run: Live[RunFolder | str | Path] = Field(kw_only=False)
    """A run folder."""
    test_tasks: bool = False
    """Also take a run of tasks of the test split, which are to judge by and not to learn from."""
    probes: Live[str | Path | None] = None
    """The file of probes that some kinds need; None is ``probes.jsonl`` in the run folder."""
    history: int | Literal["run"] | None = "run"
    """Earlier turns shown in a prompt, None is all; "run": as the policy was run."""
    out: Live[str | Path | None] = None
    """Folder to write to; None is ``examples`` in the run folder."""
    prompts: Live[Prompts | None] = None
    """The texts that the policy was run with; those that the run kept if None."""
    other_texts: bool = False
    """Render the rows with ``prompts`` even if the policy was run with other texts."""
    formats: list[RowFormat] = Field(default=[])
    """Forms that others read, written beside the rows: chats as "sharegpt" has them; the same with the
    ``dataset_info.json`` that "llama-factory" takes; preferences for TRL's DPOTrainer, "trl-dpo"; and, of the trees
    themselves, traces as "verifiers" reads them."""
    push_to_hub: Repo | None = None
    """Upload what is written to this dataset, "user/name", of the Hugging Face hub. It is made, and is private, unless
    it is there; the card that it gets names no folder and no server of yours."""
    license: str = "unknown"
    """For the dataset card; a Hugging Face licence name."""
    shard_bytes: int = Field(default=SHARD_BYTES, ge=1)
    """From this size on a JSONL file is followed by another, and its Parquet twin with it."""


@takes(Arguments)
def export(args: Arguments) -> Summary:
    """Write a run's examples as JSONL, Parquet and a dataset card; ``datasets.load_dataset(out)`` reads them.

    Files are replaced whole, never half-written. Without pyarrow the JSONL is written alone and a note says so. Trees
    are read one by one and rows are put on the disk, so memory does not bound the size of a run.

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
    refuse_unplayed(folder.outlines, folder.folder)
    settings = folder.settings
    if not args.test_tasks and (told := _on_test(folder)):
        raise ConfigError(
            f"{folder.folder} was played on tasks of the test split, as its {told} says: they are to judge by, and "
            "rows of them no training data. Explore the train split; test_tasks=True (--test-tasks), if that is meant"
        )
    refuse_formats(args.formats, args.kinds)
    if args.push_to_hub is not None:
        check_hub(args.push_to_hub)
    for name in ("examples.jsonl", "examples.parquet", "README.md"):
        check_file(target / name)
    if (args.teacher or "on_policy" in args.kinds) and settings.experience_turns == 0:
        raise ConfigError(
            f"{folder.folder} was played with experience_turns 0, so no prompt of it showed an experience that a "
            "teacher could know: leave teacher, or the kind on_policy, out"
        )
    shown = settings.history if args.history == "run" else args.history
    played = as_played(folder, prompts or Prompts(), known=args.other_texts)
    if prompts is not None and not args.other_texts:
        _refuse_other_texts(folder, prompts, played)
    prompts = prompts or played
    making = Making(
        branches=[],
        **dict(part(args, Rows)),
        history=shown,
        prompts=prompts,
        played=played,
        probes=_probes(args, folder.folder),
        experience_turns=settings.experience_turns,
        prompt_ids=shown == settings.history and prompts.texts == played.texts,
    )
    summary, untold = Summary(asked=part(args, Rows), history=shown), 0
    with RowFiles(target, shard_bytes=args.shard_bytes) as files:
        for row in clean_rows(((task, folder.trees[task]) for task in sorted(folder.trees)), making, summary):
            untold += row["kind"] == "counterfactual" and "teacher_prompt" not in row
            files.add(row)
        summary.notes += _notes(args, settings, summary, untold)
        summary.files = files.finish(args.balance)
        summary.notes += files.notes
        text = card(
            summary,
            dict(folder.config.get("settings", {})),
            data=[name for name in summary.files if name.endswith(".parquet")] or summary.files,
            license=args.license,
            tools=files.tools,
        )
        save_text(target / "README.md", text)
        files.place()
    jsonl = [target / name for name in summary.files if name.endswith(".jsonl")]
    trees = ((task, folder.trees[task]) for task in sorted(folder.trees))
    traces = episodes(trees, settings, prompts, shown)
    others = write_formats(target, lambda: _rows(jsonl), args.formats, tools=files.tools, traces=traces)
    if args.formats and not others:
        summary.notes.append(f"no file of {', '.join(args.formats)}: these rows have no such form")
    summary.files += [*others, "README.md"]
    if args.push_to_hub is not None:
        summary.notes.append(f"uploaded to {push_rows(target, summary.files, args.push_to_hub)}")
    return summary


def _probes(args: Arguments, run: Path) -> Probes | None:
    """The probes that the rows are made of; None where none are asked for."""
    if not (needing := sorted({"world_model", "self_reflection"} & {*args.kinds})):
        return None
    file = run / FILE if args.probes is None else path_of(args.probes)
    if not file.is_file():
        raise ConfigError(
            f"{file} is not there, which rows of the kind {needing[0]} are made of: learn with the method "
            "early_experience or self_reflection, or leave the kind out"
        )
    return Probes(file)


def _rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        with open(file, encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)


def _notes(args: Rows, settings: RunSettings, summary: Summary, untold: int) -> list[str]:
    """What the rows are short of, for whoever trains on them; ``untold``: those without an experience."""
    notes = []
    if args.teacher and untold:
        of = f"{untold} of {summary.counterfactual}"
        notes.append(f"{of} counterfactual rows have no teacher_prompt: they were told no experience")
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
    tasks = (branch.task for branch in run.outlines)
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
