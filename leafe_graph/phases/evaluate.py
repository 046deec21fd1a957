"""Judging, as its settings say."""

import time

from ..errors import ConfigError, MissingDependency
from ..evaluation.plots import plot, table
from ..evaluation.random_policy import NAME as RANDOM
from ..evaluation.random_policy import random_policy
from ..evaluation.results import Result, result_from_run
from ..files import beside, check_file
from ..settings import Acting, Limits, Play, marked, part
from ..tree.branches import frequent
from .config import EvalConfig, Recorded, TaskBudget, TotalBudget
from .console import console
from .explore import play
from .resolve import horizon, world


def run_eval(config: EvalConfig) -> Result:
    """``leafe eval``."""
    for suffix in (".json", ".png"):
        check_file(beside(config.out, suffix))
    started = time.monotonic()
    if config.model == RANDOM:
        result, samples = _at_random(config), ""
    else:
        run = play(
            config,
            Play(**dict(part(config, Acting))),
            strategy="independent",
            limits=Limits(max_branches=config.samples, stop_on_success=False),
            label="evaluate",
        )
        name = config.name or (config.adapter.name if config.adapter else config.model)
        result, samples = result_from_run(run, policy=name, n=config.samples), f", its samples to {run.folder}"
    file = result.save(beside(config.out, ".json"))
    console.print(table([result]))
    for cause in frequent(result.causes):
        console.print(cause)
    clock, summed = time.monotonic() - started, result.cost["seconds"]
    console.print(f"{clock:,.1f} seconds of this call, by the clock; {summed:,.1f} summed over samples")
    try:
        plot([result], beside(config.out, ".png"))
    except MissingDependency as error:
        console.print(str(error))
    console.print(f"written to {file}{samples}")
    return result


def _at_random(config: EvalConfig) -> Result:
    """The floor: no model, so no graph and no run folder."""
    limits = [*TaskBudget.model_fields, *TotalBudget.model_fields]
    if unused := [name for name in ("adapter", *limits) if getattr(config, name) is not None]:
        raise ConfigError(f"a random policy has no {unused[0]}; leave it out")
    make, tasks = world(config)
    result = random_policy(
        make,
        tasks,
        n=config.samples,
        max_turns=(turns := horizon(config)),
        seed=config.seed or 0,
        settings=config.model_dump(mode="json", include=marked(EvalConfig, Recorded)) | {"max_turns": turns},
    )
    return result.model_copy(update={"policy": config.name or RANDOM})
