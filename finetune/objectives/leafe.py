"""L = L_cf + beta * L_reh (arXiv 2603.16843, stage 2)."""

import math
from collections import Counter
from collections.abc import Sequence

from leafe_graph.errors import ConfigError

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
