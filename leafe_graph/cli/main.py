"""The ``leafe`` command: one pydantic model a subcommand; its fields are the flags, its ``cli_cmd`` does the work.

Nothing heavy is imported here or beside the commands' fields, so ``leafe --help`` answers at once.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from ..errors import LeafeError
from ..terminal import streams
from ..text import did_you_mean
from .bench import Bench
from .demo import Demo
from .flags import Flags, model_of, spelt, told
from .look import Compare, Envs, Report, Show, View
from .phases import Demonstrate, Eval, Explore, Export, Train
from .runs import Compact, Prune, Run, Trace
from .serve import Serve

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


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
    train: CliSubCommand[Train]
    """Train a LoRA adapter, or all weights, on the rows."""
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
    view: CliSubCommand[View]
    """Serve a run to a browser on this machine, and follow it."""
    trace: CliSubCommand[Trace]
    """Send a run's trees to an OpenTelemetry collector."""
    prune: CliSubCommand[Prune]
    """Drop checkpoints that a run no longer needs."""
    compact: CliSubCommand[Compact]
    """Make Parquet of a large run's log."""
    envs: CliSubCommand[Envs]
    """List the environments and what they need."""
    run: CliSubCommand[Run]
    """Run whole rounds of explore, export, train and eval, as a YAML file says."""
    bench: CliSubCommand[Bench]
    """Compare methods, each learned with several seeds and judged on the same tasks, as a YAML file says."""
    demo: CliSubCommand[Demo]
    """Run the whole loop, with what plain sampling brings beside it."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags only: an environment variable that happens to be called "demo" is none of ours."""
        return (sources["init_settings"],)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the process's exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    streams.ready()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    finally:
        unwritten = streams.flush()
    return _complain(f"what was to be shown cannot be written: {unwritten.strerror}") if unwritten else code


def _run(args: list[str]) -> int:
    streams.log_to_people()
    try:
        parsed = CliApp.run(Leafe, cli_args=args or ["--help"], cli_settings_source=Flags(Leafe))
    except ValidationError as error:
        return _complain(*(_bad_flag(each) for each in error.errors()))
    except SettingsError as error:
        return _complain(told(Leafe, args, str(error)))
    command: Any = get_subcommand(parsed)
    try:
        command.cli_cmd()
    except KeyboardInterrupt:
        streams.say(f"\ninterrupted; to go on where it was: leafe {shlex.join(args)}")
        return 130
    except (LeafeError, OSError, ExceptionGroup) as error:
        causes = [_words(cause) for cause in _causes(error)]
        if os.environ.get("LEAFE_DEBUG") or None in causes:
            raise
        return _complain(*filter(None, causes))
    return 0


def _complain(*lines: str) -> int:
    for line in dict.fromkeys(lines):
        streams.say(f"leafe: {line}")
    return 2


def _bad_flag(error: "ErrorDetails") -> str:
    """A pydantic error in the words of the command line."""
    command, *where = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    flag = f"{spelt(model_of(Leafe, str(command)), str(where[0]))}: " if where else ""
    if error["type"] == "missing":
        return f"{flag}it is required; leafe {command} --help lists all"
    if error["type"] == "extra_forbidden":  # argparse refuses flags: it stands in a file
        near = did_you_mean(str(where[-1]), model_of(Leafe, str(command)).model_fields)
        return f"{command} has no setting {where[-1]!r}{near}"
    if flag and not flag.startswith("-"):  # it is told by its place
        return f"{error['input']}: {message}"
    choices = re.findall("'([^']*)'", error["ctx"]["expected"]) if error["type"] == "literal_error" else []
    near = did_you_mean(str(error["input"]), choices)
    return flag + message + (f", got {error['input']!r}{near}" if where else "")


def _words(error: BaseException) -> str | None:
    """What is told of an error that the user can put right; None for others, whose traceback helps more."""
    if isinstance(error, LeafeError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:  # a file that cannot be read or written
        return f"{error.filename}: {error.strerror}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What concurrent tasks raised, one by one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error
