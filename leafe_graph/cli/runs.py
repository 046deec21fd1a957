"""Commands on whole runs."""

from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import Field, FilePath
from pydantic_settings import CliPositionalArg

from ..phases.console import _show, console
from ..settings import Command


class Prune(Command):
    """Drop the checkpoints that no later branch of a run can start from, and shrink their file."""

    run: CliPositionalArg[Path]
    """A run folder."""
    checkpoints: FilePath | None = None
    """The SQLite file of its checkpoints; RUN/checkpoints.sqlite unless given."""


class Run(Command):
    """Explore, export, train and judge, round after round, as a YAML file says; the same command again goes on."""

    config: CliPositionalArg[FilePath]
    """The YAML file; docs/rounds.md tells its fields, examples/recipes/ has some."""
    rounds: int | None = Field(default=None, ge=1)
    """How many rounds, instead of what the file says; more than before go on from there."""
    out: Path | None = None
    """The folder, instead of what the file says; runs/NAME-OF-THE-FILE unless either does."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Other values for fields of the file: --set explore.max_branches=4,train.beta=2"""
    dry_run: bool = False
    """Only print the plan: rows, tokens, memory and time, estimated without loading a model."""


def run_prune(config: "Prune") -> None:
    """``leafe prune``."""
    from ..exploration.pruning import prune

    _show(f"checkpoints: {config.run}", vars(prune(config.run, checkpoints=config.checkpoints)).items())


def run_rounds(config: "Run") -> None:
    """``leafe run``."""
    from ..rounds.yaml_file import read_config

    flags = {"rounds": config.rounds, "out": config.out}
    settings = read_config(config.config, config.set | {name: value for name, value in flags.items() if value})
    if config.dry_run:
        from ..rounds.dry_run import plan

        for table in plan(settings):
            console.print(table)
        return
    import_module("leafe_graph.rounds.loop").run(settings)
