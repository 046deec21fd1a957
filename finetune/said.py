"""What a model says of rows, token by token, many rows in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from leafe_graph.errors import ModelError

from .tokens import TokenRow

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Said:
    """What a model said where N rows have the tokens of their completions: M tokens, row by row.

    Those of rejected completions come after all others, as answers N to 2N - 1.
    """

    logits_MV: "torch.Tensor"
    """float32, with gradient."""
    targets_M: "torch.Tensor"
    answer_M: "torch.Tensor"
    """Which answer each token belongs to."""
    lengths: list[int]
    """Tokens of each row's own completion."""

    @cached_property
    def nll_M(self) -> "torch.Tensor":
        """-log pi of each token."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits_MV, self.targets_M, reduction="none")

    def sums(self, values_M: "torch.Tensor", *, rejected: bool = False) -> "torch.Tensor":
        """The sum over each row's completion, or over its rejected one, which is 0 where it has none; (N,)."""
        import torch

        n = len(self.lengths)
        summed = torch.zeros(2 * n, device=values_M.device).index_add(0, self.answer_M, values_M)
        return summed[n:] if rejected else summed[:n]

    @cached_property
    def nll_N(self) -> "torch.Tensor":
        """-log pi(completion | prompt) of each row: a sum over its tokens, the stop token included."""
        return self.sums(self.nll_M)

    def by_row(self, values: "torch.Tensor") -> "tuple[torch.Tensor, ...]":
        """The values at each row's own completion; their first dimension is M."""
        parts: tuple[torch.Tensor, ...] = values[: sum(self.lengths)].split(self.lengths)
        return parts

    def spread(self, values_N: Sequence[Any]) -> "torch.Tensor":
        """One value a row, at each token of its completion."""
        import torch

        counts = torch.tensor(self.lengths, device=self.targets_M.device)
        return torch.tensor(values_N, device=counts.device).repeat_interleave(counts)


def ask(model: Any, chains: Sequence[Sequence[TokenRow]], *, pad_id: int = 0) -> Said:
    """Run chains of rows, and the rejected completions of those that have one, in one forward pass.

    Only a chain's last row is run (see `leafe_graph.finetune.batches`), and of equal sequences one. They are padded on
    the right: under a causal mask no real token sees what comes after it, so neither an attention mask nor position ids
    are needed (Unsloth ignores masks in training). Logits are computed where a target is predicted, nowhere else.
    """
    import torch

    device = next(model.parameters()).device
    rows = [row for chain in chains for row in chain]
    places: dict[tuple[int, ...], int] = {}  # of what is run, in the batch

    def place(sequence: tuple[int, ...]) -> int:
        return places.setdefault(sequence, len(places))

    runs = [b for chain in chains for b in [place(chain[-1].runs[0])] * len(chain)]
    answers = [(n, b, row.prompt_ids, row.completion_ids) for n, (b, row) in enumerate(zip(runs, rows, strict=True))]
    for n, row in enumerate(rows, len(rows)):
        if row.rejected_ids is not None:
            answers.append((n, place(row.runs[1]), row.prompt_ids, row.rejected_ids))
    T = max(map(len, places))
    ids_BT = torch.tensor([[*ids, *[pad_id] * (T - len(ids))] for ids in places])
    spots = [(n, b, len(prompt) + t - 1, target) for n, b, prompt, ids in answers for t, target in enumerate(ids)]
    answer_M, b_M, t_M, targets_M = torch.tensor(spots).to(device).unbind(1)
    with _head_sees(model, b_M, t_M):
        logits = model(input_ids=ids_BT.to(device), use_cache=False).logits
    if logits.shape[:2] != (1, len(spots)):
        raise ModelError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)}, expected (1, {len(spots)}, V): it "
            "does not call the module that get_output_embeddings() names, so its loss cannot be computed here"
        )
    return Said(logits[0].float(), targets_M, answer_M, [len(row.completion_ids) for row in rows])


@contextmanager
def _head_sees(model: Any, b_M: "torch.Tensor", t_M: "torch.Tensor") -> Iterator[None]:
    """Show the output layer these positions alone: (B, T, D) hidden states become (1, M, D), logits (1, M, V).

    transformers' ``logits_to_keep`` has the same positions for all sequences of a batch, and Unsloth knows it as a
    number only. On a small model with a large vocabulary the output layer is a good part of the work and most of the
    memory.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, hidden: (hidden[0][b_M, t_M][None],))
    try:
        yield
    finally:
        hook.remove()
