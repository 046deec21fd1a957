"""A pool of live instances, and exact rewinding.

An environment's *state* is data: a snapshot where it can give one, else the actions that led there. A live instance is
only a cache of that. `EnvPool` hands out an instance that stands where it is wanted, restoring or replaying if it must;
every replayed observation is compared with the recorded one.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, EnvError, ReplayDivergence
from ..types import Task, Turn
from .answers import start_of, step_of
from .protocol import TextEnv, has_snapshots
from .questions import without_questions


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an episode stands: after ``turns`` of ``task``, with ``observation`` in sight."""

    task: Task
    turns: Sequence[Turn]
    observation: str
    env_state: bytes | None = None
    """The snapshot of this place, where the environment gives one."""
    owner: str = ""
    """Whose episode it is, such as a branch's id. An instance that another one left here is not taken for it, so that
    what must be replayed does not depend on timing."""


class EnvPool:
    """Live environments, leased by where they stand.

    ``make`` builds an instance. At most ``size`` instances live at a time: past that, a lease takes over the instance
    that was idle for longest, or waits for one. A lease is exclusive; thread-safe.
    """

    def __init__(self, make: Callable[[], TextEnv], *, size: int = 64) -> None:
        if not callable(make):
            raise ConfigError(
                f"env is {type(make).__name__!r}, an instance; expected something that makes one, such as the class or "
                "`lambda: MyEnv(…)`: rewinding and concurrent episodes need several instances"
            )
        if size < 1:
            raise ConfigError(f"a pool of {size} environments could never lease one; expected size >= 1")
        self.make = make
        self.size = size
        self._idle: list[tuple[Place | None, TextEnv]] = []
        self._live = 0
        self._changed = threading.Condition()
        self._closed = False
        # An agent's pool is closed by nobody: its idle instances are closed with it, at the latest at exit.
        weakref.finalize(self, _close_all, self._idle)

    def reset(self, task: Task) -> tuple[TextEnv, str, dict[str, Any]]:
        """A leased instance at the task's start, its first observation and info."""
        env, _ = self._take(None)
        try:
            return env, *start_of(env.reset(seed=task.get("seed"), options=task.get("options")))
        except BaseException:
            self.discard(env)
            raise

    def lease(
        self,
        place: Place,
        *,
        before_replay: Callable[[int], None] = lambda steps: None,
        diverged: Callable[[ReplayDivergence], None] | None = None,
    ) -> TextEnv:
        """An instance that stands at ``place``.

        An idle one that stands there costs nothing. Otherwise an instance is reset and ``env_state`` restored or,
        without a snapshot, the turns' actions are replayed, once ``before_replay`` was called with their number. Where
        the environment can give snapshots, and a kill took the one of this place, the replay costs nothing and it is
        not called: what is spent does not depend on kills.

        Raises:
            ReplayDivergence: a replayed observation is not the recorded one. With ``diverged`` that is called with each
                such error instead; if it does not raise, the replay goes on.
        """
        env, stands_there = self._take(place)
        if stands_there:
            return env
        try:
            without_questions(lambda: self._bring(env, place, before_replay, diverged))
        except BaseException:
            self.discard(env)
            raise
        return env

    def _bring(
        self,
        env: TextEnv,
        place: Place,
        before_replay: Callable[[int], None],
        diverged: Callable[[ReplayDivergence], None] | None,
    ) -> None:
        """Make an instance stand at ``place``; see `lease`."""
        task, turns = place.task, place.turns
        seen = [*(turn["observation"] for turn in turns), place.observation]
        actual, _ = start_of(env.reset(seed=task.get("seed"), options=task.get("options")))
        if place.env_state is not None and has_snapshots(env):
            env.restore(place.env_state)
            return
        _compare(task, 0, seen[0], actual, diverged)
        if turns and not has_snapshots(env):
            before_replay(len(turns))
        for t, turn in enumerate(turns):
            actual = step_of(env.step(turn["action"])).observation
            _compare(task, t + 1, seen[t + 1], actual, diverged)

    def put_back(self, env: TextEnv, place: Place | None = None) -> None:
        """Return a leased instance that stands at ``place``; None: nobody goes on from there."""
        with self._changed:
            if not self._closed:
                self._idle.append((place, env))
                self._changed.notify()
                return
        self.discard(env)

    def release(self, place: Place) -> None:
        """Say that nobody goes on from ``place``: an idle instance there is the next to be taken over."""
        with self._changed:
            for i, (stands_at, env) in enumerate(self._idle):
                if stands_at == place:
                    self._idle[i] = (None, env)
                    return

    def discard(self, env: TextEnv) -> None:
        """Close a leased instance instead of putting it back."""
        with self._changed:
            self._live -= 1
            self._changed.notify()
        _close_all([(None, env)])

    def close(self) -> None:
        """Close every idle instance, and each leased one when it comes back."""
        with self._changed:
            self._closed = True
            idle = self._idle.copy()
            self._idle.clear()
            self._changed.notify_all()
        for _, env in idle:
            self.discard(env)

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, place: Place | None) -> tuple[TextEnv, bool]:
        """An exclusive instance, and whether it already stands at ``place``."""
        with self._changed:
            while True:
                if self._closed:
                    raise EnvError(
                        "the pool of environments is closed; make a new agent, or explore inside its lifetime"
                    )
                places = [stands_at for stands_at, _ in self._idle]
                if place is not None and place in places:
                    return self._idle.pop(places.index(place))[1], True
                if None in places:
                    return self._idle.pop(places.index(None))[1], False
                if self._live < self.size:
                    self._live += 1
                    break
                if self._idle:
                    return self._idle.pop(0)[1], False
                self._changed.wait()
        try:
            return self.make(), False
        except BaseException:
            with self._changed:
                self._live -= 1
                self._changed.notify()
            raise


def _close_all(instances: list[tuple[Place | None, TextEnv]]) -> None:
    for _, env in instances:
        with contextlib.suppress(Exception):  # what is broken often cannot be closed either
            env.close()


def _compare(
    task: Task, turn: int, expected: str, actual: str, diverged: Callable[[ReplayDivergence], None] | None
) -> None:
    if actual != expected:
        error = ReplayDivergence(
            f"task {task['id']!r}: at decision point {turn} the replay shows {actual!r}, but {expected!r} was "
            "recorded; the environment is not deterministic: seed it, or give it snapshot() and restore()",
            turn=turn,
            expected=expected,
            actual=actual,
        )
        if diverged is None:
            raise error
        diverged(error)
