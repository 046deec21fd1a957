"""Exploring, as its settings say."""

import sys
import time
from collections import Counter
from functools import partial
from typing import Any

from ..envs.catalog import expert
from ..errors import ConfigError
from ..exploration.demonstrated import demonstrated
from ..exploration.explore import explore
from ..exploration.explore_agent import explore_agent
from ..importing import attribute
from ..models.load import chat_model
from ..prompts import Prompts
from ..settings import TASKS, Limits, Play, marked, part
from ..tree.branches import causes, frequent
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from .config import ExploreConfig, PlayConfig, Recorded
from .console import console, show, told_cost
from .resolve import horizon, policy_of, reflecting, resolve, sampling, texts, world


def run_explore(config: ExploreConfig, *, agent: str | None = None) -> RunFolder:
    """``leafe explore``; ``agent``: MODULE:ATTRIBUTE of what makes an agent that is played whole."""
    started = time.monotonic()
    limits = part(config, Limits)
    if agent is not None:
        run = _play_agent(config, agent, limits)
    elif config.expert:
        run = _demonstrated(config, limits)
    else:
        how = part(config, Play)
        kept: Any = {"reflector": config.reflector, "prune": config.prune}
        run = play(config, how, strategy=config.strategy, limits=limits, **kept)
    ends = Counter(branch.end for branch in run.outlines)
    show(
        f"{'expert' if config.expert else config.strategy}: {run.folder}",
        [
            ("tasks", len(run.settings.tasks)),
            ("solved", len(run.solved)),
            ("branches", len(run.outlines)),
            *((f"  ended by {end}", count) for end, count in ends.most_common()),
            *told_cost(run.cost),
            ("seconds of this call, by the clock", time.monotonic() - started),
        ],
    )
    for cause in frequent(causes(run.outlines)):
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
    found, many = resolve(config), config.many
    critic = None if reflector is None else partial(chat_model, reflector, **reflecting(config, reflector))
    return explore(
        found.policy if many is None else partial(chat_model, config.model, **sampling(config)),
        found.make,
        found.tasks,
        out=config.out,
        strategy=strategy,
        limits=limits,
        budget=config.budget,
        total_budget=config.total_budget,
        reflector=critic if critic is None or many is not None else critic(),
        prompts=found.prompts,
        concurrency=config.concurrency,
        workers=many,
        checkpointer=config.checkpointer,
        durability=config.durability,
        prune=prune,
        trace_to=config.trace_to,
        progress=True,
        label=label,
        config=found.recorded | {"reflector": reflector},
        **dict(how) | {"max_turns": found.horizon},
    )


def _demonstrated(config: ExploreConfig, limits: Limits) -> RunFolder:
    """What the environment's expert does, as a run."""
    plays = expert(config.env, options=config.env_options)
    make, tasks = world(config)
    prompts = texts(config.prompts) or Prompts()
    recorded = config.model_dump(mode="json", include=marked(type(config), Recorded) - {"model", "adapter"})
    settings = RunSettings(
        **dict(part(config, Play)) | {"max_turns": horizon(config)},
        model="expert",
        texts=prompts.texts,
        strategy="expert",
        limits=limits,
        budget=config.budget,
        total_budget=config.total_budget,
        tasks=[task["id"] for task in tasks],
        **recorded,
    )
    return demonstrated(make, tasks, plays, out=config.out, settings=settings)


_ENVIRONMENT = ("env", "env_options", "levels", "env_timeout", "checkpointer", "durability", "prune", "workers", "ray")
"""Settings that say something of an environment, where its decision points are kept, or where it is played."""


def _play_agent(config: ExploreConfig, agent: str, limits: Limits) -> RunFolder:
    """`explore_agent` with what the agent's module has."""
    if given := [
        name
        for name in _ENVIRONMENT
        if getattr(config, name) != type(config).model_fields[name].get_default(call_default_factory=True)
    ]:
        raise ConfigError(
            f"{', '.join(given)}: an agent of your own has no environment and is played here; leave these settings out"
        )
    build = attribute(agent, "agent")
    module = agent.partition(":")[0]
    tasks, judge = (attribute(f"{module}:{name}", f"the agent's {name}") for name in ("tasks", "judge"))
    more: Any = {name: getattr(sys.modules[module], name, None) for name in ("world", "inputs", "answer")}
    more["fork"] = bool(getattr(sys.modules[module], "fork", False))
    found = tasks(config.split, config.tasks or TASKS, start=config.start)
    if not found:
        raise ConfigError(f"no task is left of {config.split} after the first {config.start}")
    recorded = config.model_dump(mode="json", include=marked(type(config), Recorded) - {*_ENVIRONMENT})
    return explore_agent(
        build,
        policy_of(config),
        found,
        judge=judge,
        out=config.out,
        strategy=config.strategy,
        limits=limits,
        budget=config.budget,
        total_budget=config.total_budget,
        reflector=None if config.reflector is None else chat_model(config.reflector),
        prompts=texts(config.prompts),
        concurrency=config.concurrency,
        trace_to=config.trace_to,
        progress=True,
        config=recorded | {"agent": agent, "reflector": config.reflector},
        **more,
        **dict(part(config, Play)),
    )
