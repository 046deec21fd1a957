"""Rows and training, as their settings say."""

import os
from typing import TYPE_CHECKING

from ..tree.run_folder import RunFolder

if TYPE_CHECKING:
    from ..dataset.examples import Summary
    from ..finetune.config import TrainConfig, TrainResult
    from .config import Demonstrate, Export
from ..envs.catalog import expert
from .console import _show, console
from .explore import _chosen, _prompts


def run_demonstrate(config: "Demonstrate") -> None:
    """``leafe demonstrate``."""
    from ..dataset.demonstrate import demonstrate
    from ..dataset.export import write_jsonl

    plays = expert(config.env, options=config.env_options)
    make, tasks = _chosen(config)
    rows = demonstrate(
        make,
        tasks,
        plays,
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
