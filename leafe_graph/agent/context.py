"""The live objects and settings of a run."""

from dataclasses import dataclass, field
from typing import get_args

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.types import RetryPolicy

from ..budget import Budget, Ledger
from ..env.pool import EnvPool
from ..errors import ConfigError
from ..prompts import Prompts
from ..types import OnDivergence
from .retries import RETRY, TIMEOUT
from .state import BranchInfo

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, also one with tools bound to it."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The live objects and settings of a run; never checkpointed."""

    policy: Model
    reflector: Model
    envs: EnvPool
    prompts: Prompts = field(default_factory=Prompts)
    max_turns: int = 30
    """Horizon: decisions on a path before the episode ends as a failure."""
    reflect_every: int | None = None
    """K: reflect after every K turns of a branch as well as on failure; None is on failure only."""
    reflect: bool = True
    """False: never reflect (independent sampling, evaluation)."""
    max_rewinds: int = 3
    """How often the agent may rewind in place."""
    fork: bool = False
    """True: a reflection that asks for a rewind ends the run, for the explorer to fork (see explore.py)."""
    history: int | None = None
    """How many earlier turns a prompt shows; None is all of them, 0 none."""
    experience_turns: int | None = None
    """For how many turns of a branch its experience stays in the prompt; None is to the branch's end."""
    max_tokens: int | None = None
    """New tokens an action may take, given to models that take ``max_tokens``; None leaves the model's own limit."""
    reflect_max_tokens: int | None = None
    """The same for a reflection."""
    timeout: float | None = TIMEOUT
    """Seconds that one try of a model call may take; None is no limit."""
    retry: RetryPolicy | None = RETRY
    """How model calls that fail are tried again, each try counted; None is never. With RetryPolicy's own ``retry_on``
    that is `leafe_graph.agent.retries.transient` errors."""
    failed_calls: list[Exception] = field(default_factory=list)
    """Model calls that failed, retries included, since the last one that did not."""
    on_divergence: OnDivergence = "end"
    """What a replay that shows something else than was recorded does."""
    budget: Budget = field(default_factory=Budget)
    ledger: Ledger | None = None
    """Shared by concurrent runs; None: the state's own cost is held against ``budget``."""
    branch: BranchInfo | None = None
    """What a root is called; None is "0"."""
    seed: int | None = None
    """Root of all sampling seeds, given to models that take ``seed``; None lets every call be drawn afresh."""

    def __post_init__(self) -> None:
        for name, lowest in (("max_turns", 1), ("reflect_every", 1), ("max_rewinds", 0), ("history", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ConfigError(f"{name}={value}; expected {lowest} or more")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"timeout={self.timeout}; expected seconds > 0, or None for no limit")
        if self.on_divergence not in (known := get_args(OnDivergence)):
            raise ConfigError(f"on_divergence={self.on_divergence!r}; expected one of {known}")
