"""What the subcommands do, on top of the functions that anybody can call.

Imported only once a command line has been understood.
"""

import inspect
import os
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table

from .agent.retries import RETRY, TIMEOUT
from .budget import Budget
from .env.protocol import TextEnv
from .env.subprocess_env import SubprocessEnv
from .envs.catalog import WORLDS
from .errors import ConfigError, MissingDependency
from .exploration.explore import explore
from .prompts import Prompts
from .settings import Limits
from .tree.run_folder import RunFolder
from .types import Task

if TYPE_CHECKING:
    from .cli import (
        Choosing,
        Compare,
        Demo,
        Demonstrate,
        Envs,
        Eval,
        Explore,
        Export,
        Playing,
        Prune,
        Report,
        Run,
        Serve,
        Show,
    )
    from .dataset.examples import Summary
    from .evaluation.results import Result
    from .finetune.config import TrainConfig, TrainResult
from .importing import _see_this_folder, attribute
from .models.load import chat_model

MAX_TURNS = 30
"""Longest path, for an environment whose module has no ``HORIZON``."""

console = Console()


def run_explore(config: "Explore") -> RunFolder:
    """``leafe explore``."""
    reflector = config.reflector
    run = _play(
        config,
        strategy=config.strategy,
        limits=Limits(**{field.name: getattr(config, field.name) for field in fields(Limits)}),
        reflector=None if reflector is None else chat_model(reflector),
        reflect_every=config.reflect_every,
        experience_turns=config.experience_turns,
        reflect_max_tokens=config.reflect_max_tokens,
        on_divergence=config.on_divergence,
        prune=config.prune,
        extra={"reflector": reflector},
    )
    ends = Counter(branch["end"] for branch in run.branches)
    solved = {branch["task"]["id"] for branch in run.branches if branch["end"] == "success"}
    _show(
        f"{config.strategy}: {run.folder}",
        [
            ("tasks", len(run.config["settings"]["tasks"])),
            ("solved", len(solved)),
            ("branches", len(run.branches)),
            *((f"  ended by {end}", count) for end, count in ends.most_common()),
            *run.cost.items(),
        ],
    )
    errors = Counter(branch["error"] for branch in run.branches if branch["error"])
    for error, count in errors.most_common(3):
        console.print(f"{count} times: {error}", markup=False)
    return run


