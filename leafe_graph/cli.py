"""The ``leafe`` command: one pydantic model a subcommand, its fields are the flags.

Nothing heavy is imported here, so ``leafe --help`` answers at once; `leafe_graph.commands` does the work.
"""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, FilePath, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from .errors import LeafeError
from .finetune.config import TrainConfig

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
from .phases.config import Demonstrate, Eval, Explore, Export
from .settings import Command


class Prune(Command):
    """Drop the checkpoints that no later branch of a run can start from, and shrink their file."""

    run: CliPositionalArg[Path]
    """A run folder."""
    checkpoints: FilePath | None = None
    """The SQLite file of its checkpoints; RUN/checkpoints.sqlite unless given."""


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


class Serve(Command):
    """Serve a model, and adapters on it, by a vLLM server on this machine until Ctrl-C."""

    model: str
    """The base model: "local:smollm2-135m" (embedded), "local:FOLDER", a Hugging Face folder, or a hub name."""
    adapter: Path | None = None
    """LoRA adapter to serve: on a GPU beside the base, on a CPU merged into it."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where to listen on 127.0.0.1; a free port unless given. A run can be resumed with the same address only."""
    python: Path | None = None
    """Interpreter of the environment with vLLM; this one if it has vllm, else LEAFE_VLLM_PYTHON."""
    merge: bool | None = None
    """Merge the adapter into the weights; on a CPU only, unless given."""
    max_lora_rank: int = Field(default=32, ge=1, le=512)
    """Highest rank of an adapter."""
    folder: Path | None = None
    """Where the server's log and merged weights go; a temporary folder unless given."""
    start_timeout: float = Field(default=600.0, gt=0)
    """Seconds until it must be healthy."""
    drain_timeout: float = Field(default=60.0, ge=0)
    """Seconds that requests in flight are given at the end."""
    vllm_args: str = ""
    """More of vLLM's own arguments: --vllm-args='--tensor-parallel-size 4'."""


class Envs(Command):
    """List the environments: what is installed, what is missing, and how to install it."""


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


class Demo(Command):
    """The whole loop on this machine: explore, export, train, evaluate, compare."""

    out: Path | None = None
    """Where everything goes; runs/demo-SIZE-SEED unless given."""
    seed: int = 0
    """Root of all random numbers."""
    size: Literal["small", "full"] = Field(default=os.environ.get("LEAFE_DEMO", "full"), validate_default=True)
    """"small" takes a few minutes; "full" unless given here or in the variable LEAFE_DEMO."""


class Leafe(BaseSettings):
    """LangGraph agents that learn from their own mistakes: explore, rewind, reflect, export, distil, evaluate."""

    model_config = SettingsConfigDict(
        cli_prog_name="leafe",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        use_attribute_docstrings=True,
    )

    explore: CliSubCommand[Explore]
    """Grow an experience tree for every task."""
    demonstrate: CliSubCommand[Demonstrate]
    """Write an expert's play as rows for a warm start."""
    export: CliSubCommand[Export]
    """Turn a run's trees into training rows."""
    train: CliSubCommand[TrainConfig]
    """Train a LoRA adapter on the rows."""
    eval: CliSubCommand[Eval]
    """Judge a policy by Pass@k."""
    compare: CliSubCommand[Compare]
    """Compare two evaluations, paired."""
    show: CliSubCommand[Show]
    """Print trees as text."""
    serve: CliSubCommand[Serve]
    """Serve a model and its adapters with vLLM."""
    report: CliSubCommand[Report]
    """Show a run's trees and curves as an HTML page."""
    prune: CliSubCommand[Prune]
    """Drop checkpoints that a run no longer needs."""
    envs: CliSubCommand[Envs]
    """List the environments and what they need."""
    run: CliSubCommand[Run]
    """Run whole rounds of explore, export, train and eval, as a YAML file says."""
    demo: CliSubCommand[Demo]
    """Run the whole loop with the embedded model."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags only: an environment variable that happens to be called "demo" is none of ours."""
        return (sources["init_settings"],)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the process's exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("leafe_graph").setLevel(logging.INFO)
    try:
        parsed = CliApp.run(Leafe, cli_args=args or ["--help"])
    except ValidationError as error:
        return _complain(*map(_bad_flag, error.errors()))
    except SettingsError as error:
        return _complain(str(error))
    command = get_subcommand(parsed)
    name = next(name for name in Leafe.model_fields if getattr(parsed, name) is command)
    try:
        import_module("leafe_graph.commands").COMMANDS[name](command)
    except KeyboardInterrupt:
        print(f"\ninterrupted; to go on where it was: leafe {shlex.join(args)}", file=sys.stderr)
        return 130
    except (LeafeError, ExceptionGroup) as error:
        causes = list(_causes(error))
        if os.environ.get("LEAFE_DEBUG") or not all(isinstance(cause, LeafeError) for cause in causes):
            raise
        return _complain(*map(str, causes))
    return 0


def _complain(*lines: str) -> int:
    for line in dict.fromkeys(lines):
        print(f"leafe: {line}", file=sys.stderr)
    return 2


def _bad_flag(error: "ErrorDetails") -> str:
    """A pydantic error in the words of the command line."""
    _, *where = error["loc"]
    flag = f"--{where[0]}".replace("_", "-") + ": " if where else ""
    if error["type"] == "missing":
        return f"{flag}it is required"
    message = error["msg"].removeprefix("Value error, ")
    return flag + message + (f", got {error['input']!r}" if where else "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What concurrent tasks raised, one by one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error
