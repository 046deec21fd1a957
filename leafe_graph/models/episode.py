"""One attempt of an agent that exists already, as its model's door sees it: what is recorded, told, and given back."""

import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ..budget import Ledger
from ..errors import LeafeError, ReplayDivergence
from ..types import ModelMessage, OnDivergence, Request
from .requests import same_asked

KEY = "leafe_episode"
"""Where a run's ``configurable`` holds the episode."""

PATIENCE = 100
"""How often an agent is told that its episode has been stopped, before it is ended."""


class Halted(BaseException):
    """Ends an agent that swallows what stops its episode and asks again, as loops around a model do.

    Not an `Exception`: those it has swallowed.
    """


@dataclass(frozen=True, eq=False)
class Decision:
    """One call at the door, answered."""

    node: str
    """Whose it is: the path of the agent's node, as ``researcher/model``."""
    request: Request
    """What the provider got, without the experience."""
    settings: dict[str, Any]
    """``tool_choice`` and ``response_format``, where the call had them."""
    message: ModelMessage
    """What was answered, with all tool calls."""
    answer: AIMessage
    """The same as the agent got it."""
    began: int
    ended: int
    """Places in the order of all beginnings and ends of an episode's calls, from 0."""
    told: bool = False
    """Whether its prompt held the experience."""
    anew: bool = False
    """Whether it is the one that was to be taken anew."""
    given_back: bool = False
    """Whether the answer is a recorded one."""
    config: dict[str, Any] = field(default_factory=dict)
    """Thread, namespace and id of the checkpoint at which it was decided, where there is one."""
    step: str | None = None
    """Id of the checkpoint of the outermost graph's step that it was made in."""

    @property
    def key(self) -> str:
        """What it has in common with a call that asks the same."""
        return same_asked(self.node, self.request)


