"""Judging, as its settings say."""

import shutil
import time
from typing import cast

from ..errors import ConfigError, MissingDependency
from ..evaluation.lockstep import can, lockstep
from ..evaluation.plots import plot, table
from ..evaluation.random_policy import NAME as RANDOM
from ..evaluation.random_policy import random_policy
from ..evaluation.results import Result, result_from_run
from ..files import beside, check_file
from ..models.identity import digests
from ..models.local.chat_model import LocalChatModel
from ..settings import Acting, Limits, Pace, Play, marked, part
from ..terminal.bar import Bar
from ..tracing import unsent
from ..tree.branches import frequent
from .config import EvalConfig, Recorded, TaskBudget, TotalBudget
from .console import console
from .explore import play
from .resolve import horizon, resolve, world


def run_eval(config: EvalConfig) -> Result:
    """``leafe eval``."""
    for suffix in (".json", ".png"):
        check_file(beside(config.out, suffix))
    started = time.monotonic()
    name = config.name or (config.adapter.name if config.adapter else config.model)
    run = None
    if config.model == RANDOM:
        result = _at_random(config)
    elif (counted := _in_lockstep(config, name)) is not None:
        result = counted
    else:
        run = play(
            config,
            Play(**dict(part(config, Acting))),
            strategy="independent",
            limits=Limits(max_branches=config.samples, stop_on_success=False),
            label="evaluate",
        )
        result = result_from_run(run, policy=name, n=config.samples)
    file = result.save(beside(config.out, ".json"))
    untold = run is not None and config.trace_to is not None and unsent(run, config.trace_to)
    if run is not None and not config.keep_samples and not untold:  # what they came to is safe
        shutil.rmtree(run.folder)
        run = None
    console.print(table([result]))
    for cause in frequent(result.causes):
        console.print(cause)
    clock, summed = time.monotonic() - started, result.cost["seconds"]
    console.print(f"{clock:,.1f} seconds of this call, by the clock; {summed:,.1f} summed over samples")
    try:
        plot([result], beside(config.out, ".png"))
    except MissingDependency as error:
        console.print(str(error))
    console.print(f"written to {file}" + ("" if run is None else f", its samples to {run.folder}"))
    return result


def _in_lockstep(config: EvalConfig, policy: str) -> Result | None:
    """What no record is wanted of, if it can be played so."""
    limited = any(getattr(config, name) is not None for name in (*TaskBudget.model_fields, *TotalBudget.model_fields))
    recorded = config.keep_samples or config.trace_to is not None
    if recorded or limited or config.checkpointer is not None or config.workers is not None:
        return None
    found = resolve(config)
    env = found.make()
    env.close()
    if not can(found.policy, env):
        return None
    how = part(config, Acting).model_copy(update={"max_turns": found.horizon})
    total, ended = len(found.tasks) * config.samples, 0
    with Bar("evaluate", total) as bar:

        def done(episodes: int) -> None:
            nonlocal ended
            ended += episodes
            bar.update(ended, ())

        return lockstep(
            cast(LocalChatModel, found.policy),
            found.make,
            found.tasks,
            policy=policy,
            n=config.samples,
            play=how,
            prompts=found.prompts,
            settings=found.recorded
            | how.model_dump(exclude=marked(Acting, Pace))
            | {"weights": {"model": digests(found.policy), "reflector": []}},
            done=done,
        )


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
