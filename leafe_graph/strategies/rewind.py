"""LEAFE without the experience: the control for what being told is worth."""

from collections.abc import Sequence
from dataclasses import replace

from ..settings import Limits
from ..types import Branch
from .leafe import Leafe
from .strategy import Request


class Rewind(Leafe):
    """As "leafe" in all, but a branch is told no experience: it goes back to the decision point and tries again."""

    name = "rewind"

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """What LEAFE would fork, told nothing."""
        request = super().next(branches, limits)
        return request and replace(request, experience=None)
