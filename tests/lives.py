"""A program that is begun again and again, each time in a process of its own, so that a test may kill it.

What imports cost is paid once: the program serves, and forks for each life.
"""

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence


def serve(live: Callable[[str], object]) -> None:
    """The program's side: a life for each line that is read, which knows only that line and what is on disk.

    Its process id is printed, and how it ended.
    """
    for line in sys.stdin:
        life = os.fork()
        if life == 0:
            try:
                live(line.strip())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(life, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)


class Lives:
    """The test's side: starts a command that serves, begins its lives, and kills them."""

    def __init__(self, command: Sequence[str]) -> None:
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Lives":
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.communicate(timeout=300)

    def start(self, line: str = "") -> int:
        """The process id of a new life, which is told a line."""
        assert self.server.stdin is not None
        self.server.stdin.write(f"{line}\n")
        self.server.stdin.flush()
        return int(self._hear())

    def end(self) -> int:
        """How the life ended: minus the signal's number, or 0 if it came to its own end."""
        return int(self._hear())

    def _hear(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline()


def kill(life: int) -> None:
    """Kill a life, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(life, signal.SIGKILL)
