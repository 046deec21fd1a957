"""What workers on Ray bring and cost on this machine: ``python benchmarks/cluster.py [TASKS] [ROUNDS]``.

The same trees of short branches are grown in this process and by one and two workers, taking turns. Told are, medians
of the rounds: branches and turns a second between the first branch and the last one, so that starting Ray and the
workers does not count; the driver's processor time a branch; and how long a call of a worker and its answer take. The
policy is a script and the world a grid, so this is what the machinery costs by itself.
"""

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from worlds import wandering_reply

from leafe_graph import Limits, Workers, explore
from leafe_graph.exploration.actors import _connect, ready, started
from leafe_graph.exploration.kit import Kit
from leafe_graph.testing import ScriptedModel, SnapshotGridWorld, grid_tasks

MODEL = partial(ScriptedModel, reply=wandering_reply)
WORLD = partial(SnapshotGridWorld, size=6, pits=6)


def grown(tasks: int, workers: int) -> dict[str, float]:
    """One run's figures."""
    marks: list[tuple[float, float, int]] = []

    def watch(log: Path) -> None:
        known = 0
        while not over.is_set():
            now = log.read_bytes().count(b"\n") if log.exists() else 0
            if now > known:
                marks.append((time.perf_counter(), time.process_time(), now))
                known = now
            time.sleep(0.05)

    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        watcher = threading.Thread(target=watch, args=(Path(folder, "run/branches.jsonl"),), daemon=True)
        watcher.start()
        run = explore(
            MODEL if workers else MODEL(),
            WORLD,
            grid_tasks(tasks),
            out=Path(folder, "run"),
            limits=Limits(max_branches=6, max_depth=3, branches_per_reflection=2),
            max_turns=8,
            reflect_every=4,
            workers=Workers(workers, cpus=0.5) if workers else None,
        )
        over.set()
        watcher.join()
        (begun, cpu, first), (ended, cpu_ended, last) = marks[0], marks[-1]
        turns = sum(outline.turns for outline in run.outlines) / len(run.outlines)
    rate = (last - first) / (ended - begun)
    return {"branches/s": rate, "turns/s": rate * turns, "driver ms/branch": 1e3 * (cpu_ended - cpu) / (last - first)}


async def round_trip(calls: int = 200) -> float:
    """Milliseconds of a call of an actor that does nothing else."""
    kit = Kit(
        **{name: None for name in ("reflector", "retry", "checkpointer")},
        **dict(model=MODEL, env=WORLD, durability="async", interval=1.0),
        **_defaults(),
    )
    async with started(Workers(1, cpus=0.5), kit.packed(), concurrency=1, tasks=1) as actors:
        await ready(actors.started[0], check=False)
        begun = time.perf_counter()
        for _ in range(calls):
            await actors.started[0].give_back.remote()
        return 1e3 * (time.perf_counter() - begun) / calls


def _defaults() -> dict[str, Any]:
    from leafe_graph import Budget, Prompts
    from leafe_graph.settings import Play
    from leafe_graph.strategies import STRATEGIES

    return {
        "prompts": Prompts(),
        "play": Play(),
        "strategy": STRATEGIES.of("leafe"),
        "limits": Limits(),
        "budget": Budget(),
        "total_budget": Budget(),
    }


def main(tasks: int = 150, rounds: int = 3) -> None:
    """Print the table."""
    _connect(Workers(2, cpus=0.5), 2)
    found: dict[int, list[dict[str, float]]] = {0: [], 1: [], 2: []}
    for _ in range(rounds):
        for workers, figures in found.items():
            figures.append(grown(tasks, workers))
    names = [*found[0][0]]
    print(f"| workers | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for workers, figures in found.items():
        medians = [statistics.median(each[name] for each in figures) for name in names]
        print(f"| {workers or 'none, this process'} | {' | '.join(f'{median:.3g}' for median in medians)} |")
    print(f"a call of a worker and its answer: {asyncio.run(round_trip()):.2f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
