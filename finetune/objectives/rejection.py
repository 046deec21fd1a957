"""Rejection fine-tuning: the policy's own successes as they are (STaR, arXiv 2203.14465; RAFT, arXiv 2304.06767)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .objective import Objective

if TYPE_CHECKING:
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class Rejection(Objective):
    """L_reh alone: rejection fine-tuning; rows of other kinds are left out."""

    name = "rejection"
    terms: ClassVar[Mapping[str, str]] = {"rehearsal": "l_reh"}
    words = "rejection fine-tuning (arXiv 2304.06767): the mean of -log π(action | history) over the policy's successes"

    def drops(self, kind: str) -> bool:
        """All but rehearsal rows."""
        return kind != "rehearsal"

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """Every row counts the same."""
        return [1.0] * len(rows), []
