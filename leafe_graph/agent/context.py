"""The live objects and settings of a run, and which of the settings a run may bring of its own."""

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.types import RetryPolicy
from pydantic import ConfigDict, Field

from ..budget import Budget, Ledger
from ..env.seat import Envs
from ..prompts import Prompts
from ..settings import Play
from .retries import RETRY
from .state import BranchInfo

log = logging.getLogger(__name__)

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, also one with tools bound to it."""


class FirstTraceback:
    """Shows the first traceback of a run, or of an agent in all its runs: what raises once does so on every branch."""

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


def _without_defaults(schema: dict[str, Any]) -> None:
    """What a client leaves out is as the agent was made, and not as these settings are elsewhere."""
    for each in schema["properties"].values():
        each.pop("default", None)


class PerRun(Play):
    """What one run of an agent may have otherwise than the agent: ``agent.invoke(…, context={"max_turns": 5})``.

    All of it is JSON, so a client of a server can give it; what is not given is as the agent was made.
    """

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    max_rewinds: int = Field(default=3, ge=0)
    """How often the agent may go back; 0 never reflects."""
    budget: Budget | None = None
    """Limits of one run of the agent."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The live objects and settings of a run; never checkpointed."""

    policy: Model
    reflector: Model
    envs: Envs
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

    def told(self, run: Play) -> "Context":
        """The same with what a run brings of its own: the settings that were given, and not those left out."""
        given = {name: getattr(run, name) for name in run.model_fields_set}
        play = self.play.model_copy(update={name: given[name] for name in given.keys() & Play.model_fields.keys()})
        retry, tries = self.retry, given.get("tries")
        return replace(
            self,
            play=play,
            retry=retry if tries is None or retry is None else retry._replace(max_attempts=tries),
            max_rewinds=given.get("max_rewinds", self.max_rewinds),
            budget=given.get("budget", self.budget) or Budget(),
        )