class Episode:
    """One attempt: given to a run as ``config={"configurable": {"leafe_episode": Episode(…)}}``.

    Agents catch exceptions, also those that stop an episode: so the first of them stays in ``stop``, is raised again by
    every later call, and whoever drives the agent looks there. One that asks on and on ends by `Halted`.

    Args:
        experience: what the last message of a prompt is followed by, at decision ``at`` and at all later ones of that
            agent; without ``at``, at all of all agents.
        history: another episode's decisions. The answers of those that ended before decision ``at`` began are given
            back to calls that ask the same.
        at: 0-based place in ``history`` of the decision that is to be taken anew.
        on_divergence: what happens where something else is asked before that decision: "accept" notes it and goes on.
        keep: whether ``decisions`` are kept; without it, and without ``at``, requests are not turned into records.
        ledger: charged a model call and a step of the environment for each decision, and a replayed step for each
            answer that is given back.
    """

    def __init__(
        self,
        *,
        experience: str | None = None,
        history: Sequence[Decision] = (),
        at: int | None = None,
        on_divergence: OnDivergence = "end",
        ledger: Ledger | None = None,
        keep: bool = True,
    ) -> None:
        self.keep, self.replays = keep or at is not None, at is not None
        self.experience, self.ledger, self.on_divergence = experience, ledger, on_divergence
        self.decisions: list[Decision] = []
        """All that were answered, in the order in which they ended."""
        self.stop: LeafeError | None = None
        """What stopped it."""
        self.divergence: ReplayDivergence | None = None
        """The first call that asked something else than was recorded, where that was accepted."""
        self.failed: Exception | None = None
        """What the last call of the model raised; None where it was answered."""
        self.failures: list[Exception] = []
        """What calls of the model raised."""
        self._refused = 0
        self._lock = threading.RLock()
        self._order = itertools.count()
        self._known: dict[str, deque[Decision]] = defaultdict(deque)
        self._anew: set[str] = set()
        self._fresh = False  # whether one of those was answered anew: what is asked after it may be new, too
        self._tau: str | None = None
        self._told: str | None = None  # the namespace of the agent that is told the experience
        if at is not None:
            self._tau = history[at].key
            for decision in history:
                if decision.ended < history[at].began:
                    self._known[decision.key].append(decision)
                else:  # it was being made meanwhile, or came later
                    self._anew.add(decision.key)

    @property
    def arrived(self) -> bool:
        """Whether the decision that is to be taken anew was asked for, or none is."""
        return self._tau is None

    @property
    def unasked(self) -> str | None:
        """What was recorded and has not been asked again: a decision before the one to be taken anew, or that one."""
        return next((known[0].key for known in self._known.values() if known), self._tau)

    def known(self, key: str) -> Decision | None:
        """The recorded decision whose answer is given back to this call, once.

        Raises:
            ReplayDivergence: nothing of the kind was asked before; noted as ``stop``.
        """
        with self._lock:
            if self._known[key]:
                return self._known[key].popleft()
            if self._tau in (None, key) or self._fresh or self.divergence is not None:
                return None
            if key in self._anew:
                self._fresh = True
                return None
            left = [known for known in self._known.values() if known]
            error = ReplayDivergence(
                f"an agent asked something else than was recorded: {key[-200:]!r}; clocks, random tools and worlds "
                "that are not restored do that",
                turn=len(self.decisions),
                expected=left[0][0].key if left else self._tau,
                actual=key,
            )
            if self.on_divergence != "accept":
                raise error
            self.divergence = error
            return None

    def arrives(self, key: str, namespace: str) -> bool:
        """Whether this call is the one that is to be taken anew; ``namespace`` is that of the agent's run."""
        with self._lock:
            if self._tau != key:
                return False
            self._tau, self._told = None, namespace
            return True

    def tells(self, namespace: str) -> bool:
        """Whether a call of that agent's run is told the experience."""
        with self._lock:
            if self.experience is None or self._tau is not None:
                return False
            return self._told in (None, namespace)

    def tick(self) -> int:
        """The next place in the order of events."""
        with self._lock:
            return next(self._order)

    def add(self, decision: Decision) -> None:
        """Note a decision that has been answered."""
        with self._lock:
            self.decisions.append(decision)

    def stopped(self, error: LeafeError) -> None:
        """Note what stops the episode; the first stays."""
        with self._lock:
            self.stop = self.stop or error

    def replayed(self) -> None:
        """A decision is given back, or lies before where the agent begins.

        Raises:
            BudgetExceeded: the ledger does not allow it; noted as ``stop``.
        """
        if self.ledger is not None:
            try:
                self.ledger.charge(replayed_steps=1)
            except LeafeError as error:
                self.stopped(error)
                raise

    def refuse(self) -> None:
        """Raise what has stopped the episode, if something has."""
        if self.stop is not None:
            with self._lock:
                self._refused += 1
            raise self.stop if self._refused < PATIENCE else Halted(str(self.stop))


def with_experience(messages: Sequence[BaseMessage], experience: str) -> list[BaseMessage]:
    """The same prompt whose last message ends with the experience.

    That is a person's or a tool's; behind any other the experience is a person's message.
    """
    last = messages[-1] if messages else None
    if not isinstance(last, HumanMessage | ToolMessage):
        return [*messages, HumanMessage(experience)]
    content: Any = last.content
    if isinstance(content, str):
        content = f"{content}\n\n{experience}" if content else experience
    else:
        content = [*content, {"type": "text", "text": experience}]
    return [*messages[:-1], last.model_copy(update={"content": content})]


def node_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """The path of the node that a call is made in, and the namespace of its agent's run.

    An agent's name is put before its node where the path does not say it: agents that run inside a tool share the
    tool's node.
    """
    parts = [part for part in str(config.get("configurable", {}).get("checkpoint_ns") or "").split("|") if part]
    path = [name for part in parts if not (name := part.partition(":")[0]).isdigit()]
    agent = config.get("metadata", {}).get("lc_agent_name")
    if agent and agent not in path[-2:]:
        path.insert(-1 if path else 0, str(agent))
    return "/".join(path), "|".join(parts[:-1])
