"""How large a difference a panel of tasks, samples and training seeds can tell, and how honest its intervals are.

    python benchmarks/power.py

Simulated: tasks of very different difficulty (a base with Pass@1 of about 13% and Pass@128 of about 77%), and a method
whose gain differs from task to task, whose trainings differ as a whole (0.1 in the logit of the success rate: about one
point of Pass@1) and by task. Base and method are repeated as a whole, so the spread of the difference over repetitions
is its true standard error, however an interval estimates it. ``--scatter 0.3``: trainings differ three times as much.
"""

import argparse
from typing import Any

import numpy as np

from leafe_graph.evaluation.resampling import task_weights, two_level_means
from leafe_graph.evaluation.results import pass_at_k

GAIN, BY_TASK, BY_TASK_AND_SEED = 0.4, 0.4, 0.4
"""The method's, in logits: on average; how it differs by task; and by task from training to training."""


def rates(logits: Any) -> Any:
    """Success rates."""
    return 1 / (1 + np.exp(-logits))


def repetition(rng: Any, tasks: int, n: int, base_n: int, seeds: int, scatter: float) -> tuple[Any, Any]:
    """Solved samples of a base and of the seeds of a method, on new tasks."""
    hard = rng.normal(-3.7, 2.5, tasks)
    trained = hard + rng.normal(GAIN, BY_TASK, tasks) + rng.normal(0, scatter, (seeds, 1))
    trained += rng.normal(0, BY_TASK_AND_SEED, (seeds, tasks))
    return rng.binomial(base_n, rates(hard[None])), rng.binomial(n, rates(trained))


def plain_means(values: Any, weights: Any, rng: Any) -> Any:
    """Means over whole seeds drawn beside tasks, as a bootstrap of two levels is usually made."""
    seeds = len(values)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), len(weights)) / seeds
    return np.einsum("rt,stk,rs->kr", weights, values, drawn, optimize=True)


def measure(
    tasks: int, n: int, base_n: int, seeds: int, ks: list[int], given: argparse.Namespace, truth: Any
) -> list[str]:
    """For each k the difference that is told in 80% of repetitions, and the share of intervals that hold the truth."""
    rng = np.random.default_rng(0)
    values = [np.array([[pass_at_k(of, c, k) for k in ks] for c in range(of + 1)]) for of in (base_n, n)]
    means_of = plain_means if given.plain else two_level_means
    found, inside = [], np.zeros(len(ks))
    for _ in range(given.repeats):
        solved = repetition(rng, tasks, n, base_n, seeds, given.scatter)
        base, trained = (value[counts] for value, counts in zip(values, solved, strict=True))
        found.append(trained.mean(axis=(0, 1)) - base.mean(axis=(0, 1)))
        weights = task_weights(tasks, 400, rng)
        means = means_of(trained, weights, rng) - means_of(base, weights, rng)
        low, high = np.quantile(means, (0.025, 0.975), axis=1)
        inside += (low <= truth) & (truth <= high)
    return [
        f"{280 * e:.1f} ({100 * share:.0f}%)"
        for e, share in zip(np.std(found, axis=0), inside / given.repeats, strict=True)
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--scatter", type=float, default=0.1)
    parser.add_argument("--plain", action="store_true", help="draw whole seeds beside tasks, nothing put right")
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    hard = rng.normal(-3.7, 2.5, 2_000_000)
    spread = (BY_TASK**2 + BY_TASK_AND_SEED**2 + given.scatter**2) ** 0.5
    trained = hard + rng.normal(GAIN, spread, hard.size)
    every = [1, 8, 32, 128]
    before, after = ([(1 - (1 - rates(each)) ** k).mean() for k in every] for each in (hard, trained))
    for name, curve in (("base", before), ("method", after)):
        print(name, ", ".join(f"Pass@{k} {100 * value:.1f}%" for k, value in zip(every, curve, strict=True)))
    print(
        "| tasks | samples | of the base | seeds | "
        + " | ".join(f"Pass@{k}" for k in every)
        + " |\n"
        + "|---" * 8
        + "|"
    )
    for tasks, n, base_n, seeds in [
        *((tasks, 128, 128, 3) for tasks in (50, 100, 200, 400)),
        *((200, 128, 128, seeds) for seeds in (1, 5)),
        *((200, n, n, 3) for n in (8, 32, 256)),
        *((200, n, 512, 3) for n in (128, 256)),
        (400, 128, 512, 3),
    ]:
        ks = [k for k in every if k <= n]
        truth = np.array([b - a for a, b, k in zip(before, after, every, strict=True) if k <= n])
        cells = measure(tasks, n, base_n, seeds, ks, given, truth)
        cells += ["-"] * (len(every) - len(cells))
        print(f"| {tasks} | {n} | {base_n} | {seeds} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
