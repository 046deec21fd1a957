"""Judging a policy: unbiased Pass@k over independent samples, with intervals over tasks, and two policies paired.

A sample is a root branch: a fresh attempt, no reflection, no rewind, within the budget. What did not end in success,
errors and exhausted budgets included, counts as not solved; but where *every* sample failed, nothing was measured, and
there is no Pass@k. Intervals say how the mean would vary over *other tasks of the same kind* (percentile bootstrap over
tasks, or Wilson's limit where all tasks are alike); they are reproducible, the random numbers come from a fixed seed.
"""

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from ..budget import Budget, Ledger, add_costs, at_most, is_spent, no_cost
from ..errors import ConfigError, NothingPlayed
from ..files import path_of, save_json
from ..parsing import load_json, read_text
from ..redaction import without_passwords
from ..settings import Settings, mistakes
from ..text import utf8
from ..tree.branches import FAILED, UNFINISHED, causes, told_causes
from ..tree.outline import Outline, outlined
from ..tree.run_folder import RunFolder
from ..types import FORMAT_VERSION, Branch, Cost
from .statistics import bootstrap, dot, mean_interval

RESAMPLES = 10_000
MANY = 0.05
"""Share of failed samples above which a result warns: from there on Pass@1 may be 5 points too low, as much as many a
difference that one wants to measure."""


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
    alike: bool = False
    """Whether all tasks have the same value: then the interval is not resampled, see `statistics.mean_interval`."""

    def __str__(self) -> str:
        """In percent, for a table; a star where all tasks are alike."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]" + "*" * self.alike


class TaskResult(Settings):
    """The samples of one task."""

    model_config = ConfigDict(extra="ignore")

    task_id: str
    n: int = Field(ge=1)
    """Samples."""
    c: int = Field(ge=0)
    """Solved ones."""
    errors: int = Field(default=0, ge=0)
    """Samples that a budget or an error ended, or that were never started; they count as not solved."""
    failed: int = Field(default_factory=lambda told: told.get("errors", 0), ge=0)
    """Those of them that say nothing about the policy: a model or an environment failed, or they were never started
    though the task's budget was not spent. All unless given."""
    turns: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Mean number of turns of the samples that were started."""
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Sum over the samples; they ran side by side."""

    @model_validator(mode="after")
    def _add_up(self) -> "TaskResult":
        if self.c + self.errors > self.n or self.failed > self.errors:
            raise ValueError(
                f"task {self.task_id!r} has {self.n} samples, {self.c} solved, {self.errors} errors, {self.failed} of "
                "them failed; expected solved and errors within the samples"
            )
        return self


