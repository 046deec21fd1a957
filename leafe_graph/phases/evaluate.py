"""Judging, as its settings say."""

import time

from ..errors import MissingDependency
from ..evaluation.plots import plot, table
from ..evaluation.results import Result, result_from_run
from ..files import beside, check_file
from ..settings import Acting, Limits, Play, part
from ..tree.branches import frequent
from .config import EvalConfig
from .console import console
from .explore import play


def run_eval(config: EvalConfig) -> Result:
    """``leafe eval``."""
    for suffix in (".json", ".png"):
        check_file(beside(config.out, suffix))
    started = time.monotonic()
    run = play(
        config,
        Play(**dict(part(config, Acting))),
        strategy="independent",
        limits=Limits(max_branches=config.samples, stop_on_success=False),
        label="evaluate",
    )
    name = config.name or (config.adapter.name if config.adapter else config.model)
    result = result_from_run(run, policy=name, n=config.samples)
    file = result.save(beside(run.folder, ".json"))
    console.print(table([result]))
    for cause in frequent(result.causes):
        console.print(cause)
    clock, summed = time.monotonic() - started, result.cost["seconds"]
    console.print(f"{clock:,.1f} seconds of this call, by the clock; {summed:,.1f} summed over samples")
    try:
        plot([result], beside(run.folder, ".png"))
    except MissingDependency as error:
        console.print(str(error))
    console.print(f"written to {file}, its samples to {run.folder}")
    return result
