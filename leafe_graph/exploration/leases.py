"""The total budget of a run whose trees grow in several processes: parts of it are leased to them.

A part is large at first and smaller as less is left; what one holds and does not need is called back before another one
is refused. So no limit is passed, and nothing stays unspent that a run in one process would have spent.
"""

import itertools
import threading
from collections.abc import Callable, Hashable, Mapping

from ..budget import Budget, Ledger, lock
from ..types import Cost

Amounts = dict[str, float]


def limited(budget: Budget) -> list[str]:
    """The fields that have a limit."""
    return [field for field in Budget.model_fields if getattr(budget, field) is not None]


class Leased(Ledger):
    """A worker's account of the run's total budget. What it lacks it asks for, and waits.

    Args:
        budget: the run's.
        ask: sends off how much more is needed of which fields, under a number that `grant` tells again.
    """

    def __init__(self, budget: Budget, ask: Callable[[int, Amounts], None]) -> None:
        super().__init__(budget)
        self._ask = ask
        self._held: Amounts = dict.fromkeys(limited(budget), 0)
        self._numbers = itertools.count()
        self._granted: dict[int, Amounts] = {}
        self._told = threading.Condition(lock)

    def refuses(self, **amounts: float) -> str | None:
        """See `Ledger`; waits for an answer where there is not enough, and lets others spend meanwhile."""
        with self._told:
            while short := self._short(amounts):
                number = next(self._numbers)
                self._ask(number, short)
                while number not in self._granted:
                    self._told.wait()
                granted = self._granted.pop(number)
                if refused := [field for field in short if field not in granted]:
                    return refused[0]
            return None

    def grant(self, number: int, amounts: Amounts) -> None:
        """The answer to what was asked under this number: what is not in it is refused."""
        with self._told:
            for field, amount in amounts.items():
                self._held[field] += amount
            self._granted[number] = amounts
            self._told.notify_all()

    def give_back(self) -> Amounts:
        """What is held and not spent; from now on it is not held."""
        with self._told:
            free: Amounts = {
                field: held - spent
                for field, held in self._held.items()
                if held > (spent := self.spent[field])  # type: ignore[literal-required]
            }
            for field, amount in free.items():
                self._held[field] -= amount
            return free

    def _short(self, amounts: Mapping[str, float]) -> Amounts:
        return {
            field: lacks
            for field, amount in amounts.items()
            if amount > 0 and field in self._held and (lacks := self.spent[field] + amount - self._held[field]) > 0  # type: ignore[literal-required]
        }


class Purse:
    """Who holds how much of a run's total budget.

    Args:
        total: what the run's logged branches have cost.
        parts: how many there may be that hold some.
    """

    def __init__(self, total: Ledger, parts: int) -> None:
        self._total, self._parts = total, parts
        self._fields = limited(total.budget)
        self._held: dict[Hashable, Amounts] = {}

    def left(self, field: str, holder: Hashable = None) -> float:
        """What is neither spent nor held; for a holder that has spent more than it held, also what it lacks for that.

        What one has spent beyond its part, such as a longer answer than was reserved for, is not there for others.
        """
        limit: int = getattr(self._total.budget, field)
        held = {name: amounts[field] for name, amounts in self._held.items()}
        spent: float = self._total.spent[field] + min(0, held.get(holder, 0))  # type: ignore[literal-required]
        return limit - spent - sum(max(0, each) for each in held.values())

    def lease(self, holder: Hashable, needed: Amounts) -> Amounts:
        """What the holder gets of what it needs, of each field enough or nothing."""
        granted: Amounts = {}
        for field, least in needed.items():
            if (left := self.left(field, holder)) >= least:
                granted[field] = max(least, left // (2 * self._parts))
        self._add(holder, granted, 1)
        return granted

    def holders(self, fields: list[str]) -> list[Hashable]:
        """Who may have some of these that is not spent."""
        return [holder for holder, held in self._held.items() if any(held[field] > 0 for field in fields)]

    def given_back(self, holder: Hashable, amounts: Amounts) -> None:
        """A holder did not need it."""
        self._add(holder, amounts, -1)

    def logged(self, holder: Hashable, cost: Cost) -> None:
        """A branch of the holder's has ended: what it held is spent."""
        self._add(holder, {field: cost[field] for field in self._fields}, -1)  # type: ignore[literal-required]

    def lost(self, holder: Hashable) -> None:
        """The holder is dead: what it held and no branch has told is there again."""
        self._held.pop(holder, None)

    def _add(self, holder: Hashable, amounts: Amounts, sign: int) -> None:
        held = self._held.setdefault(holder, dict.fromkeys(self._fields, 0))
        for field, amount in amounts.items():
            held[field] += sign * amount
