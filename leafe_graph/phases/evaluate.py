"""Judging, as its settings say."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from ..settings import Limits

if TYPE_CHECKING:
    from ..evaluation.results import Result
    from .config import Eval
from .console import console
from .explore import _play


def run_eval(config: "Eval") -> "Result":
    """``leafe eval``."""
    from ..evaluation.plots import plot, table
    from ..evaluation.results import result_from_run

    limits = Limits(max_branches=config.samples, stop_on_success=False)
    run = _play(config, strategy="independent", limits=limits, label="evaluate")
    name = config.name or (config.adapter.name if config.adapter else config.model)
    result = result_from_run(run, policy=name, n=config.samples)
    file = result.save(_beside(run.folder, ".json"))
    console.print(table([result]))
    try:
        plot([result], _beside(run.folder, ".png"))
    except MissingDependency as error:
        console.print(str(error), markup=False)
    console.print(f"written to {file}, its samples to {run.folder}", markup=False)
    return result


def _beside(folder: Path, suffix: str) -> Path:
    """``eval/base.json`` for the samples in ``eval/base``: where `write_report` looks for it."""
    return folder.with_name(folder.name + suffix)
