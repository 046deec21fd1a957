"""What the subcommands do, on top of the functions that anybody can call.

Imported only once a command line has been understood.
"""

import shlex
import signal
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .envs.catalog import WORLDS
from .errors import ConfigError
from .tree.run_folder import RunFolder

if TYPE_CHECKING:
    from .cli import Compare, Demo, Envs, Prune, Report, Run, Serve, Show
from .phases.console import _show, console
from .phases.evaluate import _beside, run_eval
from .phases.explore import run_explore
from .phases.learn import run_demonstrate, run_export, run_train


def run_compare(config: "Compare") -> None:
    """``leafe compare``."""
    from .evaluation.compare import compare
    from .evaluation.results import Result

    first, second = (Result.load(_result_file(path)) for path in (config.first, config.second))
    comparison = compare(first, second, config.k)
    console.print(comparison.table())
    if config.out is not None:
        comparison.save(config.out)


def run_show(config: "Show") -> None:
    """``leafe show``."""
    from .report.transcript import transcript
    from .tree.branches import ranked

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
    from .report.page import write_report

    if not RunFolder(config.run).config:
        raise ConfigError(f"{config.run} is not a run folder (it has no config.json): give one that explore made")
    console.print(f"written to {write_report(config.run, trees=config.trees)}", markup=False)


def run_serve(config: "Serve") -> None:
    """``leafe serve``: until Ctrl-C or SIGTERM, which end it in the same way."""
    from .serve.server import VllmServer

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = VllmServer(
        config.model,
        adapter=config.adapter,
        python=config.python,
        port=config.port,
        merge=config.merge,
        max_lora_rank=config.max_lora_rank,
        arguments=shlex.split(config.vllm_args),
        folder=config.folder,
        start_timeout=config.start_timeout,
        drain_timeout=config.drain_timeout,
    )
    console.print("starting vLLM: half a minute for a small model", markup=False)
    with suppress(KeyboardInterrupt), server:
        for name in server.models():
            console.print(f"serving {server.spec(name)}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"as in: leafe explore --model {shlex.quote(server.spec())} …", markup=False, soft_wrap=True)
        console.print(f"log: {server.log}; Ctrl-C ends it", markup=False, highlight=False, soft_wrap=True)
        server.wait()


def run_prune(config: "Prune") -> None:
    """``leafe prune``."""
    from .exploration.pruning import prune

    _show(f"checkpoints: {config.run}", vars(prune(config.run, checkpoints=config.checkpoints)).items())


def run_envs(config: "Envs") -> None:
    """``leafe envs``."""
    shown = Table("environment", "what it is", "here", title="environments")
    commands = []
    for world in WORLDS.values():
        missing = world.missing()
        shown.add_row(world.name, world.about, f"missing: {', '.join(missing)}" if missing else "ready")
        commands += [f"{world.name}: {world.install}"] if missing else []
    console.print(shown)
    print(*commands, sep="\n", end="\n" if commands else "")  # each in one piece, to be copied


def run_rounds(config: "Run") -> None:
    """``leafe run``."""
    from .rounds_config import read_config

    flags = {"rounds": config.rounds, "out": config.out}
    settings = read_config(config.config, config.set | {name: value for name, value in flags.items() if value})
    if config.dry_run:
        from .plan import plan

        for table in plan(settings):
            console.print(table)
        return
    import_module("leafe_graph.rounds").run(settings)


def run_demo(config: "Demo") -> None:
    """``leafe demo``."""
    import_module("leafe_graph.demo").main(config)


COMMANDS: dict[str, Callable[[Any], object]] = {
    "explore": run_explore,
    "demonstrate": run_demonstrate,
    "export": run_export,
    "train": run_train,
    "eval": run_eval,
    "compare": run_compare,
    "show": run_show,
    "serve": run_serve,
    "report": run_report,
    "prune": run_prune,
    "envs": run_envs,
    "run": run_rounds,
    "demo": run_demo,
}


def _result_file(path: Path) -> Path:
    file = _beside(path, ".json") if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected what leafe eval wrote beside its folder")
    return file
