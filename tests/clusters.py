"""Ray clusters of one machine that listen on 127.0.0.1 alone, and what a wandering policy grows there."""

import contextlib
import ipaddress
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import runs
from worlds import lasting, wandering_reply

from leafe_graph.exploration.explore import explore
from leafe_graph.settings import Limits, Workers
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

NODE: dict[str, Any] = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 80 * 2**20}


class Short(ScriptedModel):
    """A policy that says how long its answers may be, so that tokens can be limited."""

    max_tokens: int = 20


World = partial(GridWorld, size=6, pits=6)
"""Large enough that most walks are lost; rewinding it means replaying."""
SnapshotWorld = partial(SnapshotGridWorld, size=6, pits=6)
"""The same, with snapshots."""


WANDERING = partial(Short, reply=wandering_reply)
"""Makes the policy, here or in a worker."""


class PoisonWorld(GridWorld):
    """The first of these whose task kills the process that plays it."""

    def __init__(self) -> None:
        super().__init__(size=6, pits=6)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        if seed == grid_tasks(24)[5].get("seed"):
            os._exit(7)
        return super().reset(seed=seed, options=options)


def talkative() -> ScriptedModel:
    """A policy that says a lot."""
    return ScriptedModel(reply=[f"{word} {word * 50_000}" for word in ("up ", "left ")])


def down() -> ScriptedModel:
    """A policy whose server is gone."""
    return ScriptedModel(reply=_nobody)


def _nobody(messages: Any, seed: int | None) -> str:
    raise ValueError("nobody is there")


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """A cluster with one node, which this process has not joined."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from leafe_graph.exploration.actors import _loopback

    with _loopback():
        made = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            yield made
        finally:
            made.shutdown()


def at(cluster: Any, number: int, **settings: Any) -> Workers:
    """So many workers there, which share its CPUs."""
    return Workers(number, address=cluster.address, cpus=0.1, **settings)


def play(out: Path, world: Callable[[], Any], tasks: int = 24, **given: Any) -> RunFolder:
    """Grow the trees; with ``workers`` in as many processes."""
    model = given.pop("model", None) or partial(WANDERING, delay=given.pop("delay", 0.0))
    return explore(
        model if given.get("workers") else model(),
        world,
        grid_tasks(tasks),
        out=out,
        limits=Limits(max_branches=5, max_depth=3, branches_per_reflection=2, max_roots=2),
        **{"max_turns": 6, "reflect_every": 3, "concurrency": 6, "seed": 7} | given,
    )


def forest(run: RunFolder) -> dict[tuple[str, str], dict[str, Any]]:
    """Every branch by task and id, but for its times and what LangGraph calls it."""
    return {(branch["task"]["id"], branch["id"]): lasting(branch) for branch in run.branches}


def growers() -> list[int]:
    """The process ids of the workers that are alive, of clusters that this process has started."""
    found = []
    for pid in family(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Grower") and runs(pid):
                found.append(pid)
    return found


def gone(what: Callable[[], Sequence[Any]], seconds: float = 30.0) -> bool:
    """Whether nothing of it is left, some time from now at the latest."""
    end = time.monotonic() + seconds
    while what() and time.monotonic() < end:
        time.sleep(0.05)
    return not what()


class Killer(threading.Thread):
    """Kills a worker, drawn by a seed, whenever so many more branches are in a log."""

    def __init__(self, log: Path, *, kills: int, every: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.log, self.kills, self.every, self.draw = log, kills, every, random.Random(seed)
        self.killed: list[int] = []

    def run(self) -> None:
        while len(self.killed) < self.kills:
            time.sleep(0.01)
            logged = self.log.read_bytes().count(b"\n") if self.log.exists() else 0
            alive = growers()
            if logged >= self.every * (len(self.killed) + 1) and alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim := self.draw.choice(sorted(alive)), signal.SIGKILL)
                    self.killed.append(victim)


def family(pid: int) -> list[int]:
    """A process and all that it has started, and they."""
    found, parents = [pid], {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def listening(processes: Sequence[int]) -> set[str]:
    """The addresses at which processes wait for connections."""
    sockets: set[str] = set()
    for pid in processes:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(file))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address, port = local.split(":")
                raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
                host = ipaddress.ip_address(raw)
                mapped = getattr(host, "ipv4_mapped", None)
                found.add(f"{mapped or host}:{int(port, 16)}")
    return found
