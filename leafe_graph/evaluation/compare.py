"""Two policies on the same tasks, paired."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ..errors import ConfigError
from ..files import path_of, save_json
from ..types import FORMAT_VERSION
from .statistics import ALIKE, bootstrap, dot, mean_interval, sign_flip_p

if TYPE_CHECKING:
    from rich.table import Table
from .results import RESAMPLES, Result, powers_of_two


class Difference(BaseModel):
    """How much higher the second policy's Pass@k is, paired over tasks."""

    k: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    alike: bool = False
    """Whether all tasks differ by the same: then the interval is not resampled, see `statistics.mean_interval`."""
    p: float
    """Two-sided sign-flip test of no difference: exact where few tasks differ, else by random flips."""


class Comparison(BaseModel):
    """Two policies on the same tasks."""

    version: int = FORMAT_VERSION
    first: str
    second: str
    tasks: int
    differences: list[Difference]
    warnings: list[str] = Field(default_factory=list)
    """What to know before believing them: a policy of which many samples failed."""

    def save(self, file: str | Path) -> Path:
        """Write as JSON; replaces the file whole."""
        return save_json(path_of(file), self.model_dump())

    def table(self) -> "Table":
        """A table for the terminal: rich prints it."""
        from rich.table import Table

        from ..terminal.console import verbatim

        title = f"{self.second} against {self.first}, paired over {self.tasks} tasks"
        table = Table(title=verbatim(title, "table.title"))
        for head in ("Pass@k, %", self.first, self.second, "difference [95% interval]", "p"):
            table.add_column(verbatim(head), justify="right", overflow="fold")  # whole: many names begin alike
        for d in self.differences:
            gain = f"{100 * d.difference:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]" + "*" * d.alike
            table.add_row(str(d.k), f"{100 * d.first:.1f}", f"{100 * d.second:.1f}", gain, f"{d.p:.4f}")
        notes = [ALIKE] if any(d.alike for d in self.differences) else []
        notes += self.warnings
        table.caption_justify = "left"
        table.caption = verbatim("\n".join(notes), "table.caption") if notes else None
        return table


def compare(
    first: Result, second: Result, ks: Iterable[int] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """The second policy against the first, task by task.

    Args:
        first: the baseline.
        second: the policy in question; on the same tasks.
        ks: None: the powers of two that both have samples for, and the largest k.
        resamples: of tasks for the interval, and of signs for the test.
        seed: of the random numbers.

    Raises:
        ConfigError: the tasks differ; the message names them.
        NothingPlayed: all samples of one of them failed.
    """
    order = same_tasks([first, second])
    ks = powers_of_two(min(first.n, second.n)) if ks is None else list(ks)
    baseline = [[first.per_task(k)[task] for task in order] for k in ks]
    changed = [[second.per_task(k)[task] for task in order] for k in ks]
    deltas = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(baseline, changed, strict=True)]
    resampled = dot(bootstrap(len(order), resamples, seed), deltas)
    flipped = [sign_flip_p(delta, resamples, seed) for delta in deltas]
    differences = []
    for i, k in enumerate(ks):
        a, b = fmean(baseline[i]), fmean(changed[i])
        _, low, high, alike = mean_interval(deltas[i], resampled[i], -1.0, 1.0)
        differences.append(
            Difference(k=k, first=a, second=b, difference=b - a, low=low, high=high, alike=alike, p=flipped[i])
        )
    return Comparison(
        first=first.policy,
        second=second.policy,
        tasks=len(order),
        differences=differences,
        warnings=[warning for result in (first, second) if (warning := result.warning)],
    )


def same_tasks(results: Sequence[Result]) -> list[str]:
    """The ids of the tasks that all results have, sorted.

    Raises:
        ConfigError: the tasks differ; the message names them.
    """
    first, *others = ({task.task_id for task in result.tasks} for result in results)
    for number, ids in enumerate(others, 2):
        if ids != first:
            which = "the second" if number == 2 else f"number {number}"
            raise ConfigError(
                f"only the same tasks can be compared; only the first, {results[0].policy}, has {_some(first - ids)}, "
                f"only {which}, {results[number - 1].policy}, has {_some(ids - first)}: "
                "evaluate all on one list of tasks"
            )
    return sorted(first)


def _some(ids: Iterable[str]) -> str:
    names = sorted(ids)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
