"""A saver's method for sync graphs as the same for async ones, with its signature; what a subclass overrides counts."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def at_once(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """For what never waits."""

    @functools.wraps(method)
    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = getattr(self, method.__name__)(*args, **kwargs)
        return result

    return twin


def in_thread(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """For what may wait, for a disk or a lock."""

    @functools.wraps(method)
    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await asyncio.to_thread(getattr(self, method.__name__), *args, **kwargs)
        return result

    return twin


def one_by_one(method: Callable[Concatenate[Any, P], Iterator[R]]) -> Callable[Concatenate[Any, P], AsyncIterator[R]]:
    """For an iterator whose every step may wait."""

    @functools.wraps(method)
    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        found = getattr(self, method.__name__)(*args, **kwargs)
        while (each := await asyncio.to_thread(next, found, None)) is not None:
            yield each

    return twin
