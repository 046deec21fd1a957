"""Commands that look at what is there."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from ..envs.catalog import ENVS
from ..errors import ConfigError, MissingDependency
from ..files import UserPath, beside, check_file, path_of, save_text
from ..settings import Settings
from ..text import did_you_mean
from ..tree.run_folder import RunFolder
from .runs import rounds_in, saved_rounds, show_rounds

if TYPE_CHECKING:
    from ..evaluation.panel import Panel
    from ..evaluation.results import Result

DRAWN = (".png", ".svg", ".pdf")
"""Suffixes of pictures."""


class Compare(Settings):
    """Compare evaluations on the same tasks, paired: two policies, or many methods trained from several seeds.

    Example: leafe compare base=runs/0/eval/base leafe=runs/{0,1,2}/eval/adapted -k 1,8 --out table.md
    """

    results: CliPositionalArg[list[str]]
    """What eval wrote: the JSON, or the folder of its samples. The first is the baseline. NAME=RESULT calls it so, and
    all of one name are the training seeds of a method: write leafe=0/eval/new leafe=1/eval/new, or what your shell
    makes of leafe={0,1}/eval/new."""
    k: list[int] | None = None
    """Which Pass@k. Unless given, powers of two for two results, else 1, 8, 32, 128 and all samples. -k 1,8"""
    baseline: list[str] | None = None
    """Hold the others against these names instead of the first; several after commas."""
    floor: UserPath | None = None
    """How a random policy did on the same tasks: what eval --model random wrote."""
    out: UserPath | None = None
    """Also write it to this file: a table to .md, curves to .png, .svg and .pdf, all figures as JSON to any other."""

    def cli_cmd(self) -> None:
        """``leafe compare``."""
        from ..evaluation.compare import compare
        from ..phases.console import console

        if self.out is not None:
            check_file(self.out)
        kind = self.out.suffix.lower() if self.out is not None else ""
        found = [_result(text) for text in self.results]
        if len(found) < 2:
            raise ConfigError(f"there is nothing to compare {self.results[0]} with; expected two results or more")
        told = self.baseline or self.floor or any(name for name, _ in found) or kind in (".md", *DRAWN)
        if len(found) == 2 and not told:
            comparison = compare(found[0][1], found[1][1], self.k)
            console.print(comparison.table())
            if self.out is not None:
                comparison.save(self.out)
            return
        bare = [result.policy for name, result in found if name is None]
        if twice := [name for name, times in Counter(bare).items() if times > 1]:
            raise ConfigError(
                f"several results are called {twice[0]!r}; give each as NAME=RESULT, with one NAME for the "
                "training seeds of a method"
            )
        panel = self._panel([(name or result.policy, result) for name, result in found])
        console.print(*panel.tables())
        if self.out is None:
            return
        if kind == ".md":
            save_text(self.out, panel.markdown())
        elif kind in DRAWN:
            panel.plot(self.out)
        else:
            panel.save(self.out)

    def _panel(self, named: "list[tuple[str, Result]]") -> "Panel":
        from ..evaluation.panel import Entry, panel
        from ..evaluation.results import Result

        count = Counter(name for name, _ in named)
        number = {name: iter(range(times)) for name, times in count.items()}
        return panel(
            [
                Entry(method=name, seed=next(number[name]) if count[name] > 1 else None, result=result)
                for name, result in named
            ],
            baseline=self.baseline or [named[0][0]],
            ks=self.k,
            floor=None if self.floor is None else Result.load(_result_file(self.floor)),
        )


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
            if not run.outlines:
                raise ConfigError(
                    f"{run.folder} has no branches to show: give a run folder in which a branch has ended"
                )
            if self.task is not None and self.task not in run.trees:
                has = f"; it has {', '.join([*run.trees][:20]) or 'none'}"
                raise ConfigError(f"{run.folder} has no task {self.task!r}{did_you_mean(self.task, run.trees)}{has}")
            trees = ranked(run, self.trees) if self.task is None else [[*run.trees[self.task].values()]]
            for tree in trees:
                console.print(transcript(tree), highlight=False, soft_wrap=True)


class Report(Settings):
    """Write a run as one HTML page that needs nothing else: its trees to walk, curves, costs and settings.

    Example: leafe report runs/first
    """

    run: CliPositionalArg[UserPath]
    """A run folder; one of leafe run, which gets a page with its rounds side by side and one for each of them; or one
    of leafe bench, which gets a page with its methods side by side."""
    trees: int = Field(default=2000, ge=1)
    """How many trees are in it: the most telling ones, failed, rewound and then solved, come first."""

    def cli_cmd(self) -> None:
        """``leafe report``."""
        from ..phases.console import console
        from ..report.page import write_overview, write_report
        from ..report.wholes import is_bench, rows_of_rounds

        rounds = rounds_in(self.run)
        if rounds or is_bench(self.run):
            console.print(f"written to {write_overview(self.run)}", soft_wrap=True)
        for run in rounds or [RunFolder(self.run)] * (not is_bench(self.run)):
            run.require()
            rows = rows_of_rounds(self.run) if rounds else None
            console.print(f"written to {write_report(run, trees=self.trees, rows=rows)}", soft_wrap=True)


class View(Settings):
    """Serve a run to a browser on this machine, and follow it while it is played; or walk its trees in the terminal.

    Example: leafe view runs/first
    """

    run: CliPositionalArg[UserPath]
    """A run folder, or one of leafe run or leafe bench; the run may still be going on."""
    port: int = Field(default=0, ge=0, le=65535)
    """Where on 127.0.0.1 it listens; a free port unless given."""
    tui: bool = False
    """Walk the trees of a run folder in this terminal instead; it needs the extra "tui"."""

    def cli_cmd(self) -> None:
        """``leafe view``."""
        from contextlib import suppress

        from ..phases.console import console
        from ..report.viewing import Viewer

        if self.tui:
            self._walk()
            return

        with Viewer(self.run, self.port) as viewer, suppress(KeyboardInterrupt):
            console.print(f"open {viewer.address} in a browser on this machine; Ctrl-C ends it", soft_wrap=True)
            viewer.serve_forever()

    def _walk(self) -> None:
        import sys

        try:
            from ..report.walking import Walk
        except ImportError as error:
            raise MissingDependency(extra="tui", needed_for="Walking trees in a terminal") from error
        run = RunFolder(self.run)
        run.require()
        if not sys.stdout.isatty():
            raise ConfigError("--tui wants a terminal, and the output goes elsewhere: leafe show prints trees")
        Walk(run).run()


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


def _result(text: str) -> "tuple[str | None, Result]":
    """A result, and what it is called: NAME=RESULT, or RESULT alone."""
    from ..evaluation.results import Result

    name, named, path = text.partition("=")
    if named and "/" not in name and not path_of(text).exists():
        return name, Result.load(_result_file(path_of(path)))
    return None, Result.load(_result_file(path_of(text)))


def _result_file(path: Path) -> Path:
    file = beside(path, ".json") if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected what leafe eval wrote beside its folder")
    return file
