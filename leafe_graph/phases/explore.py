"""Exploring, as its settings say."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..agent.retries import RETRY, TIMEOUT
from ..budget import Budget
from ..env.protocol import TextEnv
from ..env.subprocess_env import SubprocessEnv
from ..exploration.explore import explore
from ..prompts import Prompts
from ..settings import Limits
from ..tree.run_folder import RunFolder
from ..types import Task

if TYPE_CHECKING:
    from .config import Choosing, Explore, Playing
from ..envs.catalog import environment, find
from ..importing import attribute
from ..models.load import chat_model
from .console import _show, console


def run_explore(config: "Explore") -> RunFolder:
    """``leafe explore``."""
    reflector = config.reflector
    run = _play(
        config,
        strategy=config.strategy,
        limits=Limits(**{field.name: getattr(config, field.name) for field in fields(Limits)}),
        reflector=None if reflector is None else chat_model(reflector),
        reflect_every=config.reflect_every,
        experience_turns=config.experience_turns,
        reflect_max_tokens=config.reflect_max_tokens,
        on_divergence=config.on_divergence,
        prune=config.prune,
        extra={"reflector": reflector},
    )
    ends = Counter(branch["end"] for branch in run.branches)
    solved = {branch["task"]["id"] for branch in run.branches if branch["end"] == "success"}
    _show(
        f"{config.strategy}: {run.folder}",
        [
            ("tasks", len(run.config["settings"]["tasks"])),
            ("solved", len(solved)),
            ("branches", len(run.branches)),
            *((f"  ended by {end}", count) for end, count in ends.most_common()),
            *run.cost.items(),
        ],
    )
    errors = Counter(branch["error"] for branch in run.branches if branch["error"])
    for error, count in errors.most_common(3):
        console.print(f"{count} times: {error}", markup=False)
    return run


def _chosen(config: "Choosing") -> tuple[Callable[[], TextEnv], list[Task]]:
    """`environment` as the flags say."""
    return environment(
        config.env,
        split=config.split,
        n=config.tasks,
        start=config.start,
        options=config.env_options,
        levels=config.levels,
    )


def _prompts(path: str | None) -> Prompts | None:
    return None if path is None else cast(Prompts, attribute(path, "prompts"))


def _play(config: "Playing", *, extra: dict[str, Any] | None = None, **how: Any) -> RunFolder:
    """`explore` with the settings that exploring and judging share; those it cannot know are saved too."""
    make, tasks = _chosen(config)
    if config.env_timeout is not None:
        make = partial(SubprocessEnv, make, timeout=config.env_timeout)
    adapter = None if config.adapter is None else str(config.adapter)
    limits = [field.name for field in fields(Budget)]
    names = {"model", "adapter", "temperature", "top_p", "env", "env_options", "split", "start", "levels", "prompts"}
    return explore(
        chat_model(config.model, adapter=adapter, temperature=config.temperature, top_p=config.top_p),
        make,
        tasks,
        out=config.out,
        budget=Budget(**{name: getattr(config, name) for name in limits}),
        total_budget=Budget(**{name: getattr(config, f"total_{name}") for name in limits}),
        max_turns=config.max_turns or find(config.env).horizon,
        history=config.history,
        prompts=_prompts(config.prompts),
        max_tokens=config.max_tokens,
        timeout=config.timeout or TIMEOUT,
        retry=RETRY._replace(max_attempts=config.tries or RETRY.max_attempts),
        concurrency=config.concurrency,
        checkpointer=config.checkpointer,
        seed=config.seed,
        progress=True,
        config=config.model_dump(mode="json", include=names) | (extra or {}),
        **how,
    )
