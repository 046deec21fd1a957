"""``leafe demo``: the whole loop on one machine, with the embedded model and Sokoban.

Explore training levels with the warm-started policy, export the corrections, distil them into the adapter, and judge
the policy before and after on held-out levels. Every phase is an ordinary command's function with its result in the
demo's folder, so a demo that was stopped goes on where it was.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from ..budget import Budget
from ..dataset.export import export
from ..envs import sokoban
from ..envs.sokoban.warm_start import LEVELS, PROMPTS, WARM_START, environment
from ..evaluation.compare import compare
from ..evaluation.plots import plot, table
from ..evaluation.results import Result, result_from_run
from ..exploration.explore import explore
from ..finetune.config import TrainConfig
from ..models.load import load_model
from ..report.page import write_report
from ..settings import Command, Limits
from ..tree.run_folder import RunFolder
from ..types import Task

MODEL = "local:smollm2-135m"
MAX_TURNS = 9


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    levels: int
    """Training levels explored."""
    env_steps: int
    """Budget of each, in moves."""
    held_out: int
    """Test levels for the judgement."""
    samples: int
    """Episodes per test level and policy."""
    epochs: float
    """Passes over the exported rows."""


SIZES = {
    "full": Size(levels=200, env_steps=22, held_out=50, samples=8, epochs=2),
    "small": Size(levels=8, env_steps=24, held_out=6, samples=2, epochs=1),
}


def main(config: "Demo") -> None:
    """Run all phases and print what came of them."""
    console, size = Console(), SIZES[config.size]
    out = config.out or Path(f"runs/demo-{config.size}-{config.seed}")
    costs: list[tuple[str, float, dict[str, Any]]] = []

    def phase(title: str, work: Callable[[], Any]) -> Any:
        console.rule(title, align="left")
        started = time.monotonic()
        result = work()
        cost = dict(result.cost) if isinstance(result, RunFolder) else {}
        costs.append((title, time.monotonic() - started, cost))
        return result

    phase("1 get the embedded model", lambda: load_model(MODEL))
    run = phase("2 explore training levels", lambda: _explore(out / "run", size, config.seed))
    summary = phase("3 export the corrections", lambda: export(run.folder, skip_invalid=True, prompts=PROMPTS))
    console.print(str(summary), markup=False)
    trained = phase("4 distil them into the adapter", lambda: _train(run.folder, size, config.seed))
    results: list[Result] = []
    for title, name, adapter in (
        ("5 judge the policy as it was", "base", WARM_START),
        ("6 judge the adapted policy", "adapted", trained.adapter),
    ):
        samples = phase(title, lambda: _samples(run.folder / "eval" / name, adapter, size, config.seed))  # noqa: B023
        results.append(result_from_run(samples, policy=name, n=size.samples))
        results[-1].save(samples.folder.with_name(f"{name}.json"))
    comparison = compare(results[0], results[1])
    comparison.save(run.folder / "eval" / "comparison.json")
    plot(results, run.folder / "eval" / "pass_at_k.png")
    write_report(run.folder)
    console.rule("what it cost", align="left")
    console.print(_cost_table(costs))
    console.rule("held-out levels, no reflection, no rewind", align="left")
    console.print(table(results))
    console.print(comparison.table())
    seconds = sum(spent for _, spent, _ in costs)
    (out / "demo.json").write_text(
        json.dumps(
            {
                "seed": config.seed,
                "size": config.size,
                "seconds": {title: round(spent, 1) for title, spent, _ in costs},
                "rows": dict(summary.rows()),
                "comparison": comparison.model_dump(),
            },
            indent=2,
        )
        + "\n"
    )
    console.print(f"{seconds:.0f} seconds in all. In {run.folder}:")
    for file, what in (
        ("branches.jsonl", "every branch of every tree"),
        ("examples/", "the training rows, with their card"),
        ("adapter/", "the adapter (PEFT), with its loss curve and metrics"),
        ("eval/", "all samples, Pass@k as JSON and as a plot, the comparison"),
        ("report.html", "trees and tables to look at"),
    ):
        console.print(f"  {file:18} {what}", markup=False, highlight=False)


def policy(adapter: Path) -> Any:
    """The embedded model with an adapter merged into it."""
    return load_model(MODEL, adapter=str(adapter))


def play(model: Any, tasks: Sequence[Task], out: Path, **settings: Any) -> RunFolder:
    """Explore with the demo's prompts and bounds: what all its phases and the benchmarks have in common."""
    settings = {"max_turns": MAX_TURNS, "reflect_max_tokens": 40, "experience_turns": 1} | settings
    return explore(model, environment, tasks, out=out, prompts=PROMPTS, history=0, max_tokens=1, **settings)


def _explore(folder: Path, size: Size, seed: int) -> RunFolder:
    return play(
        policy(WARM_START),
        sokoban.tasks("train", size.levels, start=size.levels * 10 * seed, **LEVELS),
        folder,
        limits=Limits(max_branches=3, max_depth=2),
        budget=Budget(env_steps=size.env_steps),
        concurrency=128,
        seed=seed,
        progress=True,
    )


def _train(folder: Path, size: Size, seed: int) -> Any:
    from ..finetune.train import train

    return train(
        TrainConfig(
            model=MODEL,
            adapter=WARM_START,
            data=[folder / "examples" / "examples.jsonl"],
            out=folder / "adapter",
            epochs=size.epochs,
            beta=10.0,
            learning_rate=8e-4,
            batch_size=16,
            micro_batch_size=16,
            seed=seed,
        )
    )


def _samples(folder: Path, adapter: Path, size: Size, seed: int) -> RunFolder:
    return play(
        policy(adapter),
        sokoban.tasks("test", size.held_out, **LEVELS),
        folder,
        strategy="independent",
        limits=Limits(max_branches=size.samples, stop_on_success=False),
        concurrency=128,
        seed=1000 + seed,
        progress=True,
        label=f"evaluate {folder.name}",
    )


def _cost_table(costs: list[tuple[str, float, dict[str, Any]]]) -> Table:
    columns = ("env_steps", "model_calls", "prompt_tokens", "completion_tokens", "reflections")
    shown = Table()
    for title in ("phase", "seconds", *columns):
        shown.add_column(title.replace("_", " "), justify="left" if title == "phase" else "right")
    for title, seconds, cost in costs:
        shown.add_row(title, f"{seconds:.0f}", *(f"{cost[c]:,}" if c in cost else "" for c in columns))
    return shown


class Demo(Command):
    """The whole loop on this machine: explore, export, train, evaluate, compare."""

    out: Path | None = None
    """Where everything goes; runs/demo-SIZE-SEED unless given."""
    seed: int = 0
    """Root of all random numbers."""
    size: Literal["small", "full"] = Field(default=os.environ.get("LEAFE_DEMO", "full"), validate_default=True)
    """"small" takes a few minutes; "full" unless given here or in the variable LEAFE_DEMO."""


def run_demo(config: "Demo") -> None:
    """``leafe demo``."""
    import_module("leafe_graph.cli.demo").main(config)
