"""The ``leafe`` command: one pydantic model a subcommand, its fields are the flags.

Nothing heavy is imported here, so ``leafe --help`` answers at once; `leafe_graph.commands` does the work.
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AliasChoices, Field, FilePath, ValidationError, field_validator
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
from .exploration.strategies import StrategyName
from .finetune.config import TrainConfig
from .settings import Limits
from .types import OnDivergence

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
from .settings import Command


class Choosing(Command):
    """Which tasks of which environment."""

    env: str = "sokoban"
    """The environment: a name that `leafe envs` lists, "MODULE:ATTRIBUTE" (a class of yours; its module has
    tasks(split, n, start=…)), or "gymnasium:ID" (an environment of text that is registered there)."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    """The environment's options, as JSON or as KEY=VALUE: size=6,boxes=1,min_moves=3,max_moves=10."""
    split: Literal["train", "validation", "test"] = "train"
    """Which tasks; the splits share none."""
    tasks: int | None = Field(default=None, ge=1)
    """How many of them; 50 unless given, or all of --levels."""
    start: int = Field(default=0, ge=0)
    """Where in the split, or in --levels, to begin: 0 is at the start. Starts far apart give other tasks."""
    levels: FilePath | None = None
    """Play the levels of this file instead of generated ones."""

    @field_validator("env_options")
    @classmethod
    def _json_values(cls, options: dict[str, Any]) -> dict[str, Any]:
        """KEY=VALUE arrives as text: what reads as JSON becomes its value."""

        def value(text: Any) -> Any:
            try:
                return json.loads(text) if isinstance(text, str) else text
            except ValueError:
                return text

        return {key: value(text) for key, text in options.items()}


class Playing(Choosing):
    """Which tasks a policy plays, how, and what it may spend; shared by explore and eval."""

    model: str
    """The policy: "local:smollm2-135m" (embedded), "local:FOLDER", "vllm:NAME@http://HOST:PORT/v1" (several servers of
    the same model: URL,URL), "openai:NAME", whatever LangChain's init_chat_model knows, or "python:MODULE:ATTRIBUTE" (a
    chat model or what makes one)."""
    out: Path
    """The run folder. Giving the same command again resumes it."""

    adapter: Path | None = None
    """LoRA adapter on a local model."""
    temperature: float | None = None
    """Sampling temperature of the policy; the model's own default unless given."""
    top_p: float | None = None
    """Sample from the most probable tokens that make up this much."""
    max_turns: int | None = Field(default=None, ge=1)
    """Longest path, in decisions; unless given, the environment's HORIZON, which is the literature's."""
    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given, 0 is none."""
    max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of an action."""
    prompts: str | None = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object; "leafe_graph.demo:PROMPTS" are those of the warm start."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds that a model call may take before it is tried again; 600 unless given."""
    tries: int | None = Field(default=None, ge=1)
    """How often a call that meets a rate limit, a failing server or no answer is tried; 7 unless given."""
    env_timeout: float | None = Field(default=None, gt=0)
    """Play each environment in a process of its own, and end it if a call takes longer than so many seconds."""
    concurrency: int = Field(default=32, ge=1)
    """Tasks played at once."""
    checkpointer: str | None = None
    """PostgreSQL database for the decision points, postgresql://USER@HOST/DATABASE; unless given, SQLite in --out."""
    seed: int = 0
    """Root of all sampling seeds."""

    env_steps: int | None = Field(default=None, ge=0)
    """Budget of each task: environment steps."""
    replayed_steps: int | None = Field(default=None, ge=0)
    """Budget of each task: steps replayed to rewind an environment without snapshots."""
    model_calls: int | None = Field(default=None, ge=0)
    """Budget of each task: model calls, the reflector's too."""
    prompt_tokens: int | None = Field(default=None, ge=0)
    """Budget of each task: prompt tokens."""
    completion_tokens: int | None = Field(default=None, ge=0)
    """Budget of each task: new tokens."""
    reflections: int | None = Field(default=None, ge=0)
    """Budget of each task: reflections."""
    total_env_steps: int | None = Field(default=None, ge=0)
    """Budget of the whole run: environment steps. Which task meets a run's limit first depends on timing."""
    total_replayed_steps: int | None = Field(default=None, ge=0)
    """Budget of the whole run: replayed steps."""
    total_model_calls: int | None = Field(default=None, ge=0)
    """Budget of the whole run: model calls."""
    total_prompt_tokens: int | None = Field(default=None, ge=0)
    """Budget of the whole run: prompt tokens."""
    total_completion_tokens: int | None = Field(default=None, ge=0)
    """Budget of the whole run: new tokens."""
    total_reflections: int | None = Field(default=None, ge=0)
    """Budget of the whole run: reflections."""


