"""One node's spending, in both books: the ledger, which may refuse, and the cost that the state carries."""

from typing import Any

from ..budget import Ledger, add_costs, no_cost
from ..types import Cost
from .context import Context
from .state import State


class Account:
    """What a node spends: each amount goes into the ledger and into the state's cost alike."""

    def __init__(self, state: State, ctx: Context) -> None:
        self.ledger = ledger_of(state, ctx)
        self._before = state["cost"]
        self._spent = no_cost()

    def charge(self, **amounts: int) -> None:
        """Spend, or spend nothing at all.

        Raises:
            BudgetExceeded: there is no room for it; nothing was spent.
        """
        self.ledger.charge(**amounts)
        self._add(amounts)

    def record(self, **amounts: float) -> None:
        """Count what has been spent already, without asking; a negative amount gives a reservation back."""
        self.ledger.record(**amounts)
        self._add(amounts)

    @property
    def cost(self) -> Cost:
        """What the state's cost has become."""
        return add_costs(self._before, self._spent)

    def _add(self, amounts: dict[str, Any]) -> None:
        for field, amount in amounts.items():
            self._spent[field] += amount  # type: ignore[literal-required]


def ledger_of(state: State, ctx: Context) -> Ledger:
    """The shared ledger, else one that holds the state's own cost against the budget."""
    return ctx.ledger or Ledger(ctx.budget, spent=state["cost"])
