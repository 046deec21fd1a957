"""Runs a command for a process that may die: the command ends with it, and so does all that the command started.

    python -I guard.py COMMAND [ARGUMENT ...]

Standard input is a pipe that the asking process holds. A byte on it asks the command to end (SIGTERM); its end, which
comes when that process dies as well, ends the command at once, with all its descendants, those in sessions of their
own too. The exit code is the command's.
A script of its own that imports nothing of this package; PR_SET_PDEATHSIG would watch a thread and not the process.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command; its exit code once everything has ended."""
    if sys.platform == "linux":  # what the command leaves behind becomes ours, and can be waited for
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    threading.Thread(target=_obey, args=(process,), daemon=True).start()
    code = process.wait()
    _kill(process.pid)
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)  # what it leaves behind comes to us, and is met the next time round
    return code if code >= 0 else 128 - code


def _obey(process: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1):
        process.terminate()
    _kill(process.pid)


def _children() -> list[int]:
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):  # none where the system has no such files
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, file.read_text(encoding="ascii").split())
    return found


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
