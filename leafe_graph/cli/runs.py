"""Commands on whole runs."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import CliPositionalArg, NoDecode

from ..errors import ConfigError, LeafeError
from ..files import FileOrAddress, UserFile, UserPath
from ..parsing import key_values
from ..redaction import without_passwords
from ..settings import Settings
from ..tree.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table


class Prune(Settings):
    """Drop the checkpoints that no later branch of a run can start from, and shrink their file.

    A run that was explored with its decision points in memory, as by default, has none.

    Example: leafe prune runs/first
    """

    run: CliPositionalArg[UserPath]
    """A run folder."""
    checkpoints: FileOrAddress | None = None
    """The SQLite file of its checkpoints, or the address of the database, as it was explored with;
    RUN/checkpoints.sqlite unless given."""

    def cli_cmd(self) -> None:
        """``leafe prune``."""
        from ..exploration.pruning import prune
        from ..phases.console import show

        show(f"checkpoints: {self.run}", vars(prune(self.run, checkpoints=self.checkpoints)).items())


class Compact(Settings):
    """Make Parquet of what a large run's log has in closed files: a sixth of the size, for DuckDB and datasets too.

    Example: leafe compact runs/large
    """

    run: CliPositionalArg[UserPath]
    """A run folder."""

    def cli_cmd(self) -> None:
        """``leafe compact``."""
        from ..phases.console import console

        run = RunFolder(self.run)
        run.require()
        files, refused = run.compact()
        for line in refused:
            console.print(line)
        rest = "the last one still grows" if files else "a log of one file has none that is closed, or all are"
        console.print(f"{files} files of the log are Parquet now; {rest}")


class Trace(Settings):
    """Send a run's trees as traces to an OpenTelemetry collector; what was sent there before is not sent again.

    Example: leafe trace runs/first --to http://127.0.0.1:4318
    """

    run: CliPositionalArg[UserPath]
    """A run folder, or one of leafe run: then all its rounds."""
    to: str
    """The collector, http://HOST:PORT; /v1/traces is put behind it. Headers are OTEL_EXPORTER_OTLP_HEADERS."""

    def cli_cmd(self) -> None:
        """``leafe trace``."""
        from ..phases.console import console
        from ..tracing import trace

        for run in rounds_in(self.run) or [RunFolder(self.run)]:
            run.require()
            console.print(
                f"{run.folder}: {trace(run, self.to)} branches sent to {without_passwords(self.to)}", soft_wrap=True
            )


class Run(Settings):
    """Explore, export, train and judge, round after round, as a YAML file says; the same command again goes on.

    Example: leafe run examples/recipes/cpu-sokoban.yaml --dry-run
    """

    config: CliPositionalArg[UserFile]
    """The YAML file; docs/rounds.md tells its fields, examples/recipes/ has some."""
    rounds: int | None = Field(default=None, ge=1)
    """How many rounds, instead of what the file says; more than before go on from there."""
    out: UserPath | None = None
    """The folder, instead of what the file says; runs/NAME-OF-THE-FILE unless either does."""
    set: Annotated[dict[str, Any], NoDecode, BeforeValidator(key_values)] = Field(default_factory=dict)
    """Other values for fields of the file: --set explore.max_branches=4,train.beta=2"""
    trace_to: str | None = None
    """Send every tree that is finished as a trace to this OpenTelemetry collector, instead of what the file says."""
    dry_run: bool = False
    """Only print the plan: rows, tokens, memory and time, estimated without loading a model; and what is not there of
    what the file names."""

    def cli_cmd(self) -> None:
        """``leafe run``."""
        from ..phases.console import console
        from ..rounds.yaml_file import read_config

        flags = {"rounds": self.rounds, "out": self.out, "trace_to": self.trace_to}
        settings = read_config(self.config, self.set | {name: value for name, value in flags.items() if value})
        if self.dry_run:
            from ..rounds.absent import absent
            from ..rounds.dry_run import plan

            lacking = list(absent(settings))
            with suppress(*[LeafeError] * bool(lacking)):  # no plan of what is not there
                for table in plan(settings):
                    console.print(table)
            if lacking:
                raise ConfigError("\n".join(lacking))
            return
        from ..rounds.loop import run

        show_rounds(run(settings), settings.model)


def show_rounds(told: dict[str, Any], model: str) -> None:
    """Print what a run of rounds came to: what ``rounds.json`` says, and the name of the model that it began with."""
    from ..phases.console import console

    console.print(_table(told))
    for entry in told["rounds"]:
        if entry.get("warning"):
            console.print(entry["warning"])
    stopped = told["stopped"] or "Not all rounds are played"
    console.print(f"{stopped}. Best: round {told['best']}, {told['adapter'] or told.get('model', model)}")


def rounds_in(folder: Path) -> list[RunFolder]:
    """The runs that ``leafe run`` made in this folder, by number; none in one that it did not make."""
    if not (folder / "run.json").is_file():
        return []
    numbers = (path.parent.name.removeprefix("round-") for path in folder.glob("round-*/config.json"))
    return [RunFolder(folder / f"round-{number}") for number in sorted(map(int, filter(str.isdigit, numbers)))]


def saved_rounds(folder: Path) -> tuple[dict[str, Any], str] | None:
    """What the rounds in this folder have come to so far, and the base model's name; None while nothing is judged."""
    if not (folder / "rounds.json").is_file():
        return None
    told, settings = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("rounds.json", "run.json"))
    return told, str(settings.get("model"))


def _table(told: dict[str, Any]) -> "Table":
    """The rounds for the terminal."""
    from rich.table import Table

    from ..evaluation.results import Estimate
    from ..evaluation.statistics import ALIKE

    shown = Table(title="held-out Pass@k in % [95% interval], no reflection, no rewind")
    heads = ["round", *(f"Pass@{e['k']}" for e in told["rounds"][0]["pass_at_k"]), "gain", "rows", "env steps", "s"]
    for head in heads:
        shown.add_column(head, justify="right")
    for entry in told["rounds"]:
        rows = entry.get("export", {})
        shown.add_row(
            str(entry["round"]),
            *(str(Estimate(**e)) for e in entry["pass_at_k"]),
            f"{100 * entry['gain']['difference']:+.1f}" if entry["gain"] else "",
            f"{rows['counterfactual']}+{rows['rehearsal']}" if rows else "",
            f"{sum(cost['env_steps'] for cost in entry['spent'].values()):,}",
            f"{sum(entry['seconds'].values()):.0f}",
        )
    if any(e.get("alike") for entry in told["rounds"] for e in entry["pass_at_k"]):
        shown.caption = ALIKE
    return shown
