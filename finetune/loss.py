"""-log pi(action | history) of rows, many in one forward pass, and what an objective comes to over all rows.

``-log pi`` is a *sum* over the action's tokens, the stop token included: the log-probability of the whole action.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from leafe_graph.errors import ModelError

from .batches import chains, micro_batches
from .objectives import Objective
from .tokens import IGNORED, TokenRow

if TYPE_CHECKING:
    import torch


def chain_nll(model: Any, chains: Sequence[Sequence[TokenRow]], *, pad_id: int = 0) -> "torch.Tensor":
    """-log pi(completion | prompt) of each row of each chain, summed over its completion's tokens; (N,), float32.

    Only a chain's last row is run (see `leafe_graph.finetune.batches`). Sequences are padded on the right: under a
    causal mask no real token sees what comes after it, so neither an attention mask nor position ids are needed
    (Unsloth ignores masks in training). Logits are computed where a target is predicted, nowhere else.
    """
    import torch

    device = next(model.parameters()).device
    ids_B = [chain[-1].prompt_ids + chain[-1].completion_ids for chain in chains]
    T = max(map(len, ids_B))
    ids_BT = torch.tensor([ids + [pad_id] * (T - len(ids)) for ids in ids_B])
    spots = [
        (n, b, position)
        for n, (b, row) in enumerate((b, row) for b, chain in enumerate(chains) for row in chain)
        for position, label in enumerate(row.labels)
        if label != IGNORED
    ]
    row_M, b_M, t_M = torch.tensor(spots).unbind(1)
    targets_M = ids_BT[b_M, t_M].to(device)
    with _head_sees(model, b_M.to(device), t_M.to(device) - 1):
        # The last position predicts nothing that is a target: it need not be run.
        logits = model(input_ids=ids_BT[:, :-1].to(device), use_cache=False).logits
    if logits.shape[:2] != (1, len(spots)):
        raise ModelError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)}, expected (1, {len(spots)}, V): it "
            "does not call the module that get_output_embeddings() names, so its loss cannot be computed here"
        )
    nll_M = torch.nn.functional.cross_entropy(logits[0].float(), targets_M, reduction="none")
    return torch.zeros(int(row_M[-1]) + 1, device=device).index_add(0, row_M.to(device), nll_M)


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


def objective_value(
    model: Any,
    rows: Sequence[TokenRow],
    objective: Objective,
    *,
    micro_batch_size: int = 8,
    rank: int = 0,
    processes: int = 1,
) -> float:
    """The objective over all rows, without gradients and dropout: the held-out loss.

    The training steps' estimator is tested against it. Of several processes each gets its part of the sum, the one of
    ``rank``.
    """
    import torch

    c, _ = objective.coefficients([r.kind for r in rows])
    total, training = 0.0, model.training
    model.eval()
    with torch.no_grad():
        for batch in micro_batches(rows, chains(rows, longest=len(rows)), micro_batch_size)[rank::processes]:
            nll_N = chain_nll(model, [[rows[i] for i in chain] for chain in batch])
            members = [i for chain in batch for i in chain]
            # In float64: which of two evaluations is better may show in the last digits only.
            total += objective.loss(nll_N.cpu().double(), [rows[i] for i in members], [c[i] for i in members]).item()
    model.train(training)
    return total / len(rows)
