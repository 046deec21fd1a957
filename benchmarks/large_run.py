"""A run of very many branches: what it takes to open, judge, report, prune, resume and export it.

    python benchmarks/large_run.py --branches 20000

Synthetic branches, written as `explore` writes them, each phase in a process of its own.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from leafe_graph.budget import no_cost
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.tree.run_settings import RunSettings
from leafe_graph.types import FORMAT_VERSION, Branch, Turn

TREE = 5
"""Branches a task; in trees the last one succeeds."""
BATCH = 64
"""Branches that are written at once."""
_drawn = random.Random(0)
WORDS = " ".join(f"{a}{_drawn.randrange(1000)}" for a in "ba do ki lu me no ra ti".split() * 5000)
"""What texts are cut from."""


def main() -> None:
    """Make the runs, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--history", type=int, default=4, help="earlier turns in a row's prompt")
    parser.add_argument("--phases", nargs="*", choices=PHASES, default=[*PHASES])
    parser.add_argument("--out", type=Path, help="keep the runs there; unless given, in a folder that is deleted")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="large-run-"))
    try:
        print(f"{given.branches:,} branches of {given.turns} turns, {TREE} a task\n")
        print("| | seconds | CPU s | peak MiB | |\n|---|---:|---:|---:|---|", flush=True)
        for name in given.phases:
            kind = "samples" if name == "evaluate" else "trees"
            if not (out / kind).exists():
                _show(f"write {kind}", *_apart(write, out / kind, given.branches, given.turns, given.history))
            _show(name, *_apart(PHASES[name], out / kind))
    finally:
        if given.out is None:
            shutil.rmtree(out)


def _show(name: str, seconds: float, cpu: float, peak: float, told: str) -> None:
    print(f"| {name} | {seconds:,.1f} | {cpu:,.1f} | {peak:,.0f} | {told} |", flush=True)


def _apart(work: Callable[..., str], *arguments: Any) -> tuple[float, float, float, str]:
    """Seconds, processor seconds and peak memory of a new process that does this, and what it says."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    told: tuple[float, float, float, str] = ours.recv()
    process.join()
    return told


def _measured(pipe: Any, work: Callable[..., str], arguments: tuple[Any, ...]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    told = work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 2**10)
    pipe.send((time.perf_counter() - wall, time.process_time() - cpu, peak, told))


def write(folder: Path, branches: int, turns: int, history: int | None) -> str:
    """A run of so many branches, of trees in a folder of that name; how large it is."""
    kind, tasks = folder.name, branches // TREE
    settings = RunSettings(
        strategy="leafe" if kind == "trees" else "independent",
        history=history,
        tasks=[f"task-{number:07}" for number in range(tasks)],
    )
    os.fsync = lambda file: None  # type: ignore[assignment]  # what the disk takes is not measured
    with RunFolder(folder).open(settings.saved()) as run:
        batch: list[Branch] = []
        for number in range(tasks):
            for branch in _tree(number, turns, forks=kind == "trees"):
                batch.append(branch)
            if len(batch) >= BATCH or number == tasks - 1:
                for outline in run.write(batch):
                    run.add(outline)
                batch = []
    return f"{_size(folder):,.0f} MB"


def _tree(number: int, turns: int, *, forks: bool) -> Iterator[Branch]:
    """The branches of a task: a root and its forks, each the child of the one before; or all of them roots."""
    drawn = random.Random(number)

    def text(characters: int) -> str:
        start = drawn.randrange(len(WORDS) - characters)
        return WORDS[start : start + characters]

    task = {"id": f"task-{number:07}", "instruction": text(100)}
    for name in range(TREE):
        parent, start = (str(name - 1), drawn.randrange(1, turns - 1)) if forks and name else (None, 0)
        wins = name == TREE - 1
        yield Branch(
            version=FORMAT_VERSION,
            id=str(name),
            task=task,  # type: ignore[typeddict-item]
            parent=parent,
            depth=name if forks else 0,
            decision_point=start,
            experience=text(80) if parent else None,
            turns=[_turn(text) for _ in range(turns)],
            reflection=None,
            reflections=[],
            end="success" if wins else "failure",
            error=None,
            divergence=None,
            return_=float(wins),
            cost={**no_cost(), "env_steps": turns, "model_calls": turns, "prompt_tokens": 200 * turns, "seconds": 1.5},  # type: ignore[typeddict-item]
            thread_id=f"{task['id']}/{name}/{drawn.getrandbits(32):08x}",
        )


def _turn(text: Callable[[int], str]) -> Turn:
    action = text(30)
    return Turn(
        observation=text(200),
        action=action,
        message={"content": f"{text(60)}\n{action}"},
        feedback=text(30),
        reward=0.0,
        terminated=False,
        truncated=False,
        valid=True,
        checkpoint_id=text(36),
        env_state=None,
    )


def _open(folder: Path) -> str:
    return str(RunFolder(folder)).removeprefix(f"{folder}: ")


def _evaluate(folder: Path) -> str:
    from leafe_graph.evaluation.results import result_from_run

    return str(result_from_run(RunFolder(folder), policy="policy", n=TREE))


def _curve(folder: Path) -> str:
    from leafe_graph.evaluation.stage1 import curve

    found = curve(RunFolder(folder), "run")
    return f"{len(found.solved):,} solved"


def _report(folder: Path) -> str:
    from leafe_graph.report.page import write_report

    return f"{write_report(RunFolder(folder)).stat().st_size:,} bytes"


def _prune(folder: Path) -> str:
    from leafe_graph.exploration.pruning import prune

    (folder / "checkpoints.sqlite").unlink(missing_ok=True)
    from leafe_graph.checkpoint.sqlite import TreeSaver

    TreeSaver(folder / "checkpoints.sqlite").close()
    return f"{prune(folder).finished:,} trees finished"


def _wanted(folder: Path) -> str:
    """What a resumed run asks first: whether any tree still wants a branch."""
    from leafe_graph.budget import Budget
    from leafe_graph.exploration.grow import wants_play
    from leafe_graph.settings import Limits
    from leafe_graph.strategies import STRATEGIES

    run = RunFolder(folder)
    limits: Any = {"limits": Limits(), "budget": Budget(), "total_budget": Budget()}
    return str(wants_play(run.settings.tasks, run.trees, run.costs, strategy=STRATEGIES.of("leafe"), **limits))


def _export(folder: Path) -> str:
    """With the paper's share of rehearsal."""
    from leafe_graph.dataset.export import export

    summary = export(RunFolder(folder), rehearsal_share=0.2, shard_bytes=2**28)
    rows = summary.counterfactual + summary.rehearsal
    return f"{rows:,} rows, {_size(folder / 'examples'):,.0f} MB in {len(summary.files)} files"


def _size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


PHASES: dict[str, Callable[[Path], str]] = {
    "open": _open,
    "evaluate": _evaluate,
    "curve": _curve,
    "report": _report,
    "prune": _prune,
    "resume": _wanted,
    "export": _export,
}

if __name__ == "__main__":
    main()
