"""Commands that look at what is there."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.table import Table

from ..envs.catalog import ENVS
from ..errors import ConfigError
from ..phases.console import console
from ..phases.evaluate import _beside
from ..settings import Command
from ..tree.run_folder import RunFolder


class Compare(Command):
    """Compare two evaluations on the same tasks, paired."""

    first: CliPositionalArg[Path]
    """The baseline: the JSON that eval wrote, or the folder of its samples."""
    second: CliPositionalArg[Path]
    """The policy in question."""
    k: list[int] | None = None
    """Which Pass@k; powers of two unless given. -k 1,8"""
    out: Path | None = None
    """Also write the comparison as JSON to this file."""


class Show(Command):
    """Print a run's trees as text: every action, answer and reflection."""

    run: CliPositionalArg[Path]
    """A run folder."""
    task: str | None = None
    """The task whose tree is printed; the most telling trees unless given."""
    trees: int = Field(default=1, ge=1)
    """How many of the most telling trees: failed, rewound and then solved."""


class Report(Command):
    """Write a run's trees and curves as one HTML page."""

    run: CliPositionalArg[Path]
    """A run folder."""
    trees: int = Field(default=6, ge=1)
    """How many trees are drawn."""


class Envs(Command):
    """List the environments: what is installed, what is missing, and how to install it."""


def run_compare(config: "Compare") -> None:
    """``leafe compare``."""
    from ..evaluation.compare import compare
    from ..evaluation.results import Result

    first, second = (Result.load(_result_file(path)) for path in (config.first, config.second))
    comparison = compare(first, second, config.k)
    console.print(comparison.table())
    if config.out is not None:
        comparison.save(config.out)


def run_show(config: "Show") -> None:
    """``leafe show``."""
    from ..report.transcript import transcript
    from ..tree.branches import ranked

    run = RunFolder(config.run)
    if not run.branches:
        raise ConfigError(f"{config.run} has no branches to show: give a run folder in which a branch has ended")
    if config.task is not None and config.task not in run.trees:
        raise ConfigError(f"{config.run} has no task {config.task!r}; it has {', '.join([*run.trees][:20]) or 'none'}")
    trees = ranked(run)[: config.trees] if config.task is None else [[*run.trees[config.task].values()]]
    for tree in trees:
        print(transcript(tree))


def run_report(config: "Report") -> None:
    """``leafe report``."""
    from ..report.page import write_report

    if not RunFolder(config.run).config:
        raise ConfigError(f"{config.run} is not a run folder (it has no config.json): give one that explore made")
    console.print(f"written to {write_report(config.run, trees=config.trees)}", markup=False)


def run_envs(config: "Envs") -> None:
    """``leafe envs``."""
    shown = Table("environment", "what it is", "here", title="environments")
    commands = []
    for env in ENVS.values():
        missing = env.missing()
        shown.add_row(env.name, env.about, f"missing: {', '.join(missing)}" if missing else "ready")
        commands += [f"{env.name}: {env.install}"] if missing else []
    console.print(shown)
    print(*commands, sep="\n", end="\n" if commands else "")  # each in one piece, to be copied


def _result_file(path: Path) -> Path:
    file = _beside(path, ".json") if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected what leafe eval wrote beside its folder")
    return file
