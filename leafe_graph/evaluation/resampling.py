"""Tasks and training seeds resampled together, and how success rates are spread over tasks; both need numpy."""

from collections.abc import Sequence
from typing import Any

from ..errors import MissingDependency

STEPS = 100
"""Of expectation-maximisation. From an even start so many leave the spread of rates smooth enough to read shares off;
in simulations (docs/evaluation.md) these are off by at most 1.4 points on average."""


def numpy() -> Any:
    """The package, or what to install."""
    try:
        import numpy as np
    except ImportError as error:
        raise MissingDependency(extra="report", needed_for="Comparing methods over training seeds") from error
    return np


def task_weights(tasks: int, resamples: int, rng: Any) -> Any:
    """The weight of each task (columns) in each resample (rows): how often it was drawn, over the number of tasks."""
    np = numpy()
    return rng.multinomial(tasks, np.full(tasks, 1 / tasks), resamples) / tasks


def two_level_means(values: Any, weights: Any, rng: Any) -> Any:
    """Means of a method over resampled tasks and resampled training seeds.

    Drawing whole seeds beside tasks would count the noise within a task twice, since the means of seeds differ by it
    also where training made no difference; and of S seeds it would see (S - 1) / S of their variance. So the seeds'
    deviations are made smaller by what noise explains of them (mean squares of the two-way layout without replication)
    and larger by the root of S / (S - 1): then the variance of the means is the unbiased estimate, but that it never
    takes seeds for more alike than they can be.

    Args:
        values: seeds x tasks x figures.
        weights: of `task_weights`; the same for all methods, which pairs them by task.
        rng: draws the seeds.

    Returns:
        Figures x resamples.
    """
    np = numpy()
    seeds, tasks, _ = values.shape
    means = weights @ values.mean(axis=0)
    if seeds > 1:
        deviations = values.mean(axis=1) - values.mean(axis=(0, 1))
        noise = values - values.mean(axis=0) - deviations[:, None]
        between = tasks * (deviations**2).sum(axis=0)
        within = (noise**2).sum(axis=(0, 1)) / max(tasks - 1, 1)
        real = np.clip(1 - within / np.maximum(between, 1e-12), 0, None)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), len(weights)) / seeds
        means = means + drawn @ (deviations * np.sqrt(real * seeds / (seeds - 1)))
    return means.T


class Rates:
    """How a policy's true success rates are spread over tasks, estimated from c of n samples of each.

    The likeliest mixture of binomials on a grid (Kiefer and Wolfowitz 1956, Laird 1978). It knows that c of n is not
    the rate: of tasks with rates around a threshold some samples fall short, and a task that none of n samples solved
    may be solved by the next.

    Args:
        counts: ``(n, c)`` of each task.
        weights: of the tasks, in rows of resamples; even, one row, unless given.
    """

    def __init__(self, counts: Sequence[tuple[int, int]], weights: Any = None) -> None:
        np = numpy()
        kinds, kind = np.unique(np.asarray(counts), axis=0, return_inverse=True)
        # Steps are even in arcsin(sqrt(rate)), in which counts have about the same spread everywhere.
        self.rates = (np.sin(np.linspace(0, np.pi / 2, 201)) ** 2).clip(1e-12, 1 - 1e-12)
        n, c = kinds[:, :1], kinds[:, 1:]
        likelihood = c * np.log(self.rates) + (n - c) * np.log1p(-self.rates)
        likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        weights = np.full((1, len(counts)), 1 / len(counts)) if weights is None else weights
        seen = np.zeros((len(weights), len(kinds)))
        np.add.at(seen.T, kind.reshape(-1), weights.T)
        self.shares = np.full((len(weights), len(self.rates)), 1 / len(self.rates))
        for _ in range(STEPS):
            self.shares *= (seen / (self.shares @ likelihood.T)) @ likelihood

    def cover(self, tau: float) -> Any:
        """Share of tasks whose success rate is at least ``tau``, one for each resample."""
        return self.shares[:, self.rates >= tau].sum(axis=1)

    def solved_only_by(self, one: int, other: int) -> float:
        """Share of tasks that ``one`` samples of this policy solve and ``other`` new samples of it do not."""
        unsolved = 1 - self.rates
        share: float = (self.shares @ ((1 - unsolved**one) * unsolved**other)).mean()
        return share
