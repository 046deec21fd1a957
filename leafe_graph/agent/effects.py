"""One text for the sync and the async way of what waits: a generator yields an `Effect` and is sent its result."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Effect:
    """Something to wait for, in the thread or on the event loop that one is in."""

    now: Callable[[], Any]
    later: Callable[[], Awaitable[Any]]


Steps = Generator[Effect, Any, T]


def blocking(function: Callable[[], Any]) -> Effect:
    """What waits for disks: on an event loop it runs in a thread."""
    return Effect(function, lambda: asyncio.to_thread(function))


def users(function: Callable[[], Any], what: str) -> Effect:
    """A user's function, which may be asynchronous where the agent is, and may block where it is not."""

    def now() -> Any:
        result = function()
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigError(f"{what} is asynchronous, and the agent is run by invoke or stream: use ainvoke, astream")
        return result

    async def later() -> Any:
        result = await asyncio.to_thread(function)
        return await result if inspect.isawaitable(result) else result

    return Effect(now, later)


def run_now(steps: Steps[T]) -> T:
    """The generator's result, waiting in this thread."""
    try:
        effect = next(steps)
        while True:
            try:
                result = effect.now()
            except Exception as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_later(steps: Steps[T]) -> T:
    """The generator's result, without holding up the event loop."""
    try:
        effect = next(steps)
        while True:
            try:
                result = await effect.later()
            except Exception as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
