"""Rewind and branch (LEAFE, arXiv 2603.16843, stage 1)."""

from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .strategy import Request, Strategy, new_root


class Leafe(Strategy):
    """Fork the oldest request that waits; where none does, roll out from the start again.

    The requests of a tree wait first-in first-out, which makes the search breadth first.
    """

    name = "leafe"

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """The oldest branch whose reflection asks for a rewind that was not forked often enough."""
        for branch in branches:
            reflection = branch["reflection"]
            if reflection is None or reflection["verdict"] != "rewind" or branch["depth"] >= limits.max_depth:
                continue
            forked = sum(child["parent"] == branch["id"] for child in branches)
            if forked < limits.branches_per_reflection:
                return Request(branch["id"], reflection["decision_point"] or 0, reflection["experience"])
        return new_root(branches, limits)

    def may_follow(self, branches: Sequence[Branch], request: Request, limits: Limits) -> bool:
        """Also not from a branch that is as deep as any may be."""
        depths = {branch["id"]: branch["depth"] for branch in branches}
        depth = 0 if request.parent is None else depths[request.parent] + 1
        return super().may_follow(branches, request, limits) and depth < limits.max_depth
