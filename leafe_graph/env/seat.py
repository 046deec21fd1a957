"""The instance that one episode has for itself from turn to turn, without asking the pool between them."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import ReplayDivergence
from ..types import Task
from .pool import Place
from .protocol import TextEnv


class Envs(Protocol):
    """Where live environments come from: see `EnvPool`, which says what each of these does."""

    def reset(self, task: Task) -> tuple[TextEnv, str, dict[str, Any]]:  # noqa: D102
        ...

    def lease(  # noqa: D102
        self,
        place: Place,
        *,
        before_replay: Callable[[int], None] = ...,
        diverged: Callable[[ReplayDivergence], None] | None = None,
    ) -> TextEnv: ...

    def put_back(self, env: TextEnv, place: Place | None = None) -> None:  # noqa: D102
        ...

    def release(self, place: Place) -> None:  # noqa: D102
        ...

    def discard(self, env: TextEnv) -> None:  # noqa: D102
        ...


class Seat:
    """A pool for one episode, which keeps what the pool lent until `leave`. For one caller at a time."""

    def __init__(self, pool: Envs) -> None:
        self._pool = pool
        self._held: tuple[Place, TextEnv] | None = None
        self._left = False
        self._leaving = threading.Lock()

    @property
    def instant(self) -> bool:
        """Whether the instance's own class says that its calls take microseconds and never wait: see `TextEnv`."""
        return self._held is not None and bool(vars(type(self._held[1])).get("instant"))

    def reset(self, task: Task) -> tuple[TextEnv, str, dict[str, Any]]:
        """See `EnvPool.reset`."""
        return self._pool.reset(task)

    def lease(
        self,
        place: Place,
        *,
        before_replay: Callable[[int], None] = lambda steps: None,
        diverged: Callable[[ReplayDivergence], None] | None = None,
    ) -> TextEnv:
        """See `EnvPool.lease`."""
        held, self._held = self._held, None
        if held is not None and held[0] == place:
            return held[1]
        if held is not None:
            self._pool.put_back(held[1])
        return self._pool.lease(place, before_replay=before_replay, diverged=diverged)

    def put_back(self, env: TextEnv, place: Place | None = None) -> None:
        """See `EnvPool.put_back`; an instance from which the episode goes on is kept."""
        with self._leaving:
            if place is not None and not self._left:
                self._held = place, env
                return
        self._pool.put_back(env)

    def release(self, place: Place) -> None:
        """See `EnvPool.release`."""
        self._pool.release(place)

    def discard(self, env: TextEnv) -> None:
        """See `EnvPool.discard`."""
        self._pool.discard(env)

    def leave(self) -> None:
        """Give the pool back what is kept, and what comes later: the episode is over.

        One that is cancelled does not wait for the call of its environment that is running in a thread.
        """
        with self._leaving:
            self._left, held, self._held = True, self._held, None
        if held is not None:
            self._pool.put_back(held[1])
