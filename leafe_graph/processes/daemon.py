"""Daemon threads that the interpreter's end does not tear apart.

One that computes in C++ code (torch) when the interpreter ends is unwound by force as soon as it wants Python's lock
again, which C++ answers with abort(): exit code -6 and a core file in place of the program's own. So they are asked to
stop first, and waited for, though not for ever: one that hangs must not keep the process.
"""

import atexit
import threading
import time
from collections.abc import Callable

_running: dict[threading.Thread, tuple[Callable[[], object], float]] = {}


def start(
    work: Callable[[], object], *, name: str, patience: float, stop: Callable[[], object] = lambda: None
) -> threading.Thread:
    """Run ``work`` in a daemon thread.

    When the interpreter ends, ``stop`` is called and the thread waited for, at most ``patience`` seconds.
    """

    def run() -> None:
        try:
            work()
        finally:
            _running.pop(thread, None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    _running[thread] = stop, patience
    try:
        thread.start()
    except BaseException:
        _running.pop(thread)
        raise
    return thread


@atexit.register
def _end() -> None:
    began, threads = time.monotonic(), [each for each in [*_running.items()] if each[0].is_alive()]
    for _, (stop, _) in threads:
        stop()
    for thread, (_, patience) in threads:
        thread.join(max(0.0, began + patience - time.monotonic()))
