"""Rows and training, as their settings say."""

import inspect
import os
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..tree.run_folder import RunFolder

if TYPE_CHECKING:
    from ..dataset.examples import Summary
    from ..finetune.config import TrainConfig, TrainResult
    from .config import Demonstrate, Export
from ..envs.catalog import _world
from .console import _show, console
from .explore import _chosen, _prompts


def run_demonstrate(config: "Demonstrate") -> None:
    """``leafe demonstrate``."""
    from ..dataset.demonstrate import demonstrate
    from ..dataset.export import write_jsonl

    expert = getattr(_world(config.env)[1], "expert", None)
    if expert is None:
        raise ConfigError(f"environment {config.env!r} has no expert: its module has no function expert(task)")
    make, tasks = _chosen(config)
    for_expert = {each.name for each in inspect.signature(expert).parameters.values() if each.kind is each.KEYWORD_ONLY}
    rows = demonstrate(
        make,
        tasks,
        partial(expert, **{key: value for key, value in config.env_options.items() if key in for_expert}),
        prompts=_prompts(config.prompts),
        history=config.history,
        mistakes=config.mistakes,
        seed=config.seed,
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(rows, config.out)
    console.print(f"{len(rows)} rows of {len(tasks)} tasks in {config.out}", markup=False)


def run_export(config: "Export") -> "Summary":
    """``leafe export``."""
    from ..dataset.export import export

    prompts = RunFolder(config.run).config.get("settings", {}).get("prompts")
    summary = export(
        config.run,
        keep=config.keep,
        skip_invalid=config.skip_invalid,
        diverged=config.diverged,
        out=config.out,
        prompts=_prompts(prompts),
    )
    _show(f"examples: {config.out or config.run / 'examples'}", summary.rows())
    for note in summary.notes:
        console.print(note, markup=False)
    return summary


def run_train(config: "TrainConfig") -> "TrainResult":
    """``leafe train``; of several processes the first one tells."""
    from ..finetune.train import train

    result = train(config)
    if not int(os.environ.get("RANK", "0")):
        _show("training", result.summary().items())
    return result
