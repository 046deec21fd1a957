"""How far Cover@τ and the wins of chance are from the truth, as a panel estimates them.

    python benchmarks/cover.py

Simulated: 200 tasks of three kinds of worlds, whose true success rates are known here. ``c/n`` is the share of tasks of
which at least τ of the samples were solved; the fit is what the panel shows. In brackets: how many of the fit's
intervals held the truth. Then the tasks that a second evaluation of the same policy solves and the first did not.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from leafe_graph.evaluation.panel import REFITS, TAUS
from leafe_graph.evaluation.resampling import Rates, task_weights

TASKS = 200
WORLDS: dict[str, Callable[[Any, int], Any]] = {
    "most tasks hard": lambda rng, tasks: rng.beta(0.15, 1.5, tasks),
    "a fifth impossible": lambda rng, tasks: np.where(rng.random(tasks) < 0.2, 0, rng.beta(0.4, 2, tasks)),
    "hard or easy": lambda rng, tasks: np.where(
        rng.random(tasks) < 0.5, rng.beta(0.3, 30, tasks), rng.beta(4, 3, tasks)
    ),
}


def main() -> None:
    """Print a table for each world and number of samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=60)
    repeats, rng = parser.parse_args().repeats, np.random.default_rng(0)
    print("| world | samples | | " + " | ".join(f"τ = {tau}" for tau in TAUS) + " |\n" + "|---" * (3 + len(TAUS)) + "|")
    wins = []
    for name, world in WORLDS.items():
        many = world(rng, 1_000_000)
        truth = np.array([(many >= tau).mean() for tau in TAUS])
        for n in (128, 16):
            naive, told, inside, won = [], [], np.zeros(len(TAUS)), []
            for _ in range(repeats):
                rates = world(rng, TASKS)
                first, second = rng.binomial(n, rates), rng.binomial(n, rates)
                counts = [(n, int(c)) for c in first]
                fit, refits = Rates(counts), Rates(counts, task_weights(TASKS, REFITS, rng))
                naive.append([(first / n >= tau).mean() for tau in TAUS])
                told.append([fit.cover(tau)[0] for tau in TAUS])
                low, high = np.quantile([refits.cover(tau) for tau in TAUS], (0.025, 0.975), axis=1)
                inside += (low <= truth) & (truth <= high)
                won.append((TASKS * fit.solved_only_by(n, n), ((first == 0) & (second > 0)).sum()))
            off = [100 * (np.mean(each, axis=0) - truth) for each in (naive, told)]
            held = [f" ({100 * share:.0f}%)" for share in inside / repeats]
            for what, row, more in (("c/n", off[0], [""] * len(TAUS)), ("fit", off[1], held)):
                cells = [f"{value:+.1f}{extra}" for value, extra in zip(row, more, strict=True)]
                print(f"| {name} | {n} | {what} | " + " | ".join(cells) + " |", flush=True)
            by_fit, seen = np.mean(won, axis=0)
            wins.append(f"{name}, {n} samples: {by_fit:.1f} tasks won by chance told, {seen:.1f} won")
    print("\n".join(wins))


if __name__ == "__main__":
    main()
