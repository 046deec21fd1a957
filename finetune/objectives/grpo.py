"""GRPO's clipped policy gradient (arXiv 2402.03300) on single decisions, each with the advantage of its episode.

Advantages and groups are made where the rows are: here one is a number. The loss of a token is
``-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_coef * k3`` with ``r = pi / pi_old``; k3 estimates the
divergence from the model before the training, ``exp(d) - d - 1`` with ``d = log pi_ref - log pi``.

Over the data of a training, the tokens' losses are divided as ``normalise_by`` says: by the number of all tokens (DAPO,
arXiv 2503.14476); by each row's own number, then by that of rows (GRPO); or by a constant times that of rows (Dr. GRPO,
arXiv 2503.20783).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .objective import Objective

if TYPE_CHECKING:
    import torch

    from ..said import Said
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class Grpo(Objective):
    """The clipped policy gradient of GRPO on rollouts with advantages, per token."""

    name = "grpo"
    terms: ClassVar[Mapping[str, str]] = {"rollout": "l_grpo"}
    measures: ClassVar[Mapping[str, str]] = {"clipped": "rollout", "kl_old": "rollout", "kl_start": "rollout"}

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coef: float = 0.0
    normalise_by: Literal["tokens", "rows"] | int = "tokens"

    @property
    def words(self) -> str:
        """The formula's settings."""
        return (
            f"GRPO's clipped policy gradient (arXiv 2402.03300), ratios clipped to [1 - {self.clip_low:g}, "
            f"1 + {self.clip_high:g}], {self.kl_coef:g} · KL to the model before this training, "
            f"normalised by {self.normalise_by}"
        )

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """What the sum over a row's tokens is multiplied by, so that the mean over rows is normalised as asked."""
        self.refuse_others(rows)
        lengths = [len(row.completion_ids) for row in rows]
        if self.normalise_by == "tokens":
            return [len(rows) / sum(lengths)] * len(rows), []
        return [1 / (n if self.normalise_by == "rows" else self.normalise_by) for n in lengths], []

    def asked(self, row: "TokenRow") -> "TokenRow | None":
        """A row that does not tell with which probabilities it was sampled, and each one for the KL term."""
        return row if row.logprobs is None or self.kl_coef else None

    def kept(self, said: "Said") -> list[Any]:
        """The log-probability of each token."""
        return [(-nll_T).tolist() for nll_T in said.by_row(said.nll_M)]

    def losses(self, said: "Said", rows: "Sequence[TokenRow]") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """The sum of its tokens' losses for each row."""
        import torch

        def tokens(lists: "Sequence[Sequence[float]]") -> "torch.Tensor":
            return torch.tensor([value for each in lists for value in each], device=said.nll_M.device)

        logp_M, advantage_M = -said.nll_M, said.spread([row.advantage for row in rows])
        behind_M = logp_M - tokens([row.reference if row.logprobs is None else row.logprobs for row in rows])
        ratio_M = behind_M.exp()
        clipped_M = ratio_M.clamp(1 - self.clip_low, 1 + self.clip_high)
        loss_M = -torch.min(ratio_M * advantage_M, clipped_M * advantage_M)
        share_N = 1 / torch.tensor(said.lengths, device=loss_M.device)
        bound_M = (clipped_M * advantage_M < ratio_M * advantage_M).float()
        told = {"clipped": bound_M, "kl_old": ratio_M.detach() - behind_M.detach() - 1}
        # k3 is taken with samples of the first of two policies: seen from the old one it is r - 1 - log r.
        if self.kl_coef:
            ahead_M = tokens([row.reference for row in rows]) - logp_M
            k3_M = ahead_M.exp() - ahead_M - 1
            loss_M, told["kl_start"] = loss_M + self.kl_coef * k3_M, k3_M.detach()
        return said.sums(loss_M), {name: share_N * said.sums(values_M) for name, values_M in told.items()}
