"""Resampling over tasks: bootstrap weights, percentile intervals and the sign-flip test, all seeded."""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import mul
from statistics import NormalDist, fmean

from ..errors import ConfigError

LEVEL = 0.95
"""Share of the resampled means inside an interval."""
ALIKE = "* all tasks alike, which leaves nothing to resample: the interval admits other tasks up to Wilson's limit"
"""The note under a table that has such an interval."""


@lru_cache(maxsize=4)
def bootstrap(tasks: int, resamples: int, seed: int) -> list[list[float]]:
    """For every resample the weight of each task: how often it was drawn, over the number of tasks."""
    if not tasks:
        raise ConfigError("a result without tasks has no mean")
    if resamples < 1:
        raise ConfigError(f"resamples={resamples}; expected 1 or more")
    rng = random.Random(int(seed))
    rows = []
    for _ in range(resamples):
        row = [0.0] * tasks
        for task in rng.choices(range(tasks), k=tasks):
            row[task] += 1 / tasks
        rows.append(row)
    return rows


def sign_flip_p(delta: Sequence[float], resamples: int, seed: int) -> float:
    """Two-sided sign-flip test that the mean is 0: the share of sign patterns whose sum is at least as far from 0.

    Exact where all patterns are at most ``resamples``, else by that many random ones.
    """
    moved = [d for d in delta if abs(d) > 1e-12]
    seen = abs(sum(moved)) - 1e-9  # sums that differ by rounding are equal
    if 2 ** len(moved) <= resamples:
        sums = [0.0]
        for d in moved:
            sums = [s + sign * d for s in sums for sign in (1, -1)]
        return sum(abs(s) >= seen for s in sums) / len(sums)
    rng = random.Random(int(seed))
    signs = [rng.choices((1.0, -1.0), k=len(moved)) for _ in range(resamples)]
    (sums,) = dot(signs, [moved])
    return (1 + sum(abs(s) >= seen for s in sums)) / (1 + resamples)


def dot(weights: list[list[float]], columns: list[list[float]]) -> list[list[float]]:
    """For each column its weighted sums, one for each row of weights; numpy where it is there."""
    try:
        import numpy as np
    except ImportError:
        return [[sum(map(mul, row, column)) for row in weights] for column in columns]
    if not columns:
        return []
    product: list[list[float]] = (np.asarray(columns) @ np.asarray(weights).T).tolist()
    return product


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The percentile interval of resampled means, linear between order statistics."""
    ordered = sorted(values)

    def quantile(q: float) -> float:
        position = q * (len(ordered) - 1)
        i = min(int(position), len(ordered) - 2) if len(ordered) > 1 else 0
        return ordered[i] + (position - i) * (ordered[min(i + 1, len(ordered) - 1)] - ordered[i])

    return quantile((1 - LEVEL) / 2), quantile((1 + LEVEL) / 2)


def unseen(tasks: int) -> float:
    """The share of tasks that may be otherwise though none of ``tasks`` is: Wilson's upper limit of 0 of so many."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z * z / (tasks + z * z)


def mean_interval(
    values: Sequence[float], resampled: Iterable[float], lowest: float, highest: float
) -> tuple[float, float, float, bool]:
    """Mean over tasks, its interval, and whether all tasks are alike.

    Then resampling them says "exactly so", which is not known: 0 of 20 solved tasks do not prove that none ever will
    be. The share of tasks that could be otherwise (`unseen`) is taken at the lowest and at the highest value instead.
    """
    mean = fmean(values)
    if max(values) - min(values) > 1e-12:
        return mean, *interval(resampled), False
    share = unseen(len(values))
    return mean, mean + share * (lowest - mean), mean + share * (highest - mean), True
