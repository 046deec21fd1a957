"""Standard output and standard error as they may be: ASCII, a pipe that nobody reads, a full disk, closed.

A reader that goes away, as ``| head`` does, ends no work: what is written from then on is dropped, and the exit code
says how the command itself went.
"""

import contextlib
import logging
import os
import sys
import traceback
from typing import TextIO

from ..text import printable


def ready() -> None:
    """Let both streams write what their encoding lacks as escapes, unless the user chose otherwise; for a command.

    An error that nobody foresaw is told with its traceback, in which may stand what a server said: it is made harmless.
    """
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.excepthook = lambda *error: say("".join(traceback.format_exception(*error)).rstrip("\n"))


def say(text: str) -> None:
    """A line on standard error, as that is now: above a progress bar, if there is one."""
    if sys.stderr is None:  # closed: what is printed to None goes to standard output
        return
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """From now on nothing that is written to this stream goes anywhere."""
    with contextlib.suppress(OSError, ValueError):  # it may have no file, or be closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def flush() -> OSError | None:
    """Write what is still waiting, as the interpreter's end does; what went wrong, but for a reader that went away."""
    wrong = None
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            drop(stream)
            wrong = wrong if isinstance(error, BrokenPipeError) else error
    return wrong


class LogHandler(logging.Handler):
    """Log lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        try:
            say(self.format(record))
        except Exception:
            self.handleError(record)


def log_to_people() -> None:
    """Tell of this package's doings from INFO on, of others' from WARNING on."""
    logging.basicConfig(format="%(message)s", handlers=[LogHandler()])
    logging.getLogger("leafe_graph").setLevel(logging.INFO)
