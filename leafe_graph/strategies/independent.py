"""Fresh samples: what evaluation plays, and the control of every comparison."""

from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .strategy import Request, Strategy, new_root


class Independent(Strategy):
    """Always from the start, knowing nothing of earlier attempts."""

    name = "independent"
    forks = reflects = False

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """Another root."""
        return new_root(branches, limits)
