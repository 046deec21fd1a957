"""Ctrl-C in two steps: the first one finishes what is being played, a second one stops at once."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
