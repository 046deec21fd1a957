"""Stage 1 by itself: what runs of several strategies on the same tasks solved for what they spent.

Not Pass@k of a policy, but the search: how many tasks are solved as a budget is spent, and of those tasks whose first
attempt went wrong, how many were solved by how late that was. Both before anything is trained.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from ..errors import ConfigError, MissingDependency
from ..files import path_of, replace_file
from ..text import printable
from ..tree.outline import Outline
from ..tree.run_folder import RunFolder
from ..types import Branch

SPENT = ("env_steps", "model_calls")
"""What a curve is drawn over: the environment's steps without replays, and calls of policy and reflector."""
EDGES = (2, 4, 8, 16)
"""Where one class of depths ends and the next begins: 0 to 1, 2 to 3, 4 to 7, 8 to 15, 16 and more."""


class Solved(BaseModel):
    """A task that was solved, and when."""

    task: str
    env_steps: int
    """Spent by the whole run when its branch had ended, this one included."""
    model_calls: int


class Curve(BaseModel):
    """What one run solved, in the canonical order of its branches.

    That is every task's first branch, in the order of the tasks, then every task's second, and so on: as if all tasks
    were played at once, whatever the run's concurrency was.
    """

    name: str
    strategy: str
    tasks: list[str]
    solved: list[Solved]
    """In the order in which they were."""
    env_steps: int
    """Of the whole run, tries that failed and were played again included."""
    model_calls: int
    reflections: int
    branches: int

    def at(self, budget: int, by: str = "env_steps") -> set[str]:
        """The tasks that are solved when so much is spent."""
        return {each.task for each in self.solved if getattr(each, by) <= budget}


class Depth(BaseModel):
    """The tasks whose first attempt went wrong within a range of decisions."""

    label: str
    """First and last decision, 0-based."""
    tasks: int
    solved: dict[str, int]
    """Of these, by run."""


