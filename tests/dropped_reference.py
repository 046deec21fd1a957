"""What test_cluster_driver.py runs: ``dropped_reference.py OUT ADDRESS``, where a reference is dropped as Ray ends."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import ray
from clusters import World, play
from ray._private.worker import global_worker

from leafe_graph.exploration import actors
from leafe_graph.settings import Workers


class SlowCore:
    """Ray's core, whose end takes a moment more, in which the event loop is to drop a reference."""

    def __init__(self, core: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._core, self._loop, self._held = core, loop, [ray.put("held by the event loop")]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def shutdown_driver(self) -> None:
        self._core.shutdown_driver()
        self._loop.call_soon_threadsafe(self._drop)
        time.sleep(0.2)

    def _drop(self) -> None:
        print("dropped", flush=True)
        self._held.clear()


async def leave() -> None:
    """As it is, with a slow core."""
    global_worker.core_worker = SlowCore(global_worker.core_worker, asyncio.get_running_loop())
    await ended()


if __name__ == "__main__":
    out, address = sys.argv[1:]
    ended, actors._leave = actors._leave, leave
    play(Path(out), World, 2, workers=Workers(1, address=address, cpus=0.1))
    print("went on", flush=True)
