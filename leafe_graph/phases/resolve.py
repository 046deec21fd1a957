"""Names to objects: environment, tasks, model, prompts and horizon of a phase, looked up once, where it is entered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel

from ..agent.context import Context
from ..agent.retries import RETRY, retries
from ..env.pool import EnvPool
from ..env.protocol import TextEnv
from ..env.subprocess_env import SubprocessEnv
from ..envs.catalog import environment, find
from ..errors import ConfigError
from ..exploration.playbook import with_playbook
from ..importing import attribute
from ..models.load import chat_model
from ..models.spec import ModelSpec
from ..parsing import read_text
from ..prompts import Prompts
from ..settings import Play, marked, part
from ..types import Task
from .config import Choosing, ExploreConfig, PlayConfig, Recorded


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the names in a phase's settings stand for."""

    policy: BaseChatModel
    make: Callable[[], TextEnv]
    tasks: list[Task]
    prompts: Prompts | None
    horizon: int
    """Longest path, in decisions."""
    recorded: dict[str, Any]


def resolve(config: PlayConfig) -> Resolved:
    """Look up everything that exploring and judging name.

    Raises:
        ConfigError: nothing has that name, or it is of another kind.
        MissingDependency: what it needs is not installed.
    """
    make, tasks = world(config)
    if config.playbook is not None:
        tasks = [with_playbook(task, read_text(config.playbook)) for task in tasks]
    return Resolved(
        policy=policy_of(config),
        make=make,
        tasks=tasks,
        prompts=texts(config.prompts),
        horizon=horizon(config),
        recorded=config.model_dump(mode="json", include=marked(type(config), Recorded)),
    )


def asking(config: ExploreConfig) -> Context:
    """What models are asked with outside of any branch: the policy and the reflector of exploring, its texts and ways.

    Its environments are none of the run's tasks.
    """
    policy = policy_of(config)
    return Context(
        policy=policy,
        reflector=policy if config.reflector is None else chat_model(config.reflector),
        envs=EnvPool(world(config.model_copy(update={"tasks": 1}))[0]),
        prompts=texts(config.prompts) or Prompts(),
        play=part(config, Play).model_copy(update={"max_turns": horizon(config)}),
        retry=retries(RETRY, config.tries),
    )


def policy_of(config: PlayConfig) -> BaseChatModel:
    """The policy, with what it samples by."""
    return chat_model(config.model, **sampling(config))


def sampling(config: PlayConfig) -> dict[str, Any]:
    """What the policy samples by."""
    return {
        "adapter": None if config.adapter is None else str(config.adapter),
        "temperature": config.temperature,
        "top_p": config.top_p,
        "logprobs": config.logprobs or None,
        "batch_invariant": _invariant(config, config.model),
    }


def reflecting(config: PlayConfig, spec: str) -> dict[str, Any]:
    """What a reflector of its own answers by."""
    return {"batch_invariant": _invariant(config, spec) if ModelSpec.parse(spec).kind == "local" else None}


def _invariant(config: PlayConfig, spec: str) -> bool | None:
    if config.batch_invariant and ModelSpec.parse(spec).kind != "local":
        raise ConfigError(
            f"batch_invariant and the model {spec!r}: only a local: model can be told so; leave it out, and start the "
            "server that way (vLLM: VLLM_BATCH_INVARIANT=1)"
        )
    return config.batch_invariant or None


def world(config: PlayConfig) -> tuple[Callable[[], TextEnv], list[Task]]:
    """What makes the environment, in a process of its own where that is asked for, and the tasks."""
    make, tasks = chosen(config)
    if config.env_timeout is not None:
        make = partial(SubprocessEnv, make, timeout=config.env_timeout)
    return make, tasks


def horizon(config: PlayConfig) -> int:
    """The longest path, in decisions."""
    return config.max_turns or find(config.env).horizon


def chosen(config: Choosing) -> tuple[Callable[[], TextEnv], list[Task]]:
    """What makes the environment, and the tasks."""
    return environment(
        config.env,
        split=config.split,
        n=config.tasks,
        start=config.start,
        options=config.env_options,
        levels=config.levels,
    )


def texts(path: str | None) -> Prompts | None:
    """The prompts that MODULE:ATTRIBUTE names."""
    return None if path is None else cast(Prompts, attribute(path, "prompts"))