class Explore(Playing):
    """Play tasks, reflect, rewind, branch: grow an experience tree for every task."""

    strategy: StrategyName = "leafe"
    """"leafe": rewind and branch. "independent": fresh samples. "refine": restart with the reflection in the prompt."""
    reflector: str | None = None
    """Another model for the reflections; the policy itself unless given."""
    reflect_every: int | None = Field(default=None, ge=1)
    """Reflect after every so many turns as well as on failure."""
    experience_turns: int | None = Field(default=None, ge=1)
    """Turns of a branch whose prompts show its experience; all unless given."""
    reflect_max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of a reflection."""
    on_divergence: OnDivergence = "end"
    """When a replay shows something else than was recorded: "end" the branch, "raise" and stop the run, or "accept": go
    on and mark the branch, which export then leaves out unless asked."""
    max_branches: int = Field(default=Limits.max_branches, ge=1)
    """Branches a task, roots included."""
    max_depth: int = Field(default=Limits.max_depth, ge=0)
    """Rewinds between a root and a leaf."""
    branches_per_reflection: int = Field(default=Limits.branches_per_reflection, ge=1)
    """Branches forked from one decision point for one reflection."""
    max_roots: int | None = Field(default=Limits.max_roots, ge=1)
    """Rollouts from the start; as many as the other limits allow unless given."""
    stop_on_success: bool = Limits.stop_on_success
    """End a task's tree with its first success."""
    prune: bool = False
    """Drop a tree's checkpoints when it is finished."""


class Demonstrate(Choosing):
    """Let an environment's expert play, and write what it does as training rows for a warm start."""

    out: Path
    """The JSONL file to write."""
    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given, 0 is none."""
    prompts: str | None = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object: those that the policy will be run with."""
    mistakes: int = Field(default=1, ge=0)
    """Attempts with a mistake a task: each gives a reflection, and a turn that follows it."""
    seed: int = 0
    """Decides the mistakes."""


class Prune(Command):
    """Drop the checkpoints that no later branch of a run can start from, and shrink their file."""

    run: CliPositionalArg[Path]
    """A run folder."""
    checkpoints: FilePath | None = None
    """The SQLite file of its checkpoints; RUN/checkpoints.sqlite unless given."""


class Export(Command):
    """Turn a run's trees into training rows: JSONL, Parquet and a dataset card."""

    run: CliPositionalArg[Path]
    """A run folder."""
    keep: Literal["success", "improved"] = "success"
    """Which branchings count: those whose branch succeeded, or those with a higher return than their parent."""
    skip_invalid: bool = False
    """Make no row of an action that the environment said was not understood or had no effect."""
    diverged: bool = False
    """Also make rows of branches that were played on after a replay that showed something else than was recorded."""
    out: Path | None = None
    """Folder to write to; RUN/examples unless given."""


class Eval(Playing):
    """Judge a policy: fresh samples without reflection or rewind; Pass@k with intervals to OUT.json and OUT.png."""

    split: Literal["train", "validation", "test"] = "test"
    """Which tasks; the splits share none."""
    samples: int = Field(default=8, ge=1, validation_alias=AliasChoices("n", "samples"))
    """Samples a task."""
    name: str | None = None
    """What tables and plots call the policy; the adapter's folder or the model unless given."""


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
