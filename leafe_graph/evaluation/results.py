"""Judging a policy: unbiased Pass@k over independent samples, with intervals over tasks, and two policies paired.

A sample is a root branch: a fresh attempt, no reflection, no rewind, within the budget. What did not end in success,
errors and exhausted budgets included, counts as not solved. Intervals say how the mean would vary over *other tasks of
the same kind* (percentile bootstrap over tasks); they are reproducible, the random numbers come from a fixed seed.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..budget import add_costs, no_cost
from ..errors import ConfigError
from ..files import path_of, save_json
from ..parsing import load_json, read_text
from ..text import utf8
from ..tree.branches import UNFINISHED
from ..tree.run_folder import RunFolder
from ..types import FORMAT_VERSION, Branch, Cost
from .statistics import bootstrap, dot, interval

RESAMPLES = 10_000


@lru_cache(maxsize=65536)
def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of ``k`` samples solves the task, estimated from ``c`` of ``n``.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), computed in whole numbers:
    correctly rounded for every n.

    Raises:
        ConfigError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ConfigError(f"{c} solved samples of {n}; expected 0 <= c <= n")
    if not 1 <= k <= n:
        raise ConfigError(f"Pass@{k} of {n} samples a task; expected 1 <= k <= n: take more samples, or a smaller k")
    total = math.comb(n, k)
    return (total - math.comb(n - c, k)) / total


class Estimate(NamedTuple):
    """A mean over tasks with its 95% interval."""

    k: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent, for a table."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class TaskResult(BaseModel):
    """The samples of one task."""

    task_id: str
    n: int
    """Samples."""
    c: int
    """Solved ones."""
    errors: int = 0
    """Samples that a budget or an error ended, or that were never started; they count as not solved."""
    turns: float = 0.0
    """Mean number of turns of the samples that were started."""
    seconds: float = 0.0
    """Sum over the samples; they ran side by side."""


class Result(BaseModel):
    """How one policy did on some tasks; saved as JSON."""

    model_config = ConfigDict(extra="ignore")  # the saved curve is for readers; it follows from the counts

    version: int = FORMAT_VERSION
    policy: Annotated[str, AfterValidator(utf8)]
    """A name for tables and plots."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Model, environment, split, turns and whatever else the samples depend on."""
    n: int
    """Samples a task."""
    tasks: list[TaskResult]
    budget: dict[str, int | None] = Field(default_factory=dict)
    cost: Cost = Field(default_factory=no_cost)

    @property
    def errors(self) -> int:
        """Samples that a budget or an error ended, or that were never started."""
        return sum(task.errors for task in self.tasks)

    def per_task(self, k: int) -> dict[str, float]:
        """Pass@k of every task."""
        return {task.task_id: pass_at_k(task.n, task.c, k) for task in self.tasks}

    def pass_at(self, k: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
        """Mean Pass@k over the tasks with its interval."""
        return self.curve([k], resamples=resamples, seed=seed)[0]

    def curve(self, ks: Iterable[int] | None = None, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Estimate]:
        """Pass@k for several k, all up to n unless given."""
        ks = list(range(1, self.n + 1) if ks is None else ks)
        values = [list(self.per_task(k).values()) for k in ks]
        means = dot(bootstrap(len(self.tasks), resamples, seed), values)
        return [Estimate(k, fmean(v), *interval(m)) for k, v, m in zip(ks, values, means, strict=True)]

    def save(self, file: str | Path) -> Path:
        """Write as JSON, the curve beside the counts; replaces the file whole."""
        curve = [estimate._asdict() for estimate in self.curve()]
        return save_json(path_of(file), {**self.model_dump(), "pass_at_k": curve})

    @classmethod
    def load(cls, file: str | Path) -> "Result":
        """Read what `save` wrote.

        Raises:
            ConfigError: it is no result, or of another format version.
        """
        said = load_json(read_text(path_of(file)), str(file))
        try:
            result = cls.model_validate(said)
        except ValidationError as error:
            raise ConfigError(f"{file} is not a saved evaluation: {error}") from error
        if result.version != FORMAT_VERSION:
            raise ConfigError(f"{file} has format version {result.version}; this release reads {FORMAT_VERSION}")
        return result


def result_from_branches(
    branches: Iterable[Branch],
    *,
    policy: str,
    n: int | None = None,
    tasks: Iterable[str] | None = None,
    settings: dict[str, Any] | None = None,
    budget: dict[str, int | None] | None = None,
) -> Result:
    """Count independent samples.

    Args:
        branches: root branches, as ``explore(..., strategy="independent")`` makes them.
        policy: a name for tables and plots.
        n: samples that every task was meant to have; what is missing counts as not solved. None: the most that any has.
        tasks: ids of the tasks that were meant to be played; None: those in ``branches``.
        settings: what the samples depend on.
        budget: what they were limited to.

    Raises:
        ConfigError: a branch is no independent sample, a task has more than n, or there is nothing to count.
    """
    samples: dict[str, list[Branch]] = {task_id: [] for task_id in tasks or ()}
    costs = []
    for branch in branches:
        task_id = branch["task"]["id"]
        if branch["parent"] is not None or branch["experience"] is not None:
            raise ConfigError(
                f"branch {branch['id']} of task {task_id} was forked or told an experience; Pass@k wants independent "
                'samples: explore(..., strategy="independent")'
            )
        if tasks is not None and task_id not in samples:
            raise ConfigError(f"task {task_id} was played but is not among the tasks to be judged")
        samples.setdefault(task_id, []).append(branch)
        costs.append(branch["cost"])
    most = max(map(len, samples.values()), default=0)
    n = most if n is None else n
    if n < max(most, 1):
        raise ConfigError(f"a task has {most} samples, expected up to n={n}: there is nothing to count or n is wrong")
    return Result(
        policy=policy,
        settings=settings or {},
        n=n,
        tasks=[
            TaskResult(
                task_id=task_id,
                n=n,
                c=sum(sample["end"] == "success" for sample in played),
                errors=n - len(played) + sum(sample["end"] in UNFINISHED for sample in played),
                turns=fmean(len(sample["turns"]) for sample in played) if played else 0.0,
                seconds=sum(sample["cost"]["seconds"] for sample in played),
            )
            for task_id, played in sorted(samples.items())
        ],
        budget=budget or {},
        cost=add_costs(*costs),
    )


def result_from_run(run: RunFolder, *, policy: str, n: int) -> Result:
    """`result_from_branches` of a run folder that ``explore(..., strategy="independent")`` made.

    The cost is the whole run's: also of branches that failed and were played again.
    """
    settings = run.settings
    result = result_from_branches(
        run.branches,
        policy=policy,
        n=n,
        tasks=settings.tasks,
        settings=run.config["settings"],
        budget=settings.budget.model_dump(),
    )
    return result.model_copy(update={"cost": run.cost})


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    return sorted({2**i for i in range(n.bit_length())} | {n})
