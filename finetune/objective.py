"""L = L_cf + beta * L_reh (arXiv 2603.16843, stage 2), and its minibatch estimator.

``L_cf = mean over counterfactual rows of weight * -log pi(action | history)``, ``L_reh`` the same over rehearsal rows:
two means, taken apart and then summed, so beta does not depend on how many rows each set has. ``-log pi`` is a *sum*
over the action's tokens, the stop token included: the log-probability of the whole action.

Row i of N gets the coefficient ``c_i = N/N_cf`` or ``beta * N/N_reh``: the mean of ``c_i * nll_i`` over all rows is
then L itself, and a minibatch's mean estimates it.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from leafe_graph.errors import ConfigError, ModelError

from .chains import chains
from .data import IGNORED, TokenRow

if TYPE_CHECKING:
    import torch

TINY_ROWS = 64
"""Fewer rows of one kind than this are warned of (40 counterfactual rows at full weight were seen to hurt)."""
TINY_SHARE = 0.05
"""A smaller share of one kind than this is warned of."""
HEAVY = 3.0
"""What is few is warned of only where each row counts more than so many of the other kind."""


def coefficients(kinds: Sequence[str], *, objective: str, beta: float) -> tuple[list[float], list[str]]:
    """The coefficient c_i of every row (times its weight, its share of the mean), and what is worth a warning."""
    counts = Counter(kinds)
    if objective == "demonstrations":
        return [1.0] * len(kinds), []
    if strange := set(counts) - {"counterfactual", "rehearsal"}:
        raise ConfigError(
            f"the leafe objective is over counterfactual and rehearsal rows, the data also has {sorted(strange)}: "
            'train on those with objective="demonstrations" first'
        )
    scale = {"counterfactual": 1.0, "rehearsal": beta}
    share = {kind: scale[kind] * len(kinds) / counts[kind] for kind in counts}
    warnings = []
    for kind, term, other in (("counterfactual", "L_cf", "rehearsal"), ("rehearsal", "L_reh", "counterfactual")):
        n = counts[kind]
        if kind == "rehearsal" and beta == 0:
            continue
        if n == 0:
            warnings.append(f"there are no {kind} rows: the objective is the other term alone, without {term}")
        elif (n < TINY_ROWS or n < TINY_SHARE * len(kinds)) and share[kind] > HEAVY * share.get(other, math.inf):
            times = share[kind] / share[other] if share[other] else math.inf
            warnings.append(
                f"only {n} of {len(kinds)} rows are {kind}, and {term} is their plain mean: with beta = {beta:g} "
                f"each weighs {times:.3g} times a {other} row. So few rows were seen to hurt: collect "
                "more, set beta to even it out, or watch held-out rows (eval_data)"
            )
    return [share[kind] for kind in kinds], warnings


def steps_in_epoch(n_rows: int, batch_size: int) -> int:
    """Optimiser steps in which ``n_rows`` are seen once."""
    return -(-n_rows // batch_size)


def epoch_steps(
    chains: Sequence[Sequence[int]], kinds: Sequence[str], batch_size: int, *, seed: int, epoch: int
) -> list[list[Sequence[int]]]:
    """The chains (of row indices) of each optimiser step of an epoch: every row once, kinds spread evenly.

    A chain is not cut: it stands in the step that its middle falls into, so no step is empty if no chain has more rows
    than a step on average. Chains of one row give steps whose sizes differ by one row at most. The order depends on
    (seed, epoch) alone, so that a resumed run sees what an undisturbed one sees.
    """
    rng = Random(f"{seed}/{epoch}")
    total = Counter(kinds)
    rarest = [min((kinds[i] for i in chain), key=lambda kind: (total[kind], kind)) for chain in chains]
    places: list[tuple[float, int]] = []
    for kind in sorted(set(rarest)):
        members = [n for n, k in enumerate(rarest) if k == kind]
        rng.shuffle(members)
        shift = rng.random()
        places += [((place + shift) / len(members), n) for place, n in enumerate(members)]
    n_steps = steps_in_epoch(len(kinds), batch_size)
    bounds = [round(step * len(kinds) / n_steps) for step in range(1, n_steps + 1)]
    steps: list[list[Sequence[int]]] = [[] for _ in bounds]
    seen = 0
    for _, n in sorted(places):
        steps[bisect_right(bounds, seen + (len(chains[n]) - 1) // 2)].append(chains[n])
        seen += len(chains[n])
    return steps


def chain_nll(model: Any, chains: Sequence[Sequence[TokenRow]], *, pad_id: int = 0) -> "torch.Tensor":
    """-log pi(completion | prompt) of each row of each chain, summed over its completion's tokens; (N,), float32.

    Only a chain's last row is run (see `leafe_graph.finetune.chains`). Sequences are padded on the right: under a
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


def micro_batches(rows: Sequence[TokenRow], chains: Sequence[Sequence[int]], size: int) -> list[list[Sequence[int]]]:
    """Cut a step into forward passes of at most ``size`` chains and of similar lengths: a fifth at most is padding."""

    def lengths(chain: Sequence[int]) -> tuple[int, int, Sequence[int]]:
        return len(rows[chain[-1]]), len(rows[chain[-1]].prompt_ids), chain

    batches: list[list[Sequence[int]]] = []
    for chain in sorted(chains, key=lengths):
        if not batches or len(batches[-1]) == size or lengths(chain)[0] > 1.25 * lengths(batches[-1][0])[0]:
            batches.append([])
        batches[-1].append(chain)
    return batches


def objective_value(
    model: Any,
    rows: Sequence[TokenRow],
    *,
    objective: str,
    beta: float,
    micro_batch_size: int = 8,
    rank: int = 0,
    processes: int = 1,
) -> float:
    """L over all rows, without gradients and dropout: the held-out loss, and what the estimator is tested against.

    Of several processes each gets its part of the sum, the one of ``rank``.
    """
    import torch

    c, _ = coefficients([r.kind for r in rows], objective=objective, beta=beta)
    total, training = 0.0, model.training
    model.eval()
    with torch.no_grad():
        for batch in micro_batches(rows, chains(rows, longest=len(rows)), micro_batch_size)[rank::processes]:
            nll = chain_nll(model, [[rows[i] for i in chain] for chain in batch]).tolist()
            members = [i for chain in batch for i in chain]
            total += sum(c[i] * rows[i].weight * value for i, value in zip(members, nll, strict=True))
    model.train(training)
    return total / len(rows)
