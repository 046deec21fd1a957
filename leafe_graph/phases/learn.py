"""Rows and training, as their settings say."""

import logging
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pydantic import TypeAdapter

from ..dataset.demonstrate import demonstrate
from ..dataset.export import as_played, export, write_jsonl
from ..dataset.summary import Summary
from ..envs.catalog import expert
from ..errors import ConfigError, LeafeError
from ..files import check_file, replace_file, save_json
from ..finetune.config import TrainConfig, TrainResult
from ..processes.apart import apart, run_guarded
from ..prompts import Prompts
from ..settings import Rows, part
from ..tree.run_folder import RunFolder
from .config import DemonstrateConfig, ExportConfig
from .console import console, show
from .resolve import chosen, texts

log = logging.getLogger(__name__)


def run_demonstrate(config: DemonstrateConfig) -> None:
    """``leafe demonstrate``."""
    check_file(config.out)
    if config.split == "test" and not config.test_tasks:
        raise ConfigError(
            "split test: these tasks are to judge by, and rows of them no training data; take another split, or give "
            "--test-tasks if that is meant"
        )
    plays = expert(config.env, options=config.env_options)
    make, tasks = chosen(config)
    rows = demonstrate(
        make,
        tasks,
        plays,
        prompts=texts(config.prompts),
        history=config.history,
        mistakes=config.mistakes,
        seed=config.seed,
        progress=True,
    )
    replace_file(config.out, lambda new: write_jsonl(rows, new))
    console.print(f"{len(rows)} rows of {len(tasks)} tasks in {config.out}")


def run_export(config: ExportConfig) -> Summary:
    """``leafe export``."""
    run = RunFolder(config.run)
    summary = export(
        run,
        **dict(part(config, Rows)),
        test_tasks=config.test_tasks,
        out=config.out,
        probes=config.probes,
        formats=config.formats,
        push_to_hub=config.push_to_hub,
        prompts=texts(config.other_prompts) or _played(run),
        other_texts=config.other_prompts is not None,
    )
    show(f"examples: {config.out or config.run / 'examples'}", summary.rows())
    for note in summary.notes:
        console.print(note)
    return summary


def _played(run: RunFolder) -> Prompts | None:
    """The prompts that the run was started with, found by their name, with the texts as they were then.

    Where nothing has that name any more, the kept texts must do.
    """
    settings = run.settings
    try:
        found = texts((settings.model_extra or {}).get("prompts"))
    except ConfigError as error:
        if not settings.texts:
            raise
        log.warning("%s; the rows are rendered with the texts that the run kept", error)
        return None
    return None if found is None else as_played(run, found)


def run_train(config: TrainConfig) -> TrainResult:
    """``leafe train``; of several processes the first one tells."""
    from ..finetune.train import train

    result = train(config)
    if not int(os.environ.get("RANK", "0")):
        show("training", told_of_training(result))
    return result


def told_of_training(result: TrainResult) -> Iterator[tuple[str, str]]:
    """What a training came to, in words; what there is not is not told."""
    for name, value in result.__dict__.items():
        label = name.replace("_", " ")
        if name == "warnings":
            yield from (("warning", warning) for warning in value)
        elif isinstance(value, dict):
            counts = [f"{count:,} {kind.replace('_', ' ')}" for kind, count in value.items() if count]
            yield from [(label, " + ".join(counts))] if counts else []
        elif name == "resumed_from":
            yield from [("went on from step", f"{value:,}")] if value else []
        elif value is not None:
            digits = ",.4f" if "loss" in name else ",.1f" if isinstance(value, float) else ","
            yield label, format(value, digits) if isinstance(value, int | float) else str(value)


def run_train_apart(config: TrainConfig, accelerate: Path | None) -> TrainResult:
    """`run_train` after something was played in this process.

    Unsloth patches transformers while that is imported, which playing did long ago: it needs a fresh process. With a
    file of accelerate's as many processes as that says.
    """
    if accelerate is not None:
        return _launched(config, accelerate)
    if config.backend == "peft" or find_spec("unsloth") is None:
        return run_train(config)
    return apart(run_train, config)


def _launched(config: TrainConfig, accelerate: Path) -> TrainResult:
    """As many processes as the file says; what they came to is read from the adapter's folder."""
    settings = config.out / "train_config.json"
    save_json(settings, config.model_dump(mode="json"))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate)]
    code = run_guarded([*launch, "-m", "leafe_graph", "train", "--config", str(settings)])
    if code:
        raise LeafeError(f"the training ended with exit code {code}, see above; the same command again goes on")
    return TypeAdapter(TrainResult).validate_json((config.out / "result.json").read_text(encoding="utf-8"))
