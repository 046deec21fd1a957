"""A worker: plays one task's tree to its end, branch by branch, and hands on each branch that has ended.

It knows no folder and no progress bar, so it runs wherever the agent does. How a branch is played is players.py's.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..agent.context import Context
from ..budget import Budget, Ledger, add_costs, at_most, is_spent
from ..checkpoint.points import DecisionPoints
from ..clock import now, since
from ..settings import Limits
from ..strategies import Strategy, next_request
from ..tree.branches import played
from ..tree.log import Entry
from ..tree.run_folder import RunFolder
from ..types import Branch, Cost, Task
from .players import Player


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What all trees of a run are grown with.

    Args:
        player: makes what plays the branches of one tree.
        context: its live objects and settings.
        strategy: which branch comes next.
        limits: bounds of a tree.
        points: where decision points are kept.
        halted: whether to begin no other branch.
    """

    player: Callable[[], Player]
    context: Context
    strategy: Strategy
    limits: Limits
    points: DecisionPoints
    halted: Callable[[], bool] = lambda: False

    async def grow(self, task: Task, tree: Mapping[str, Branch], ledger: Ledger) -> AsyncIterator[Branch]:
        """Play what a task's tree still wants, and give each branch when it has ended.

        Args:
            task: the task.
            tree: the branches that it has already, by id.
            ledger: what it may spend.
        """
        branches, player = dict(tree), self.player()
        try:
            while not (self.halted() or is_spent(ledger)):
                so_far = list(branches.values())
                request = next_request(self.strategy, so_far, self.limits)
                if request is None:
                    break
                # Where no branch can follow, no reflection is paid for.
                reflect = self.strategy.reflects and self.strategy.may_follow(so_far, request, self.limits)
                context = replace(self.context, ledger=ledger, reflect=reflect)
                started = now()
                branch = await player.play(context, task, branches, request)
                branch["time"] = since(started)
                branches[branch["id"]] = branch
                await self.points.flush(str(branch["thread_id"]))  # what is logged can be forked
                yield branch
        finally:
            await player.close()


class Source(Protocol):
    """Where a run's branches come from."""

    @property
    def at_once(self) -> int:
        """Tasks that may be begun at once."""
        ...

    @property
    def calls(self) -> Mapping[str, int]:
        """Model calls of tasks in play, where their ledgers know them late."""
        ...

    def grow(self, task: Task, ledger: Ledger) -> AsyncIterator[Branch | Entry]:
        """Have played what a task's tree still wants; each branch when it has ended.

        Args:
            task: the task.
            ledger: its account, which is charged.
        """
        ...


@dataclass(frozen=True)
class Here:
    """They are played in this process."""

    worker: Worker
    run: RunFolder
    """The log."""
    at_once: int
    calls: Mapping[str, int] = field(default_factory=dict)

    async def grow(self, task: Task, ledger: Ledger) -> AsyncIterator[Branch]:
        """See `Source`."""
        tree = played(self.run.trees.get(task["id"], {}))
        async for branch in self.worker.grow(task, tree, ledger):
            yield branch


def wants_play(
    tasks: Iterable[str],
    trees: Mapping[str, Mapping[str, Branch]],
    costs: Mapping[str, Cost],
    *,
    strategy: Strategy,
    limits: Limits,
    budget: Budget,
    total_budget: Budget,
) -> bool:
    """Whether any task's tree still wants a branch, so that a model will be asked."""
    total = Ledger(total_budget, spent=add_costs(*costs.values()))
    room = total.refuses(**at_most(budget, total_budget)) is None
    return any(
        (room or task in costs)
        and not is_spent(Ledger(budget, spent=costs.get(task), parent=total))
        and next_request(strategy, [*played(trees.get(task, {})).values()], limits) is not None
        for task in tasks
    )
