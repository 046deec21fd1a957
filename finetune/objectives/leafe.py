"""L = L_cf + beta * L_reh (arXiv 2603.16843, stage 2), and its minibatch estimator.

``L_cf = mean over counterfactual rows of weight * -log pi(action | history)``, ``L_reh`` the same over rehearsal rows:
two means, taken apart and then summed, so beta does not depend on how many rows each set has.

Row i of N gets the coefficient ``c_i = N/N_cf`` or ``beta * N/N_reh``: the mean of ``c_i * loss_i`` over all rows is
then L itself, and a minibatch's mean estimates it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .objective import Objective

if TYPE_CHECKING:
    from ..tokens import TokenRow

TINY_ROWS = 64
"""Fewer rows of one kind than this are warned of (40 counterfactual rows at full weight were seen to hurt)."""
TINY_SHARE = 0.05
"""A smaller share of one kind than this is warned of."""
HEAVY = 3.0
"""What is few is warned of only where each row counts more than so many of the other kind."""


@dataclass(frozen=True, kw_only=True)
class WithRehearsal(Objective):
    """A mean over rows of one kind, the first of `terms`, and beta times the mean over rehearsal rows."""

    beta: float = 1.0
    """Weight of the rehearsal term."""

    def drops(self, kind: str) -> bool:
        """Rehearsal rows that would count nothing."""
        return kind == "rehearsal" and self.beta == 0

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """c_i = N/N_own or beta * N/N_reh; a kind with no rows or few is warned of."""
        self.refuse_others(rows)
        kinds = [row.kind for row in rows]
        counts = Counter(kinds)
        own, reh = self.terms
        scale = {own: 1.0, reh: self.beta}
        share = {kind: scale[kind] * len(kinds) / counts[kind] for kind in counts}
        warnings = []
        for kind, other in ((own, reh), (reh, own)):
            n, (initial, which) = counts[kind], self.terms[kind].split("_")
            term = f"{initial.upper()}_{which}"
            if self.drops(kind):
                continue
            if n == 0:
                warnings.append(f"there are no {kind} rows: the objective is the other term alone, without {term}")
            elif (n < TINY_ROWS or n < TINY_SHARE * len(kinds)) and share[kind] > HEAVY * share.get(other, math.inf):
                times = share[kind] / share[other] if share[other] else math.inf
                warnings.append(
                    f"only {n} of {len(kinds)} rows are {kind}, and {term} is their plain mean: with beta = "
                    f"{self.beta:g} each weighs {times:.3g} times a {other} row. So few rows were seen to hurt: "
                    "collect more, set beta to even it out, or watch held-out rows (eval_data)"
                )
        return [share[kind] for kind in kinds], warnings


@dataclass(frozen=True, kw_only=True)
class Leafe(WithRehearsal):
    """L_cf + beta * L_reh, two separate means."""

    name = "leafe"
    terms: ClassVar[Mapping[str, str]] = {"counterfactual": "l_cf", "rehearsal": "l_reh"}

    @property
    def words(self) -> str:
        """The formula and where it is from."""
        return (
            f"L = L_cf + β · L_reh with β = {self.beta:g} (LEAFE, arXiv 2603.16843): two means of -log π(action | "
            "history)"
        )
