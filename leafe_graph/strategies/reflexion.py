"""Reflexion (Shinn et al. 2023): attempt after attempt from the start, told the last three reflections."""

from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .strategy import Request, Strategy, new_root

MEMORY = 3
"""Reflections that an attempt is told: the published number."""


class Reflexion(Strategy):
    """From the start again, told the last three reflections, a line each, the oldest first.

    As in the authors' code there is a reflection after each failure, and what it says is kept when a later one says
    nothing. An attempt is not ended for repeating itself, as it is there.
    """

    name = "reflexion"

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """The last branch's start, told what is in memory; a new root where nothing is."""
        memory = remembered(branches)
        last = next((branch for branch in reversed(branches) if branch["turns"]), None)
        if last is None or memory is None:
            return new_root(branches, limits)
        return Request(last["id"], 0, memory)


def remembered(branches: Sequence[Branch]) -> str | None:
    """The last reflections that said something, a line each, the oldest first; None where there is none."""
    said = [branch["reflection"]["experience"] for branch in branches if branch["reflection"] is not None]
    return "\n".join([" ".join(text.split()) for text in said if text][-MEMORY:]) or None
