"""Exploring, as its settings say."""

import time
from collections import Counter

from ..exploration.explore import explore
from ..models.load import chat_model
from ..settings import Limits, Play, part
from ..tree.branches import causes, frequent
from ..tree.run_folder import RunFolder
from .config import ExploreConfig, PlayConfig
from .console import console, show, told_cost
from .resolve import resolve


def run_explore(config: ExploreConfig) -> RunFolder:
    """``leafe explore``."""
    started = time.monotonic()
    run = play(
        config,
        part(config, Play),
        strategy=config.strategy,
        limits=part(config, Limits),
        reflector=config.reflector,
        prune=config.prune,
    )
    ends = Counter(branch["end"] for branch in run.branches)
    show(
        f"{config.strategy}: {run.folder}",
        [
            ("tasks", len(run.settings.tasks)),
            ("solved", len(run.solved)),
            ("branches", len(run.branches)),
            *((f"  ended by {end}", count) for end, count in ends.most_common()),
            *told_cost(run.cost),
            ("seconds of this call, by the clock", time.monotonic() - started),
        ],
    )
    for cause in frequent(causes(run.branches)):
        console.print(cause)
    return run


def play(
    config: PlayConfig,
    how: Play,
    *,
    strategy: str,
    limits: Limits,
    reflector: str | None = None,
    prune: bool = False,
    label: str = "explore",
) -> RunFolder:
    """`explore` with what exploring and judging share; ``how`` but for its horizon, which the environment may tell."""
    found = resolve(config)
    return explore(
        found.policy,
        found.make,
        found.tasks,
        out=config.out,
        strategy=strategy,
        limits=limits,
        budget=config.budget,
        total_budget=config.total_budget,
        reflector=None if reflector is None else chat_model(reflector),
        prompts=found.prompts,
        concurrency=config.concurrency,
        checkpointer=config.checkpointer,
        prune=prune,
        progress=True,
        label=label,
        config=found.recorded | {"reflector": reflector},
        **dict(how) | {"max_turns": found.horizon},
    )
