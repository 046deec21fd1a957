"""What a worker on a cluster is handed: what it makes its tools from, once, and the trees that it is to grow."""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import FunctionType
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.types import RetryPolicy

from ..agent.context import Model
from ..agent.graph import as_model
from ..budget import Budget
from ..env.protocol import TextEnv
from ..errors import ConfigError
from ..prompts import Prompts
from ..settings import Limits, Play
from ..strategies import Strategy
from ..types import Branch, Cost, Durability, Task

BATCH = 64 * 1024, 0.25
"""Bytes and seconds after which a worker sends what it has to say. Beyond 100 KB Ray takes a slower way."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What every worker makes its own tools from. It crosses processes, so it names what it does not hold."""

    model: str | Model | Callable[[], Model]
    reflector: str | Model | Callable[[], Model] | None
    env: Callable[[], TextEnv]
    prompts: Prompts
    play: Play
    retry: RetryPolicy | None
    strategy: Strategy
    limits: Limits
    budget: Budget
    """Of each task."""
    total_budget: Budget
    checkpointer: str | None
    """The address of a database; None: decision points are in the worker's memory."""
    durability: Durability
    interval: float
    """Seconds between commits of branches in play."""
    batch: tuple[int, float] = BATCH

    def packed(self) -> bytes:
        """The kit as bytes.

        Raises:
            ConfigError: a part of it exists in this process alone.
        """
        for role in ("model", "reflector"):
            given = getattr(self, role)
            named = given is None or isinstance(given, str) or (callable(given) and not isinstance(given, Runnable))
            if not named:
                raise ConfigError(
                    f"{role} is {type(given).__name__}, an object of this process, and workers make their own; "
                    'expected a text such as "vllm:NAME@URL", or a function or class of a module that makes one'
                )
        for field in fields(self):
            try:
                _ByName.dumps(getattr(self, field.name))
            except Exception as error:
                raise ConfigError(
                    f"{field.name} cannot be handed to workers ({' '.join(str(error).split())}): expected what a "
                    "module has under a name, such as a function, a class or functools.partial of one, and no lambda, "
                    "no function within another one, and nothing of the script that is run"
                ) from error
        return _ByName.dumps(self)


class _ByName(pickle.Pickler):
    """Pickles functions and classes by their names, but for names that mean something else elsewhere."""

    @classmethod
    def dumps(cls, thing: Any) -> bytes:
        written = io.BytesIO()
        cls(written).dump(thing)
        return written.getvalue()

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__":
            raise pickle.PicklingError(f"{thing.__qualname__} is in the script that is run")
        return NotImplemented


def made(model: Any, role: str) -> Model:
    """The model that a text or a factory names.

    Raises:
        ConfigError: it is no chat model.
    """
    return as_model(model if isinstance(model, str) else model(), role)


@dataclass(frozen=True)
class Job:
    """A tree to grow on."""

    task: Task
    tree: list[Branch]
    """What it has already."""
    spent: Cost
    """What that has cost, failed tries included."""
