"""Ctrl-C in two steps: the first one finishes what is being played, a second one stops at once."""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ..errors import ConfigError

R = TypeVar("R")

log = logging.getLogger(__name__)


@contextmanager
def first_interrupt(*events: threading.Event) -> Iterator[None]:
    """Inside, the first Ctrl-C sets the events; a second one cancels the task, whatever handled Ctrl-C before.

    For coroutines. Outside the main thread, which alone is told of signals, it does nothing; nor where SIGINT was being
    ignored, as in a job that a shell runs in the background: the Ctrl-C is meant for others, and SIGTERM stops the job.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task, before = asyncio.get_running_loop(), asyncio.current_task(), signal.getsignal(signal.SIGINT)

    def give_back() -> None:
        if loop.remove_signal_handler(signal.SIGINT):
            signal.signal(signal.SIGINT, before)

    def second() -> None:
        give_back()
        if task is not None:
            task.cancel()

    def first() -> None:
        loop.add_signal_handler(signal.SIGINT, second)
        for event in events:
            event.set()
        log.warning("Finishing the branches that are being played; Ctrl-C again stops at once.")

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        give_back()


def without_loop(
    play: Callable[[threading.Event], Awaitable[R]], *, stop: threading.Event | None, threads: int, name: str
) -> R:
    """What a coroutine gives, for callers without an event loop: in one of its own that has so many threads.

    Args:
        play: makes the coroutine; once its event is set it begins nothing new.
        stop: that event, where the caller has one.
        threads: of the loop.
        name: the caller's, whose asynchronous twin is called the same behind an "a".

    Raises:
        ConfigError: there is a loop already.
        KeyboardInterrupt: Ctrl-C cut it short.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError(f"{name}() was called inside a running event loop; await a{name}() there")

    async def interruptible() -> tuple[R, bool]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
        interrupted = threading.Event()
        event = stop or interrupted
        with first_interrupt(event, interrupted):
            return await play(event), interrupted.is_set()

    try:
        found, was_interrupted = asyncio.run(interruptible())
    except asyncio.CancelledError:  # by a second Ctrl-C
        raise KeyboardInterrupt from None
    if was_interrupted:
        raise KeyboardInterrupt
    return found
