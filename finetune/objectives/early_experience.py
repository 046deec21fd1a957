"""The two losses of Early Experience (arXiv 2510.08558); what comes beside the first is imitation, `Rejection`'s.

``L_IWM = mean over (s, a, s') of -log p(s' | s, a)``, of the actions taken and of those tried beside them.
``L_SR`` is one mean of ``-log p(c, a | s)`` over self-reflections, and of ``-log p(a | s)`` over the successes that
they are mixed with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .objective import Objective

if TYPE_CHECKING:
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class WorldModel(Objective):
    """Implicit world modelling: what is seen after an action; rows of other kinds are left out."""

    name = "world_model"
    terms: ClassVar[Mapping[str, str]] = {"world_model": "l_iwm"}
    words = "implicit world modelling (arXiv 2510.08558): the mean of -log p(next observation | history, action)"

    def drops(self, kind: str) -> bool:
        """All but its own."""
        return kind != "world_model"

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """Every row counts the same."""
        return [1.0] * len(rows), []


@dataclass(frozen=True, kw_only=True)
class SelfReflection(Objective):
    """Thoughts and action of self-reflections, mixed with the actions of successes: one mean over both."""

    name = "self_reflection"
    terms: ClassVar[Mapping[str, str]] = {"self_reflection": "l_sr", "rehearsal": "l_il"}
    words = (
        "self-reflection (arXiv 2510.08558): one mean of -log π(thoughts, action | history) over reflections and of "
        "-log π(action | history) over successes"
    )

    def drops(self, kind: str) -> bool:
        """Rows of other kinds."""
        return kind not in self.terms

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """Every row counts the same."""
        return [1.0] * len(rows), []
