"""The simulation of a cluster, held against real runs: trees grown on Ray on this machine, and the same, simulated.

    python benchmarks/simulated_and_real.py

A scripted policy wanders about in a small world, and answers after some time or at once. Compared are the branches a
second of all but the first and the last tenth, as Ray and the workers' imports take their time at the beginning. What
the simulation is told of the real run: the model calls of each branch, what an answer takes, and the processor time of
the workers and the driver. It gives every process a core of its own, so where answers come at once a machine with fewer
cores than processes is slower.
"""

import argparse
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from langchain_core.messages import BaseMessage
from simulate_cluster import BUILT, Costs, Result, simulate

from leafe_graph import Limits, explore
from leafe_graph.settings import Workers
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks

SLOTS = 16
"""Tasks at once of a worker."""


def wander(messages: list[BaseMessage], seed: int | None) -> str:
    """Walks about at random, and finds the mistake at random."""
    drawn = random.Random(f"{seed} {messages[-1].text}")
    word = drawn.choice(["up", "down", "left", "right"])
    steps = len(re.findall(r"^\d+\. ", messages[-1].text, re.MULTILINE))
    return f'{{"step": {drawn.randint(1, steps)}, "experience": "not {word}"}}' if steps else word


class Watch(threading.Thread):
    """Notes when branches are logged, and what processor time the driver and the workers have had by then."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self._log, self.done = log, threading.Event()
        self.seen: list[tuple[float, float, float]] = []

    def run(self) -> None:
        """Until it is done."""
        while not self.done.wait(0.02):
            logged = self._log.read_bytes().count(b"\n") if self._log.exists() else 0
            if logged > len(self.seen):
                workers = max([_workers(), *(each[-1] for each in self.seen[-1:])])  # not after they have ended
                self.seen += [(time.monotonic(), time.process_time(), workers)] * (logged - len(self.seen))


def _workers() -> float:
    """Processor seconds of this run's workers, which are its raylet's children."""

    def stat(process: object) -> list[str]:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()

    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "cmdline").read_bytes().startswith(b"ray::Grower"):
                _, parent, *rest = stat(place.name)
                total += sum(map(int, rest[9:11])) if stat(parent)[1] == str(os.getpid()) else 0
    return total / os.sysconf("SC_CLK_TCK")


def middle(seen: Sequence[tuple[float, ...]]) -> list[float]:
    """How much each of what was noted grew a branch, from the first tenth to the last."""
    first, last = len(seen) // 10, len(seen) - 1 - len(seen) // 10
    return [(end - start) / (last - first) for start, end in zip(seen[first], seen[last], strict=True)]


def both(workers: int, tasks: int, delay: float) -> str:
    """A line of the table."""
    from simulated_and_real import wander  # by its name, as workers import it

    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder) / "branches.jsonl")
        watch.start()
        run = explore(
            partial(ScriptedModel, reply=wander, delay=delay),
            partial(GridWorld, size=6, pits=6),
            grid_tasks(tasks),
            out=folder,
            limits=Limits(max_branches=5, max_depth=3),
            max_turns=8,
            concurrency=SLOTS * workers,
            workers=Workers(workers, cpus=0.5),
        )
        watch.done.set()
        watch.join()
        trees = [[branch["cost"]["model_calls"] for branch in tree.values()] for tree in run.trees.values()]
    calls, branches = sum(map(sum, trees)), sum(map(len, trees))
    seconds, driver, own = middle(watch.seen)
    costs = Costs(
        tokens=delay or 1e-9,
        rate=10.0**6,
        slots=10**6,  # each answers after its delay, however many are asked
        spread=0.0,
        superstep_a_branch=own * branches / calls,
        call=0.0,
        batched_branch=driver,
    )
    result: Result = simulate(BUILT, 1, costs, workers=workers, tasks=SLOTS * workers, trees=trees)
    (simulated,) = middle([(when,) for when in result.ended])
    per_call, per_branch = costs.superstep_a_branch * 1e3, costs.batched_branch * 1e3
    return (
        f"| {workers} | {delay:g} | {branches:,} | {per_call:.2f} | {per_branch:.2f} "
        f"| {1 / seconds:.1f} | {1 / simulated:.1f} | {seconds / simulated - 1:+.0%} |"
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--delays", type=float, nargs="*", default=[1.0, 0.0])
    parser.add_argument("--tasks", type=int, default=96)
    given = parser.parse_args()
    print("| workers | answers after, s | branches | a worker's CPU ms a call | the driver's a branch ", end="")
    print("| branches/s, real | simulated | off |\n" + "|---:" * 8 + "|", flush=True)
    for delay in given.delays:
        for workers in given.workers:
            print(both(workers, given.tasks, delay), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
