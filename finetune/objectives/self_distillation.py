"""LEAFE with soft labels: the policy that was told the experience teaches the one that was not, whole distributions.

In place of -log pi(a' | h) a counterfactual row has the sum over the tokens of a' of KL(teacher || student). Both are
given the tokens of a' so far; the teacher, the weights from which training starts, sees the experience in its prompt.
Of its distributions the k likeliest tokens are kept and one bucket for the rest, as in SDPO (arXiv 2601.20802). A
teacher that does not move is what was found stable.

On policy (OPCD, arXiv 2602.12275; SDFT, arXiv 2601.19897) the tokens are the student's own: what it said there before
it was told anything. The divergence is the other way round then, KL(student || teacher).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leafe_graph.errors import ConfigError

from .leafe import Leafe, WithRehearsal

if TYPE_CHECKING:
    import torch

    from ..said import Said
    from ..tokens import TokenRow


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(WithRehearsal):
    """KL to the starting weights that see the experience, in place of L_cf, + beta * L_reh."""

    name = "self_distillation"
    terms: ClassVar[Mapping[str, str]] = {**Leafe.terms, "counterfactual": "l_kl"}

    reverse: ClassVar[bool] = False
    """Whether the divergence is the student's from the teacher."""

    teacher_top_k: int = 100
    """Tokens of each of the teacher's distributions."""

    @property
    def words(self) -> str:
        """The formula."""
        return (
            f"L = KL(teacher ‖ student) + β · L_reh with β = {self.beta:g}: the teacher is the model before this "
            f"training with the experience in its prompt, its {self.teacher_top_k} likeliest tokens and the rest as one"
        )

    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """As those of two means; a row for the teacher without a prompt of its own is refused."""
        kind = next(iter(self.terms))
        own = [row for row in rows if row.kind == kind]
        if n := sum(row.teacher_ids is None for row in own):
            raise ConfigError(
                f"{n} of {len(own)} {kind} rows have no teacher_prompt, which the {self.name} objective "
                "asks the teacher: export the runs anew with --teacher, of which experience_turns is not 0"
            )
        return super().coefficients(rows)

    def asked(self, row: "TokenRow") -> "TokenRow | None":
        """The same completion after the prompt that has the experience."""
        return None if row.teacher_ids is None else replace(row, prompt_ids=row.teacher_ids)

    def kept(self, said: "Said") -> list[Any]:
        """Ids and log-probabilities of each token's likeliest, (T, k) both."""
        logp_MV = said.logits_MV.log_softmax(-1)
        logp_MK, ids_MK = logp_MV.topk(min(self.teacher_top_k, logp_MV.shape[-1]))
        return [*zip(said.by_row(ids_MK.cpu()), said.by_row(logp_MK.cpu()), strict=True)]

    def losses(self, said: "Said", rows: "Sequence[TokenRow]") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """KL of counterfactual rows, -log pi of rehearsal rows."""
        import torch

        taught = [row.reference for row in rows if row.reference is not None]
        if not taught:
            return said.nll_N, {}
        soft_M = said.spread([row.reference is not None for row in rows])
        ids_MK, teacher_MK, *rest = (torch.cat(part).to(soft_M.device) for part in zip(*taught, strict=True))
        kl = divergence(said.logits_MV[soft_M], ids_MK, teacher_MK, reverse=self.reverse)
        return said.sums(said.nll_M.masked_scatter(soft_M, self.weighed(kl, said.nll_M[soft_M], rest))), {}

    def weighed(self, kl: "torch.Tensor", nll: "torch.Tensor", kept: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """What each token's divergence counts; of the token the student's -log pi, and the rest of what was kept."""
        return kl


@dataclass(frozen=True, kw_only=True)
class OnPolicyDistillation(SelfDistillation):
    """KL of the student from the weights that see the experience, on what the student said itself, + beta * L_reh."""

    name = "on_policy_distillation"
    terms: ClassVar[Mapping[str, str]] = {"on_policy": "l_rkl", "rehearsal": "l_reh"}
    reverse: ClassVar[bool] = True

    gate: float | None = None
    """Each token counts sigmoid(gate * (log teacher(token) - log student(token))), which has no gradient; None: 1."""

    @property
    def words(self) -> str:
        """The formula."""
        gated = f", each token's times σ({self.gate:g} · (log teacher − log student))" if self.gate else ""
        return (
            f"L = KL(student ‖ teacher) + β · L_reh with β = {self.beta:g}, on the student's own actions{gated}: the "
            f"teacher is the model before this training with the experience in its prompt, its {self.teacher_top_k} "
            "likeliest tokens and the rest as one"
        )

    def kept(self, said: "Said") -> list[Any]:
        """Also the teacher's -log pi of each token."""
        return [(*both, nll) for both, nll in zip(super().kept(said), said.by_row(said.nll_M.cpu()), strict=True)]

    def weighed(self, kl: "torch.Tensor", nll: "torch.Tensor", kept: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """By the gate of SDAR (arXiv 2605.15155): what the teacher believes in less than the student counts little."""
        return kl if self.gate is None else kl * (self.gate * (nll.detach() - kept[0])).sigmoid()

    def drops(self, kind: str) -> bool:
        """Counterfactual rows, too: their actions are the teacher's."""
        return kind == "counterfactual" or super().drops(kind)


def divergence(
    logits_MV: "torch.Tensor", ids_MK: "torch.Tensor", teacher_MK: "torch.Tensor", *, reverse: bool = False
) -> "torch.Tensor":
    """KL(teacher || student) of each token over K + 1 outcomes: the teacher's K likeliest tokens, and any other; (M,).

    ``teacher_MK`` are log-probabilities of the tokens ``ids_MK``; the student has logits. ``reverse``: KL(student ||
    teacher) over the same outcomes.
    """
    import torch

    whole_M1 = logits_MV.logsumexp(-1, keepdim=True)
    student_MK = logits_MV.gather(-1, ids_MK) - whole_M1

    def weighed(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return student.exp() * (student - teacher) if reverse else teacher.exp() * (teacher - student)

    kl_M = weighed(teacher_MK, student_MK).sum(-1)
    if ids_MK.shape[-1] == logits_MV.shape[-1]:
        return kl_M
    rest_M = torch.log1p(-teacher_MK.exp().sum(-1).clamp(max=1 - 1e-6))
    student_M = logits_MV.scatter(-1, ids_MK, float("-inf")).logsumexp(-1) - whole_M1[:, 0]
    return kl_M + weighed(rest_M, student_M)
