"""The worlds of a user's turn: taken for it, kept at its points, brought back, and left."""

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config

from ..env.worlds import World, occupy, vacate
from ..errors import ConfigError, WorldLost
from .points import Pending, Point, Progress

log = logging.getLogger(__name__)

PROCESS = uuid.uuid4().hex
"""This process, which snapshots that are not durable die with."""
_HERE: dict[str, int] = {}
"""By turn, the decision that this process has come to, with whichever agent: a server makes one anew for every run."""


class TurnWorlds:
    """All methods but `arrived` and `is_here` wait for disks.

    Args:
        given: the worlds, or a function of the runtime that gives them, which is asked once a turn.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self._held: dict[str, list[World]] = {}
        self._resuming = threading.Lock()

    def take(self, progress: Progress, runtime: Any) -> list[World]:
        """This turn's worlds, taken for it.

        Raises:
            WorldBusy: another episode has one of them.
        """
        run = progress["run"]
        if (worlds := self._held.get(run)) is None:
            worlds = list(self._given(runtime) if callable(self._given) else self._given)
        for world in worlds:
            occupy(world, _owner(run), _where())
        return self._held.setdefault(run, worlds)

    def snapshot(self, progress: Progress, runtime: Any) -> tuple[list[str], str]:
        """A snapshot of each, and the process that they die with; empty where they are durable."""
        worlds = self.take(progress, runtime)
        return [world.snapshot() for world in worlds], PROCESS if any(not world.durable for world in worlds) else ""

    def restore(self, progress: Progress, runtime: Any, point: Point | Pending) -> None:
        """Bring back what was there at a point.

        Raises:
            WorldLost: a snapshot is gone.
            ConfigError: there are other worlds than there were.
        """
        refuse_lost(point)
        worlds, refs = self.take(progress, runtime), point["refs"]
        if len(worlds) != len(refs):
            raise ConfigError(f"worlds= gives {len(worlds)} worlds, and at decision {point['t']} gave {len(refs)}")
        for world, ref in zip(worlds, refs, strict=True):
            world.restore(ref)

    def forget(self, progress: Progress, runtime: Any, points: Sequence[Point], but: Sequence[Point] = ()) -> None:
        """Let go of points' snapshots, unless another point has the same."""
        held = {pair for point in but for pair in enumerate(point["refs"])}
        if left := {pair for point in points for pair in enumerate(point["refs"])} - held:
            worlds = self.take(progress, runtime)
            for place, ref in sorted(left):
                if place < len(worlds):
                    worlds[place].forget(ref)

    def resume(self, progress: Progress, runtime: Any) -> None:
        """Bring back the worlds of a decision whose process died in its tools, before they are called again.

        Once, and not where a tool that ran beside has come to its end: it is not called again.
        """
        with self._resuming:
            point = progress["points"][-1] if progress["points"] else None
            if self.is_here(progress) or point is None or point["t"] != progress["next"] - 1:
                return
            if _others_done(get_config()["configurable"]):
                log.warning("a process died beside a tool that had come to its end: the world is left as it is")
            else:
                self.restore(progress, runtime, point)
            self.arrived(progress)

    def arrived(self, progress: Progress) -> None:
        """This process has come to the next decision."""
        _HERE[progress["run"]] = progress["next"]

    def is_here(self, progress: Progress) -> bool:
        """Whether it was this process that came to the latest decision."""
        return _HERE.get(progress["run"]) == progress["next"]

    def end(self, progress: Progress, runtime: Any, points: Sequence[Point]) -> None:
        """Nobody goes on with the turn: let go of its points, and give the worlds back."""
        self.forget(progress, runtime, points)
        self.leave(progress)

    def leave(self, progress: Progress, *, over: bool = True) -> None:
        """Give the worlds back; ``over`` says that nobody goes on with the turn."""
        run = progress["run"]
        for world in self._held.get(run, ()):
            vacate(world, _owner(run))
        if over:
            self._held.pop(run, None)
            _HERE.pop(run, None)


def refuse_lost(point: Point | Pending) -> None:
    """Refuse to go back to a point whose snapshots are gone.

    Raises:
        WorldLost: they died with another process.
    """
    if point["process"] not in ("", PROCESS):
        raise WorldLost(
            f"decision {point['t']}'s snapshot died with its process: give worlds that are durable, or invoke the "
            "agent anew"
        )


def _owner(run: str) -> str:
    """Who has the worlds: the thread, whose next run goes on; without one this run."""
    return str(get_config()["configurable"].get("thread_id") or run)


def _where() -> list[tuple[str, str]]:
    """Where in the run this agent is, see `occupy`."""
    config = get_config()["configurable"]
    steps, found = config.get("checkpoint_map") or {}, list[tuple[str, str]]()
    parts = str(config.get("checkpoint_ns") or "").split("|")[:-1]
    for place, part in enumerate(parts):
        if part.isdigit() and found:  # a node's second call of a graph, and so on
            found[-1] = (found[-1][0], f"{found[-1][1]}|{part}")
        else:
            found.append((str(steps.get("|".join(parts[:place]))), part))
    return found


def _others_done(config: Mapping[str, Any]) -> bool:
    """Whether another task of this superstep has already written what it came to."""
    saver, here = config.get("__pregel_checkpointer"), config.get("checkpoint_map") or {}
    around = str(config.get("checkpoint_ns") or "").rpartition("|")[0]
    if not isinstance(saver, BaseCheckpointSaver) or around not in here:
        return False
    at = {"thread_id": config["thread_id"], "checkpoint_ns": around, "checkpoint_id": here[around]}
    found = saver.get_tuple({"configurable": at})
    writes = (found.pending_writes or []) if found is not None else []
    return any(channel == "messages" for _, channel, _ in writes)
