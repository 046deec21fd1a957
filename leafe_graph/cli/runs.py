"""Commands on whole runs."""

from pathlib import Path
from typing import Any

from pydantic import Field, FilePath
from pydantic_settings import CliPositionalArg

from ..settings import Settings


class Prune(Settings):
    """Drop the checkpoints that no later branch of a run can start from, and shrink their file."""

    run: CliPositionalArg[Path]
    """A run folder."""
    checkpoints: FilePath | None = None
    """The SQLite file of its checkpoints; RUN/checkpoints.sqlite unless given."""

    def cli_cmd(self) -> None:
        """``leafe prune``."""
        from ..exploration.pruning import prune
        from ..phases.console import show

        show(f"checkpoints: {self.run}", vars(prune(self.run, checkpoints=self.checkpoints)).items())


class Run(Settings):
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

    def cli_cmd(self) -> None:
        """``leafe run``."""
        from ..phases.console import console
        from ..rounds.yaml_file import read_config

        flags = {"rounds": self.rounds, "out": self.out}
        settings = read_config(self.config, self.set | {name: value for name, value in flags.items() if value})
        if self.dry_run:
            from ..rounds.dry_run import plan

            for table in plan(settings):
                console.print(table)
            return
        from ..rounds.loop import run

        run(settings)
