"""LEAFE without the rewind: the control for what going back to a decision point is worth."""

from collections.abc import Sequence
from dataclasses import replace

from ..settings import Limits
from ..types import Branch
from .leafe import Leafe
from .strategy import Request


class Restart(Leafe):
    """As "leafe" in all, but a branch begins at the task's start, told the experience, and not at the decision point.

    Where ``experience_turns`` is set, they are the branch's first turns: they may be over before the step that the
    experience is about.
    """

    name = "restart"

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """What LEAFE would fork, from its start."""
        request = super().next(branches, limits)
        return request and replace(request, decision_point=0)