class Stage1(BaseModel):
    """Several runs on the same tasks."""

    curves: list[Curve]
    depths: list[Depth]
    """Empty where no depth is known."""

    def budgets(self, by: str = "env_steps") -> list[int]:
        """Eighths, quarters and halves of what every run has spent, and all of it."""
        least = min(getattr(curve, by) for curve in self.curves)
        return sorted({max(1, least // part) for part in (8, 4, 2, 1)} if least else ())

    def markdown(self) -> str:
        """All tables."""
        tasks = len(self.curves[0].tasks)
        parts = []
        for by in SPENT:
            budgets = self.budgets(by)
            head = [f"solved of {tasks} after", *(f"{budget:,} {by.replace('_', ' ')}" for budget in budgets)]
            rows = [[curve.name, *(len(curve.at(budget, by)) for budget in budgets)] for curve in self.curves]
            parts.append(_table(head, rows))
        first, *others = self.curves
        if others and (budgets := self.budgets()):
            own = first.at(budgets[-1])
            rows = [
                [curve.name, len(found & own), len(found - own), len(own - found)]
                for curve in others
                if (found := curve.at(budgets[-1])) is not None
            ]
            head = [f"after {budgets[-1]:,} env steps, against {first.name}", "both", "only this", "only that"]
            parts.append(_table(head, rows))
        if self.depths:
            head = ["first attempt lost at decision", "tasks", *(curve.name for curve in self.curves)]
            names = [curve.name for curve in self.curves]
            parts.append(_table(head, ([d.label, d.tasks, *(d.solved[name] for name in names)] for d in self.depths)))
        head = ["whole run", "strategy", "solved", "branches", "env steps", "model calls", "reflections"]
        spent = [
            [
                c.name,
                c.strategy,
                len(c.solved),
                *(f"{n:,}" for n in (c.branches, c.env_steps, c.model_calls, c.reflections)),
            ]
            for c in self.curves
        ]
        return "\n\n".join([*parts, _table(head, spent)]) + "\n"

    def plot(self, file: str | Path) -> Path:
        """Draw the curves over steps and over calls; the file's suffix says the format.

        Raises:
            MissingDependency: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependency(extra="report", needed_for="Plotting curves") from error
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        for axes, by in zip(figure.subplots(1, 2, sharey=True), SPENT, strict=True):
            lines = []
            for curve, dashes in zip(self.curves, itertools.cycle(("-", "--", "-.", ":"))):
                spent = [0, *(getattr(each, by) for each in curve.solved), getattr(curve, by)]
                count = [*range(len(curve.solved) + 1), len(curve.solved)]
                lines += axes.step(spent, count, dashes, where="post")  # curves may lie on each other
            axes.set_xlabel(by.replace("_", " "))
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            # A name is text: no formula between dollar signs, no codes, and a legend even where it begins with "_".
            axes.legend(lines, [printable(curve.name).replace("$", r"\$") for curve in self.curves])
            if by == SPENT[0]:
                axes.set_ylabel(f"solved of {len(self.curves[0].tasks)} tasks")
        file = path_of(file)
        kind = file.suffix.removeprefix(".") or "png"
        replace_file(file, lambda new: figure.savefig(new, dpi=150, format=kind))
        return file


def stage1(runs: Mapping[str, RunFolder], depths: Mapping[str, int | None] | None = None) -> Stage1:
    """Curves of all runs, and their solved tasks by how late the first attempt went wrong.

    Args:
        runs: by name, on the same tasks.
        depths: for each task whose first attempt failed the decision at which it went wrong, 0-based; None where that
            is not known. Unless given: the decision points that the first reflections name (`named_mistakes`).

    Raises:
        ConfigError: no runs, or of other tasks.
    """
    if not runs:
        raise ConfigError("stage1 was given no runs: give run folders, by name")
    curves = [curve(run, name) for name, run in runs.items()]
    for other in curves[1:]:
        if alone := set(curves[0].tasks) ^ set(other.tasks):
            raise ConfigError(
                f"{other.name} and {curves[0].name} were not to play the same tasks: {len(alone)} are only in one of "
                f"them, such as {min(alone)}; give runs of the same tasks"
            )
    found = named_mistakes(runs.values()) if depths is None else depths
    return Stage1(curves=curves, depths=by_depth(curves, found))


def curve(run: RunFolder, name: str) -> Curve:
    """What a run solved as it spent.

    Raises:
        ConfigError: no run folder.
    """
    run.require()
    tasks = run.settings.tasks or sorted(run.trees)
    place = {task: number for number, task in enumerate(tasks)}
    logged = sorted(run.all_outlines, key=lambda branch: (*_number(branch), place[branch.task["id"]]))
    found: dict[str, Solved] = {}
    spent = dict.fromkeys((*SPENT, "reflections"), 0)
    for branch in logged:
        cost = branch.cost
        for field in spent:
            spent[field] += cost[field]  # type: ignore[literal-required]
        task = branch.task["id"]
        if branch.end == "success" and task not in found:
            found[task] = Solved(task=task, env_steps=spent["env_steps"], model_calls=spent["model_calls"])
    return Curve(
        name=name,
        strategy=run.settings.strategy,
        tasks=list(tasks),
        solved=list(found.values()),
        branches=len(run.outlines),
        **spent,
    )


def first_attempts(runs: Iterable[RunFolder]) -> dict[str, Branch]:
    """The first attempt at each task, of the first run that has one.

    With the same policy and seed it is the same in all runs, whatever their strategy.
    """
    found: dict[str, Branch] = {}
    for run in runs:
        for task, first in _first_attempts(run).items():
            if task not in found:
                found[task] = run.trees[task][first.id]
    return found


def _first_attempts(run: RunFolder) -> dict[str, Outline]:
    roots = {task: [b for b in tree.values() if b.parent is None] for task, tree in run.trees.outlines.items()}
    return {task: min(tree, key=_number) for task, tree in roots.items() if tree}


def named_mistakes(runs: Iterable[RunFolder]) -> dict[str, int | None]:
    """For each task the decision point that the first attempt's reflection goes back to; None where there is none.

    It is the reflector's opinion, and the best there is where no solver tells when a task was lost.
    """
    found: dict[str, int | None] = {}
    for run in runs:
        for task, branch in _first_attempts(run).items():
            if branch.end != "success" and found.get(task) is None:
                found[task] = branch.rewinds_to
    return found


def by_depth(curves: Sequence[Curve], depths: Mapping[str, int | None], edges: Sequence[int] = EDGES) -> list[Depth]:
    """The tasks whose first attempt failed by where it went wrong, and how many of them each run solved.

    Runs are compared at the least that any of them has spent, in environment steps. Classes without tasks are left out.
    """
    budget = min(curve.env_steps for curve in curves)
    classes: dict[str, set[str]] = {}
    for low, high in zip((0, *edges), (*edges, None), strict=True):
        label = f"{low}+" if high is None else str(low) if high - low == 1 else f"{low}-{high - 1}"
        classes[label] = {t for t, at in depths.items() if at is not None and low <= at and (high is None or at < high)}
    classes["not known"] = {task for task, at in depths.items() if at is None}
    return [
        Depth(label=label, tasks=len(tasks), solved={c.name: len(c.at(budget) & tasks) for c in curves})
        for label, tasks in classes.items()
        if tasks
    ]


def _number(branch: Outline) -> tuple[int, str]:
    """Sorts a task's branches in the order in which they were begun."""
    return len(branch.id), branch.id


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
