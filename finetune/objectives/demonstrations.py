"""Behaviour cloning: the actions of an expert, or any others, as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .leafe import Leafe
from .objective import Objective

if TYPE_CHECKING:
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class Demonstrations(Objective):
    """One mean over all rows, for a warm start."""

    name = "demonstrations"
    terms: ClassVar[Mapping[str, str]] = {**Leafe.terms, "demonstration": "l_demo"}
    words = "behaviour cloning of demonstrations: one mean of -log π(action | history)"

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """Every row counts the same, and nothing is worth a warning."""
        self.refuse_others(rows)
        return [1.0] * len(rows), []