def run_demonstrate(config: "Demonstrate") -> None:
    """``leafe demonstrate``."""
    from .dataset.demonstrate import demonstrate
    from .dataset.export import write_jsonl

    expert = getattr(_world(config.env)[1], "expert", None)
    if expert is None:
        raise ConfigError(f"environment {config.env!r} has no expert: its module has no function expert(task)")
    make, tasks = _chosen(config)
    for_expert = {each.name for each in inspect.signature(expert).parameters.values() if each.kind is each.KEYWORD_ONLY}
    rows = demonstrate(
        make,
        tasks,
        partial(expert, **{key: value for key, value in config.env_options.items() if key in for_expert}),
        prompts=_prompts(config.prompts),
        history=config.history,
        mistakes=config.mistakes,
        seed=config.seed,
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(rows, config.out)
    console.print(f"{len(rows)} rows of {len(tasks)} tasks in {config.out}", markup=False)


def run_export(config: "Export") -> "Summary":
    """``leafe export``."""
    from .dataset.export import export

    prompts = RunFolder(config.run).config.get("settings", {}).get("prompts")
    summary = export(
        config.run,
        keep=config.keep,
        skip_invalid=config.skip_invalid,
        diverged=config.diverged,
        out=config.out,
        prompts=_prompts(prompts),
    )
    _show(f"examples: {config.out or config.run / 'examples'}", summary.rows())
    for note in summary.notes:
        console.print(note, markup=False)
    return summary


def run_train(config: "TrainConfig") -> "TrainResult":
    """``leafe train``; of several processes the first one tells."""
    from .finetune.train import train

    result = train(config)
    if not int(os.environ.get("RANK", "0")):
        _show("training", result.summary().items())
    return result


def run_eval(config: "Eval") -> "Result":
    """``leafe eval``."""
    from .evaluation.plots import plot, table
    from .evaluation.results import result_from_run

    limits = Limits(max_branches=config.samples, stop_on_success=False)
    run = _play(config, strategy="independent", limits=limits, label="evaluate")
    name = config.name or (config.adapter.name if config.adapter else config.model)
    result = result_from_run(run, policy=name, n=config.samples)
    file = result.save(_beside(run.folder, ".json"))
    console.print(table([result]))
    try:
        plot([result], _beside(run.folder, ".png"))
    except MissingDependency as error:
        console.print(str(error), markup=False)
    console.print(f"written to {file}, its samples to {run.folder}", markup=False)
    return result


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
    from .serve import VllmServer

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


def environment(
    name: str, *, split: str, n: int | None, start: int = 0, options: dict[str, Any], levels: Path | None = None
) -> tuple[Callable[[], TextEnv], list[Task]]:
    """What makes an environment, and its tasks; each option goes to whichever of the two names it.

    Raises:
        ConfigError: an unknown environment or option, or no task is left.
    """
    make, module = _world(name)
    tasks, load_levels = getattr(module, "tasks", None), getattr(module, "load_levels", None)
    if not callable(tasks):
        raise ConfigError(f"environment {name!r}: its module {module} has no function tasks(split, n, start=…)")
    parameters = inspect.signature(make).parameters.values()
    for_env = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    takes_any = len(for_env) < len(parameters)
    for_tasks = inspect.signature(tasks).parameters.keys() - {"split", "n", "start"}
    if (unknown := sorted(options.keys() - for_env - for_tasks)) and not takes_any:
        raise ConfigError(f"environment {name!r} has no options {unknown}; it has {sorted({*for_env, *for_tasks})}")
    if levels is None:
        found = tasks(split, n or 50, start=start, **{key: options[key] for key in options.keys() & for_tasks})
    elif callable(load_levels):
        found = load_levels(levels)[start:][:n]
    else:
        raise ConfigError(f"environment {name!r} reads no level files: leave levels out")
    if not found:
        raise ConfigError(f"no task is left of {levels or split} after the first {start}")
    kwargs = {key: options[key] for key in options.keys() & for_env | {*unknown}}
    return partial(make, **kwargs), found


def _chosen(config: "Choosing") -> tuple[Callable[[], TextEnv], list[Task]]:
    """`environment` as the flags say."""
    return environment(
        config.env,
        split=config.split,
        n=config.tasks,
        start=config.start,
        options=config.env_options,
        levels=config.levels,
    )


def horizon(name: str) -> int:
    """The longest path in an environment, in turns, unless something else is asked for."""
    turns: int = getattr(_world(name)[1], "HORIZON", MAX_TURNS)
    return turns


def _world(name: str) -> tuple[Any, Any]:
    """The environment's class and its module; ``gymnasium:ID`` is what Gymnasium has under that id."""
    if name.startswith("gymnasium:"):
        from .env import gymnasium_adapter as gymnasium

        _see_this_folder()
        return partial(gymnasium.from_gymnasium, gymnasium.registered(name.removeprefix("gymnasium:"))), gymnasium
    if world := WORLDS.get(name):
        world.require()
    make = attribute(world.env if world else name, "env")
    return make, inspect.getmodule(make)


def _prompts(path: str | None) -> Prompts | None:
    return None if path is None else cast(Prompts, attribute(path, "prompts"))


def _play(config: "Playing", *, extra: dict[str, Any] | None = None, **how: Any) -> RunFolder:
    """`explore` with the settings that exploring and judging share; those it cannot know are saved too."""
    make, tasks = _chosen(config)
    if config.env_timeout is not None:
        make = partial(SubprocessEnv, make, timeout=config.env_timeout)
    adapter = None if config.adapter is None else str(config.adapter)
    limits = [field.name for field in fields(Budget)]
    names = {"model", "adapter", "temperature", "top_p", "env", "env_options", "split", "start", "levels", "prompts"}
    return explore(
        chat_model(config.model, adapter=adapter, temperature=config.temperature, top_p=config.top_p),
        make,
        tasks,
        out=config.out,
        budget=Budget(**{name: getattr(config, name) for name in limits}),
        total_budget=Budget(**{name: getattr(config, f"total_{name}") for name in limits}),
        max_turns=config.max_turns or horizon(config.env),
        history=config.history,
        prompts=_prompts(config.prompts),
        max_tokens=config.max_tokens,
        timeout=config.timeout or TIMEOUT,
        retry=RETRY._replace(max_attempts=config.tries or RETRY.max_attempts),
        concurrency=config.concurrency,
        checkpointer=config.checkpointer,
        seed=config.seed,
        progress=True,
        config=config.model_dump(mode="json", include=names) | (extra or {}),
        **how,
    )


def _beside(folder: Path, suffix: str) -> Path:
    """``eval/base.json`` for the samples in ``eval/base``: where `write_report` looks for it."""
    return folder.with_name(folder.name + suffix)


def _result_file(path: Path) -> Path:
    file = _beside(path, ".json") if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected what leafe eval wrote beside its folder")
    return file


def _show(title: str, rows: Iterable[Sequence[Any]]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in rows:
        table.add_row(str(label), f"{value:,.1f}" if isinstance(value, float) else str(value))
    console.print(table)
