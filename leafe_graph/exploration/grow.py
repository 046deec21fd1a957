"""A worker: plays one task's tree to its end, branch by branch, and hands on each branch that has ended.

It knows no folder and no progress bar, so it runs wherever the agent does. How a branch is played is players.py's.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..agent.context import Context
from ..budget import Budget, Ledger, add_costs, at_most, is_spent
from ..settings import Limits
from ..strategies import Strategy, next_request
from ..tree.branches import played
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
        halted: whether to begin no other branch.
    """

    player: Callable[[], Player]
    context: Context
    strategy: Strategy
    limits: Limits
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
                branch = await player.play(context, task, branches, request)
                branches[branch["id"]] = branch
                yield branch
        finally:
            await player.close()


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