class Result(Settings):
    """How one policy did on some tasks; saved as JSON."""

    model_config = ConfigDict(extra="ignore")  # the saved curve is for readers; it follows from the counts

    version: int = FORMAT_VERSION
    policy: Annotated[str, AfterValidator(utf8)]
    """A name for tables and plots."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Model, environment, split, turns and whatever else the samples depend on."""
    n: int = Field(ge=1)
    """Samples a task."""
    tasks: list[TaskResult]
    causes: dict[str, int] = Field(default_factory=dict)
    """What the failed samples raised, and how many of them: the most frequent first."""
    budget: dict[str, int | None] = Field(default_factory=dict)
    cost: Cost = Field(default_factory=no_cost)

    @model_validator(mode="before")
    @classmethod
    def _without_failed(cls, data: Any) -> Any:
        """Releases that did not tell failed samples apart: under a budget what was begun may have been ended by it."""
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), list):
            return data
        settings = data.get("settings")
        budgets = (data.get("budget"), settings.get("total_budget") if isinstance(settings, dict) else None)
        limits = [limit for budget in budgets if isinstance(budget, dict) for limit in budget.values()]
        if all(limit is None for limit in limits):
            return data
        tasks = [
            {"failed": 0} | task if isinstance(task, dict) and task.get("turns") else task for task in data["tasks"]
        ]
        return data | {"tasks": tasks}

    @model_validator(mode="after")
    def _each_task_once(self) -> "Result":
        twice = sorted(task for task, n in Counter(task.task_id for task in self.tasks).items() if n > 1)
        if twice:
            raise ValueError(f"more than one task is called {', '.join(twice[:5])}; expected each task once")
        return self

    @property
    def samples(self) -> int:
        """Samples of all tasks together."""
        return sum(task.n for task in self.tasks)

    def __repr__(self) -> str:
        solved = f"{sum(task.c for task in self.tasks)} of {self.samples} samples solved"
        return f"Result({self.policy!r}: {solved}, {len(self.tasks)} tasks x {self.n}, {self.errors} errors)"

    __str__ = __repr__

    @property
    def errors(self) -> int:
        """Samples that a budget or an error ended, or that were never started."""
        return sum(task.errors for task in self.tasks)

    @property
    def failed(self) -> int:
        """Samples that a model or an environment failed, or that were never started: nothing is known from them."""
        return sum(task.failed for task in self.tasks)

    @property
    def unplayed(self) -> bool:
        """Whether every sample failed, so that there is no Pass@k."""
        return bool(self.tasks) and self.failed == self.samples

    @property
    def warning(self) -> str | None:
        """What to know before believing the figures; None where few samples failed (at most `MANY`)."""
        if self.failed <= MANY * self.samples:
            return None
        share = self.failed / self.samples
        return (
            f"{self.policy}: {self.failed} of {self.samples} samples ({share:.0%}) were failed by the model or the "
            "environment, or never started, and count as not solved, so Pass@1 may be up to "
            f"{100 * share:.0f} points too low{told_causes(self.causes)}"
        )

    def per_task(self, k: int) -> dict[str, float]:
        """Pass@k of every task.

        Raises:
            NothingPlayed: every sample failed, so nothing was measured.
            ConfigError: a task has fewer than k samples.
        """
        if self.unplayed:
            raise NothingPlayed(
                f"{self.policy}: all {self.samples} samples failed, so there is no Pass@k"
                f"{told_causes(self.causes) or ' (the branches in its run folder say why)'}. See to that, and "
                "evaluate again",
                causes=self.causes,
            )
        return {task.task_id: pass_at_k(task.n, task.c, k) for task in self.tasks}

    def pass_at(self, k: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
        """Mean Pass@k over the tasks with its interval."""
        return self.curve([k], resamples=resamples, seed=seed)[0]

    def curve(self, ks: Iterable[int] | None = None, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Estimate]:
        """Pass@k for several k, all up to n unless given."""
        ks = list(range(1, self.n + 1) if ks is None else ks)
        values = [list(self.per_task(k).values()) for k in ks]
        means = dot(bootstrap(len(self.tasks), resamples, seed), values)
        return [Estimate(k, *mean_interval(v, m, 0.0, 1.0)) for k, v, m in zip(ks, values, means, strict=True)]

    def save(self, file: str | Path) -> Path:
        """Write as JSON, the warning and the curve beside the counts; replaces the file whole.

        Raises:
            NothingPlayed: every sample failed.
        """
        curve = [estimate._asdict() for estimate in self.curve()]
        told = {**self.model_dump(), "warning": self.warning, "pass_at_k": curve}
        return save_json(path_of(file), without_passwords(told))

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
            raise ConfigError(f"{file} is not a saved evaluation: {mistakes(error)}") from error
        if result.version != FORMAT_VERSION:
            raise ConfigError(f"{file} has format version {result.version}; this release reads {FORMAT_VERSION}")
        return result


def result_from_branches(
    branches: Iterable[Branch | Outline],
    *,
    policy: str,
    n: int | None = None,
    tasks: Iterable[str] | None = None,
    settings: dict[str, Any] | None = None,
    budget: dict[str, int | None] | None = None,
    room: bool = True,
) -> Result:
    """Count independent samples.

    Args:
        branches: root branches, as ``explore(..., strategy="independent")`` makes them.
        policy: a name for tables and plots.
        n: samples that every task was meant to have; what is missing counts as not solved, and as failed unless the
            task's budget was spent on the others. None: the most that any has.
        tasks: ids of the tasks that were meant to be played; None: those in ``branches``.
        settings: what the samples depend on.
        budget: what all samples of a task were limited to.
        room: whether a budget of the whole run had room for another task; if not, a task without any sample is not
            solved, but did not fail.

    Raises:
        ConfigError: a branch is no independent sample, a task has more than n, or there is nothing to count.
        NothingPlayed: every sample was failed by the model or the environment: that is no score of 0.
    """
    samples: dict[str, list[Outline]] = {task_id: [] for task_id in tasks or ()}
    played = [branch if isinstance(branch, Outline) else outlined(branch) for branch in branches]
    for branch in played:
        task_id = branch.task["id"]
        if branch.parent is not None or branch.told:
            raise ConfigError(
                f"branch {branch.id} of task {task_id} was forked or told an experience; Pass@k wants independent "
                'samples: explore(..., strategy="independent")'
            )
        if tasks is not None and task_id not in samples:
            raise ConfigError(f"task {task_id} was played but is not among the tasks to be judged")
        samples.setdefault(task_id, []).append(branch)
    most = max(map(len, samples.values()), default=0)
    n = most if n is None else n
    if n < max(most, 1):
        raise ConfigError(f"a task has {most} samples, expected up to n={n}: there is nothing to count or n is wrong")
    limits = Budget(**budget or {})

    def failed(played: list[Outline]) -> int:
        well = [sample.cost for sample in played if sample.end not in FAILED]
        spent = is_spent(Ledger(limits, spent=add_costs(*well))) if well else not (played or room)
        return len(played) - len(well) + (0 if spent else n - len(played))

    result = Result(
        policy=policy,
        settings=settings or {},
        n=n,
        tasks=[
            TaskResult(
                task_id=task_id,
                n=n,
                c=sum(sample.end == "success" for sample in own),
                errors=n - len(own) + sum(sample.end in UNFINISHED for sample in own),
                failed=failed(own),
                turns=fmean(sample.turns for sample in own) if own else 0.0,
                seconds=sum(sample.cost["seconds"] for sample in own),
            )
            for task_id, own in sorted(samples.items())
        ],
        causes=causes(branch for branch in played if branch.end in FAILED),
        budget=budget or {},
        cost=add_costs(*(branch.cost for branch in played)),
    )
    result.per_task(1)  # refuses where every sample failed
    return result


def result_from_run(run: RunFolder, *, policy: str, n: int) -> Result:
    """`result_from_branches` of a run folder that ``explore(..., strategy="independent")`` made.

    The cost is the whole run's: also of branches that failed and were played again.
    """
    settings = run.settings
    result = result_from_branches(
        run.outlines,
        policy=policy,
        n=n,
        tasks=settings.tasks,
        settings=run.config["settings"],
        budget=settings.budget.model_dump(),
        room=Ledger(settings.total_budget, spent=run.cost).refuses(**at_most(settings.budget, settings.total_budget))
        is None,
    )
    return result.model_copy(update={"cost": run.cost})


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    return sorted({2**i for i in range(n.bit_length())} | {n})
