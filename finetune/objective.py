"""L = L_cf + beta * L_reh (arXiv 2603.16843, stage 2), and its minibatch estimator.

``L_cf = mean over counterfactual rows of weight * -log pi(action | history)``, ``L_reh`` the same over rehearsal rows:
two means, taken apart and then summed, so beta does not depend on how many rows each set has. ``-log pi`` is a *sum*
over the action's tokens, the stop token included: the log-probability of the whole action.

Row i of N gets the coefficient ``c_i = N/N_cf`` or ``beta * N/N_reh``: the mean of ``c_i * nll_i`` over all rows is
then L itself, and a minibatch's mean estimates it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from leafe_graph.errors import ConfigError

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


def epoch_steps(kinds: Sequence[str], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Row indices of each optimiser step of an epoch: every row once, kinds spread evenly, step sizes equal to one row.

    The order depends on (seed, epoch) alone, so that a resumed run sees what an undisturbed one sees.
    """
    rng = Random(f"{seed}/{epoch}")
    places: list[tuple[float, int]] = []
    for kind in sorted(set(kinds)):
        members = [i for i, k in enumerate(kinds) if k == kind]
        rng.shuffle(members)
        shift = rng.random()
        places += [((place + shift) / len(members), i) for place, i in enumerate(members)]
    order = [i for _, i in sorted(places)]
    n_steps = -(-len(order) // batch_size)
    bounds = [round(step * len(order) / n_steps) for step in range(n_steps + 1)]
    return [order[a:b] for a, b in pairwise(bounds)]


def row_nll(model: Any, rows: Sequence[TokenRow], *, pad_id: int = 0) -> "torch.Tensor":
    """-log pi(completion | prompt) of each row, summed over its completion's tokens; shape (B,), float32.

    Rows are padded on the right: under a causal mask no real token sees what comes after it, so neither an attention
    mask nor position ids are needed (Unsloth ignores masks in training). Logits are computed from the shortest prompt's
    end on only: with rows of similar length that is little more than the completions.
    """
    import torch

    device = next(model.parameters()).device
    n_B = [len(row) for row in rows]
    T = max(n_B)
    ids_BT = torch.tensor(
        [r.prompt_ids + r.completion_ids + [pad_id] * (T - n) for r, n in zip(rows, n_B, strict=True)]
    )
    labels_BT = torch.tensor([r.labels + [IGNORED] * (T - n) for r, n in zip(rows, n_B, strict=True)])
    first = min(len(r.prompt_ids) for r in rows)  # the first position that is a target
    # The last position predicts nothing that is a target: it need not be run.
    logits_BKV = model(input_ids=ids_BT[:, :-1].to(device), logits_to_keep=T - first, use_cache=False).logits
    targets_BK = labels_BT[:, first:].to(device)
    where_BK = targets_BK != IGNORED
    nll_N = torch.nn.functional.cross_entropy(logits_BKV[where_BK].float(), targets_BK[where_BK], reduction="none")
    of_row_N = where_BK.nonzero()[:, 0]
    return torch.zeros(len(rows), device=device).index_add(0, of_row_N, nll_N)


def micro_batches(rows: Sequence[TokenRow], indices: Sequence[int], size: int) -> list[list[int]]:
    """Cut a step into forward passes of at most ``size`` rows and of similar lengths: a fifth at most is padding."""
    batches: list[list[int]] = []
    for i in sorted(indices, key=lambda i: (len(rows[i]), len(rows[i].prompt_ids), i)):
        if not batches or len(batches[-1]) == size or len(rows[i]) > 1.25 * len(rows[batches[-1][0]]):
            batches.append([])
        batches[-1].append(i)
    return batches


def objective_value(
    model: Any, rows: Sequence[TokenRow], *, objective: str, beta: float, micro_batch_size: int = 8
) -> float:
    """L over all rows, without gradients and dropout: the held-out loss, and what the estimator is tested against."""
    import torch

    c, _ = coefficients([r.kind for r in rows], objective=objective, beta=beta)
    total, training = 0.0, model.training
    model.eval()
    with torch.no_grad():
        for batch in micro_batches(rows, range(len(rows)), micro_batch_size):
            nll = row_nll(model, [rows[i] for i in batch]).tolist()
            total += sum(c[i] * rows[i].weight * value for i, value in zip(batch, nll, strict=True))
    model.train(training)
    return total / len(rows)
