"""What a strategy is: a pure function of the branches that a task has so far, to the branch that comes next.

So a killed run goes on by asking it again, and no queue has to be saved.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from ..settings import Limits
from ..types import Branch


@dataclass(frozen=True)
class Request:
    """A branch to play: from the task's start, or from a decision point of ``parent`` with an experience."""

    parent: str | None = None
    decision_point: int = 0
    experience: str | None = None


class Strategy(ABC):
    """Which branch of a task's tree comes next."""

    name: ClassVar[str]
    """What a run's settings call it; the class's name in small letters unless given."""
    forks: ClassVar[bool] = True
    """Whether branches start at decision points of others, which then have to be kept."""
    anywhere: ClassVar[bool] = False
    """Whether a later branch may start at any decision point that there is, whatever the next one does (`waiting`)."""
    reflects: ClassVar[bool] = True
    """Whether it goes by reflections, which then have to be made."""

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    @abstractmethod
    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """What to play after these finished branches, in order; None if there is nothing."""

    def may_follow(self, branches: Sequence[Branch], request: Request, limits: Limits) -> bool:
        """Whether a branch could be forked from the one that is requested; if not, reflecting on it is of no use."""
        return len(branches) + 1 < limits.max_branches

    def __str__(self) -> str:
        return self.name


def next_request(strategy: Strategy, branches: Sequence[Branch], limits: Limits) -> Request | None:
    """What to play next on a task whose finished branches are these, in order; None when its tree is done."""
    if len(branches) >= limits.max_branches:
        return None
    most = 1 if limits.stop_on_success else limits.max_successes
    if most is not None and sum(branch["end"] == "success" for branch in branches) >= most:
        return None
    if branches and branches[-1]["end"] == "budget":
        return None
    return strategy.next(branches, limits)


def waiting(strategy: Strategy, branches: Sequence[Branch], limits: Limits) -> list[Request]:
    """The requests that a tree's branches leave, in order, up to the first for a new root; none when it is done."""
    found: list[Request] = []
    so_far = list(branches)
    while (request := next_request(strategy, so_far, limits)) is not None:
        found.append(request)
        if request.parent is None:
            break
        # As if it had been played, and nothing had been learned from it.
        parent = next(branch for branch in so_far if branch["id"] == request.parent)
        child = {"id": f"next {len(so_far)}", "parent": request.parent, "depth": parent["depth"] + 1}
        child["decision_point"] = request.decision_point
        so_far.append(cast(Branch, {**parent, **child, "reflection": None, "end": "failure"}))
    return found


def new_root(branches: Sequence[Branch], limits: Limits) -> Request | None:
    """From the task's start again, while the limits allow it."""
    roots = sum(branch["parent"] is None for branch in branches)
    return Request() if limits.max_roots is None or roots < limits.max_roots else None
