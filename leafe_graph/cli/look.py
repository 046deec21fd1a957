"""Commands that look at what is there."""

import shlex
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from ..envs.catalog import ENVS
from ..errors import ConfigError
from ..files import UserPath, beside, check_file
from ..settings import Settings
from ..text import did_you_mean
from ..tree.run_folder import RunFolder
from .runs import rounds_in, saved_rounds, show_rounds


class Compare(Settings):
    """Compare two evaluations on the same tasks, paired.

    Example: leafe compare runs/first/eval/base runs/first/eval/adapted -k 1,8
    """

    first: CliPositionalArg[UserPath]
    """The baseline: the JSON that eval wrote, or the folder of its samples."""
    second: CliPositionalArg[UserPath]
    """The policy in question."""
    k: list[int] | None = None
    """Which Pass@k; powers of two unless given. -k 1,8"""
    out: UserPath | None = None
    """Also write the comparison as JSON to this file."""

    def cli_cmd(self) -> None:
        """``leafe compare``."""
        from ..evaluation.compare import compare
        from ..evaluation.results import Result
        from ..phases.console import console

        if self.out is not None:
            check_file(self.out)
        first, second = (Result.load(_result_file(path)) for path in (self.first, self.second))
        comparison = compare(first, second, self.k)
        console.print(comparison.table())
        if self.out is not None:
            comparison.save(self.out)


class Show(Settings):
    """Print a run's trees as text: every action, answer and reflection.

    Example: leafe show runs/first --trees 3
    """

    run: CliPositionalArg[UserPath]
    """A run folder, or one of leafe run: then its rounds are shown."""
    task: str | None = None
    """The task whose tree is printed; the most telling trees unless given."""
    trees: int = Field(default=1, ge=1)
    """How many of the most telling trees: failed, rewound and then solved."""

    def cli_cmd(self) -> None:
        """``leafe show``."""
        from ..phases.console import console
        from ..report.transcript import transcript
        from ..tree.branches import ranked

        if rounds := rounds_in(self.run):
            if saved := saved_rounds(self.run):
                show_rounds(*saved)
            for run in rounds:
                counts = str(run).removeprefix(f"{self.run}/")
                console.print(f"{counts}: leafe show {shlex.quote(str(run.folder))}", highlight=False, soft_wrap=True)
            if self.task is None:
                return
        runs = [run for run in rounds if self.task in run.trees] or rounds[-1:] or [RunFolder(self.run)]
        for run in runs:
            if not run.branches:
                raise ConfigError(
                    f"{run.folder} has no branches to show: give a run folder in which a branch has ended"
                )
            if self.task is not None and self.task not in run.trees:
                has = f"; it has {', '.join([*run.trees][:20]) or 'none'}"
                raise ConfigError(f"{run.folder} has no task {self.task!r}{did_you_mean(self.task, run.trees)}{has}")
            trees = ranked(run)[: self.trees] if self.task is None else [[*run.trees[self.task].values()]]
            for tree in trees:
                console.print(transcript(tree), highlight=False, soft_wrap=True)


class Report(Settings):
    """Write a run's trees and curves as one HTML page.

    Example: leafe report runs/first
    """

    run: CliPositionalArg[UserPath]
    """A run folder, or one of leafe run: then each of its rounds gets a page."""
    trees: int = Field(default=6, ge=1)
    """How many trees are drawn."""

    def cli_cmd(self) -> None:
        """``leafe report``."""
        from ..phases.console import console
        from ..report.page import write_report

        runs = rounds_in(self.run) or [RunFolder(self.run)]
        for run in runs:
            run.require()
            console.print(f"written to {write_report(run, trees=self.trees)}")


class Envs(Settings):
    """List the environments: what is installed, what is missing, and how to install it.

    Example: leafe envs
    """

    def cli_cmd(self) -> None:
        """``leafe envs``."""
        from rich.table import Table

        from ..phases.console import console

        shown = Table("environment", "what it is", "here", title="environments")
        commands = []
        for env in ENVS.values():
            missing = env.missing()
            shown.add_row(env.name, env.about, f"missing: {', '.join(missing)}" if missing else "ready")
            commands += [f"{env.name}: {env.install}"] if missing else []
        console.print(shown)
        for command in commands:
            console.print(command, highlight=False, soft_wrap=True)  # in one piece, to be copied


def _result_file(path: Path) -> Path:
    file = beside(path, ".json") if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected what leafe eval wrote beside its folder")
    return file
