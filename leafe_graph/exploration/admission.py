"""Which tasks a run's total budget has room for: the same ones, however many are played at once and after any kill.

Where each task and the whole run are limited alike, a task is begun only if all that it may cost still fits beside all
that those being played may cost. So the total is never met in the middle of a task, and the tasks that are played are
the first of the list: the next one would fit beside tasks that are being played only if it fits when they are done.
"""

import asyncio
from collections.abc import Mapping

from ..budget import Budget, Ledger, at_most
from ..types import Cost


class Admission:
    """The way in to a run, in the order of the tasks.

    Args:
        budget: of each task.
        total: what the run has spent of its own.
        costs: of the tasks that were begun before, by id: they keep their place.
    """

    def __init__(self, budget: Budget, total: Ledger, costs: Mapping[str, Cost]) -> None:
        self._total, self._begun = total, frozenset(costs)
        self._most = at_most(budget, total.budget)
        self.playing: dict[str, Ledger] = {}
        """Accounts of the tasks that are in."""
        self._turn = asyncio.Lock()  # first come, first served
        self._left = asyncio.Event()
        self.refused: list[str] = []
        """Tasks that there was no room for."""

    async def enter(self, task: str, ledger: Ledger) -> bool:
        """Whether the task may be played with this account; waits for others to end if that may make room for it."""
        async with self._turn:
            while task not in self._begun and not self._fits():
                if not self.playing:
                    self.refused.append(task)
                    return False
                self._left.clear()
                await self._left.wait()
            self.playing[task] = ledger
            return True

    def leave(self, task: str) -> None:
        """The task has ended, or was stopped."""
        del self.playing[task]
        self._left.set()

    def _fits(self) -> bool:
        return (
            self._total.refuses(
                **{
                    field: most + sum(max(0, most - ledger.spent[field]) for ledger in self.playing.values())  # type: ignore[literal-required]
                    for field, most in self._most.items()
                }
            )
            is None
        )
