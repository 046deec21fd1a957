"""Which branch comes next: three strategies behind one interface.

A strategy is a pure function of the branches that a task has so far. So a killed run goes on by asking it again, and no
queue has to be saved. The requests of a tree wait first-in first-out, which makes the search breadth first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from ..settings import Limits
from ..types import Branch

StrategyName = Literal["leafe", "independent", "refine"]


@dataclass(frozen=True)
class Request:
    """A branch to play: from the task's start, or from a decision point of ``parent`` with an experience."""

    parent: str | None = None
    decision_point: int = 0
    experience: str | None = None


def leafe(branches: Sequence[Branch], limits: Limits) -> Request | None:
    """Fork the oldest request that waits; where none does, roll out from the start again."""
    for branch in branches:
        reflection = branch["reflection"]
        if reflection is None or reflection["verdict"] != "rewind" or branch["depth"] >= limits.max_depth:
            continue
        forked = sum(child["parent"] == branch["id"] for child in branches)
        if forked < limits.branches_per_reflection:
            return Request(branch["id"], reflection["decision_point"] or 0, reflection["experience"])
    return _new_root(branches, limits)


def independent(branches: Sequence[Branch], limits: Limits) -> Request | None:
    """Always from the start, knowing nothing of earlier attempts."""
    return _new_root(branches, limits)


def refine(branches: Sequence[Branch], limits: Limits) -> Request | None:
    """From the start again with the last attempt's reflection in the prompt; no rewind (cf. Reflexion)."""
    last = branches[-1] if branches else None
    if last is not None and last["reflection"] is not None and last["reflection"]["experience"] and last["turns"]:
        return Request(last["id"], 0, last["reflection"]["experience"])
    return _new_root(branches, limits)


STRATEGIES: dict[StrategyName, Callable[[Sequence[Branch], Limits], Request | None]] = {
    "leafe": leafe,
    "independent": independent,
    "refine": refine,
}


def next_request(strategy: StrategyName, branches: Sequence[Branch], limits: Limits) -> Request | None:
    """What to play next on a task whose finished branches are these, in order; None when its tree is done."""
    if len(branches) >= limits.max_branches:
        return None
    if limits.stop_on_success and any(branch["end"] == "success" for branch in branches):
        return None
    if branches and branches[-1]["end"] == "budget":
        return None
    return STRATEGIES[strategy](branches, limits)


def waiting(strategy: StrategyName, branches: Sequence[Branch], limits: Limits) -> list[Request]:
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
        so_far.append(cast(Branch, {**parent, **child, "reflection": None, "end": "failure"}))
    return found


def may_follow(strategy: StrategyName, branches: Sequence[Branch], request: Request, limits: Limits) -> bool:
    """Whether a branch could be forked from the one that is requested; if not, reflecting on it is of no use."""
    depths = {branch["id"]: branch["depth"] for branch in branches}
    depth = 0 if request.parent is None else depths[request.parent] + 1
    return len(branches) + 1 < limits.max_branches and (strategy != "leafe" or depth < limits.max_depth)


def _new_root(branches: Sequence[Branch], limits: Limits) -> Request | None:
    roots = sum(branch["parent"] is None for branch in branches)
    return Request() if limits.max_roots is None or roots < limits.max_roots else None
