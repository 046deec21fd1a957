"""What a process that was started by this package does for its parent."""

import multiprocessing
import os
import pickle
import signal
from multiprocessing.connection import wait

from ..errors import EnvError


def end_with_parent() -> None:
    """Wait for the process that started this one to be gone, then end; for a thread."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def ignore_ctrl_c() -> None:
    """Leave a Ctrl-C in a terminal, which reaches all processes, to the one that started this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def sendable(error: Exception) -> Exception:
    """The error, or what it says where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return EnvError(f"{type(error).__name__}: {error}")
    return error
