"""The live objects and settings of a run."""

import logging
import threading
from dataclasses import dataclass, field

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.types import RetryPolicy

from ..budget import Budget, Ledger
from ..env.pool import EnvPool
from ..prompts import Prompts
from ..settings import Play
from .retries import RETRY
from .state import BranchInfo

log = logging.getLogger(__name__)

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, also one with tools bound to it."""


class FirstTraceback:
    """Shows the first traceback of a run: one world or model that raises does so on every branch."""

    def __init__(self) -> None:
        self._shown = threading.Lock()

    def show(self, error: BaseException, whose: str) -> None:
        """Log the error with its traceback, unless one was."""
        if self._shown.acquire(blocking=False):
            log.warning("the %s raised; further tracebacks are not shown:", whose, exc_info=error)


class Outage:
    """Model calls that fail in a row, over all tasks of a run: whether the model is down.

    Args:
        limit: calls that fail in a row, retries included, before it is; None: never.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.error: Exception | None = None
        """The last call's error, once the model was found to be down; it stays."""
        self._in_a_row: list[Exception] = []

    def failed(self, error: Exception) -> None:
        """A call has failed."""
        self._in_a_row.append(error)

    def answered(self) -> None:
        """A call has not."""
        self._in_a_row.clear()

    def look(self) -> None:
        """See whether the model is down now: a few that fail beside others that do not are no outage."""
        if self.limit is not None and len(self._in_a_row) >= self.limit and self.error is None:
            self.error = self._in_a_row[-1]


@dataclass(frozen=True, kw_only=True)
class Context:
    """The live objects and settings of a run; never checkpointed."""

    policy: Model
    reflector: Model
    envs: EnvPool
    prompts: Prompts = field(default_factory=Prompts)
    play: Play = field(default_factory=Play)
    retry: RetryPolicy | None = RETRY
    """How model calls that fail are tried again, each try counted; None is never. With RetryPolicy's own ``retry_on``
    that is `leafe_graph.agent.retries.transient` errors."""
    reflect: bool = True
    """False: never reflect (independent sampling, evaluation)."""
    max_rewinds: int = 3
    """How often the agent may rewind in place."""
    fork: bool = False
    """True: a reflection that asks for a rewind ends the run, for the explorer to fork."""
    outage: Outage = field(default_factory=Outage)
    """Told of every call that fails or does not."""
    traceback: FirstTraceback = field(default_factory=FirstTraceback)
    """Told of everything that a world, or a model without a server, raises."""
    budget: Budget = field(default_factory=Budget)
    ledger: Ledger | None = None
    """Shared by concurrent runs; None: the state's own cost is held against ``budget``."""
    branch: BranchInfo | None = None
    """What a root is called; None is "0"."""
