"""Direct preference optimisation (arXiv 2305.18290) on single decisions, as in IPR (arXiv 2406.11176).

A row has two answers to one history: in a tree the revised action and the one it revised. The reference is the model
before the training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .leafe import WithRehearsal

if TYPE_CHECKING:
    import torch

    from ..said import Said
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class Dpo(WithRehearsal):
    """DPO on pairs of actions, with an NLL term on the better one, + beta * L_reh; counterfactual rows are left out."""

    name = "dpo"
    terms: ClassVar[Mapping[str, str]] = {"preference": "l_dpo", "rehearsal": "l_reh"}
    measures: ClassVar[Mapping[str, str]] = {"reward_margin": "preference", "reward_accuracy": "preference"}

    dpo_beta: float = 0.1
    """How much the reference holds."""
    dpo_nll: float = 0.05
    """Weight of -log pi of the better answer."""

    @property
    def words(self) -> str:
        """The formula."""
        return (
            f"DPO (arXiv 2305.18290) with β = {self.dpo_beta:g} against the model before this training, "
            f"+ {self.dpo_nll:g} · -log π(better action) + {self.beta:g} · L_reh"
        )

    def drops(self, kind: str) -> bool:
        """Counterfactual rows, which are the better halves of pairs, and rehearsal rows that would count nothing."""
        return kind == "counterfactual" or super().drops(kind)

    def asked(self, row: "TokenRow") -> "TokenRow | None":
        """Both answers of a pair."""
        return row if row.rejected_ids is not None else None

    def kept(self, said: "Said") -> list[Any]:
        """-log pi of both."""
        return [*zip(said.nll_N.tolist(), said.sums(said.nll_M, rejected=True).tolist(), strict=True)]

    def losses(self, said: "Said", rows: "Sequence[TokenRow]") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """-log sigmoid of the difference of rewards, and the NLL term; -log pi of rehearsal rows."""
        import torch

        nll_N, rejected_N = said.nll_N, said.sums(said.nll_M, rejected=True)
        pair_N = torch.tensor([row.reference is not None for row in rows], device=nll_N.device)
        ref_N2 = torch.tensor([row.reference or (0.0, 0.0) for row in rows], device=nll_N.device)
        margin_N = self.dpo_beta * ((ref_N2[:, 0] - nll_N) - (ref_N2[:, 1] - rejected_N))
        loss_N = torch.nn.functional.softplus(-margin_N) + self.dpo_nll * nll_N
        told = {"reward_margin": pair_N * margin_N.detach(), "reward_accuracy": pair_N * (margin_N > 0)}
        return torch.where(pair_N, loss_N, nll_N), told
