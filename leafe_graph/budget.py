"""Limits and what was spent: one kind of budget for every method that is compared.

A charge is made *before* the spending and refused whole if it would go over any limit, here or in a parent ledger, so
no limit is exceeded by even one step at any concurrency. What cannot be known beforehand (the tokens of an answer) is
reserved at its upper bound and given back when known.
"""

import threading
from collections.abc import Mapping

from pydantic import Field

from .errors import BudgetExceeded
from .settings import Settings
from .types import Cost

lock = threading.RLock()  # one for all ledgers: a charge touches a ledger and its parents together


class Budget(Settings):
    """Upper limits; None is no limit."""

    env_steps: int | None = Field(default=None, ge=0)
    """Steps of the environment, replayed ones not counted."""
    replayed_steps: int | None = Field(default=None, ge=0)
    """Steps taken again to bring an environment without snapshots back to a decision point."""
    model_calls: int | None = Field(default=None, ge=0)
    """Calls of the policy and of the reflector."""
    prompt_tokens: int | None = Field(default=None, ge=0)
    """Tokens of prompts."""
    completion_tokens: int | None = Field(default=None, ge=0)
    """New tokens."""
    reflections: int | None = Field(default=None, ge=0)
    """Reflections."""


def no_cost() -> Cost:
    """A cost of nothing."""
    return Cost(
        env_steps=0,
        replayed_steps=0,
        model_calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        reflections=0,
        seconds=0.0,
    )


def add_costs(*costs: Cost) -> Cost:
    """Field-wise sum."""
    total = no_cost()
    for cost in costs:
        for field in total:
            total[field] += cost[field]  # type: ignore[literal-required]
    return total


class Ledger:
    """What was spent against a budget; ``parent`` is charged along and may refuse too."""

    def __init__(
        self, budget: Budget | None = None, *, spent: Cost | None = None, parent: "Ledger | None" = None
    ) -> None:
        self.budget = budget or Budget()
        self.spent = add_costs(spent) if spent else no_cost()
        self.parent = parent

    def charge(self, **amounts: float) -> None:
        """Spend, or spend nothing at all; a negative amount gives a reservation back.

        Raises:
            BudgetExceeded: an amount would go over a limit of this ledger or of a parent; nothing was spent.
        """
        with lock:
            limit = self.refuses(**amounts)
            if limit is not None:
                raise BudgetExceeded(f"the budget's {limit} do not allow {amounts[limit]} more", limit=limit)
            self.record(**amounts)

    def record(self, **amounts: float) -> None:
        """Count what has been spent already, without asking."""
        with lock:
            for field, amount in amounts.items():
                self.spent[field] += amount  # type: ignore[literal-required]
            if self.parent is not None:
                self.parent.record(**amounts)

    def refuses(self, **amounts: float) -> str | None:
        """The field whose limit would be exceeded, or None: then `charge` would succeed now."""
        with lock:
            own = self._refuses(amounts)
            if own is not None or self.parent is None:
                return own
            # Again: a parent may have waited, and others have spent meanwhile.
            return self.parent.refuses(**amounts) or self._refuses(amounts)

    def _refuses(self, amounts: Mapping[str, float]) -> str | None:
        """The same of this ledger alone."""
        for field, amount in amounts.items():
            limit = getattr(self.budget, field, None)
            if limit is not None and amount > 0 and self.spent[field] + amount > limit:  # type: ignore[literal-required]
                return field
        return None


def at_most(each: Budget, whole: Budget) -> dict[str, int]:
    """What one task may cost, of the fields that are limited both for each task and for the whole run."""
    pairs = {field: (getattr(each, field), getattr(whole, field)) for field in Budget.model_fields}
    return {field: min(pair) for field, pair in pairs.items() if None not in pair}


def is_spent(ledger: Ledger) -> bool:
    """Whether no further branch can be paid for."""
    return ledger.refuses(env_steps=1, model_calls=1) is not None
