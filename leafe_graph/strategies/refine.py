"""Iterative refinement (cf. Reflexion, Shinn et al. 2023): start anew with what was learned, without a rewind."""

from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .strategy import Request, Strategy, new_root


class Refine(Strategy):
    """From the start again with the last attempt's reflection in the prompt."""

    name = "refine"

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """The last branch's start, told its experience; a new root where it has none."""
        last = branches[-1] if branches else None
        if last is not None and last["reflection"] is not None and last["reflection"]["experience"] and last["turns"]:
            return Request(last["id"], 0, last["reflection"]["experience"])
        return new_root(branches, limits)
