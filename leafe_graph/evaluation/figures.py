"""What a panel of methods holds: shares of 1 with intervals, differences, tasks won and lost."""

from typing import Any

from pydantic import BaseModel, Field

from ..types import FORMAT_VERSION


class Figure(BaseModel):
    """A mean over tasks and seeds with its 95% interval, as shares of 1."""

    mean: float
    low: float
    high: float
    alike: bool = False
    """Whether all tasks have the same value: then the interval is not resampled, see `statistics.mean_interval`."""

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]" + "*" * self.alike


class Row(BaseModel):
    """A method."""

    method: str
    seeds: list[int | None]
    n: int
    """Samples a task."""
    pass_at: dict[int, Figure]
    """Pass@k by k, for the tables and between them for curves."""
    per_seed: dict[int, list[float]]
    """Pass@k by k of each seed alone."""
    cover: dict[float, Figure]
    """Cover@τ by τ: the share of tasks whose true success rate is at least τ, over all seeds together."""
    costs: list[dict[str, float]]
    """What each seed's policy took to make."""
    chosen: list[dict[str, Any]]
    """What was chosen by tuning for each seed."""


class Difference(Figure):
    """How much higher a method's Pass@k is than the baseline's, paired over tasks."""

    p: float
    """Two-sided: twice the share of resampled differences on the other side of 0."""
    detectable: float
    """The smallest true difference that would be told from 0 in 80% of repetitions of all this: 2.8 standard errors."""

    @property
    def told(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]" + "*" * self.alike


class Exchange(BaseModel):
    """Tasks that one policy solves at least once and another never does."""

    won: float
    """Tasks that the method solves and the baseline never does."""
    lost: float
    """Tasks that the baseline solves and the method never does."""
    won_by_chance: float
    """So many would be won by new samples of the baseline itself, as many as the method's."""
    lost_by_chance: float
    """So many would be lost by them."""


class Against(BaseModel):
    """A method beside a baseline."""

    method: str
    baseline: str
    differences: dict[int, Difference]
    """Of Pass@k by k."""
    exchanges: list[Exchange]
    """Of each seed's policy; the mean over the baseline's seeds where it has several."""
    pooled: Exchange
    """Of the samples of all seeds together."""


class Figures(BaseModel):
    """All that a panel holds."""

    version: int = FORMAT_VERSION
    tasks: int
    ks: list[int]
    """Which Pass@k the tables show."""
    baselines: list[str]
    rows: list[Row]
    against: list[Against]
    floor: Row | None = None
    """A policy that acts at random."""
    warnings: list[str] = Field(default_factory=list)
    """What to know before believing the figures."""

    def row(self, method: str) -> Row:
        """A method's figures."""
        return next(row for row in self.rows if row.method == method)

    def beside(self, method: str, baseline: str) -> Against:
        """A method's differences to a baseline."""
        return next(each for each in self.against if (each.method, each.baseline) == (method, baseline))
