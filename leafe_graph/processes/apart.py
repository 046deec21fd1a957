"""A call or a command in a process of its own, which ends with its parent."""

import multiprocessing
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from ..errors import LeafeError
from ..terminal import streams
from .child import end_with_parent, ignore_ctrl_c, sendable

T = TypeVar("T")


def apart(function: Callable[..., T], *args: Any) -> T:
    """``function(*args)`` in a fresh Python process: nothing is imported there yet, and all its memory is given back.

    What it raises is raised here. The process imports the script that was started, so what that does must stand under
    ``if __name__ == "__main__":``.

    Raises:
        LeafeError: the process died; ``exitcode`` is minus the signal's number.
    """
    context = multiprocessing.get_context("forkserver")
    pipe, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, args))
    process.start()
    theirs.close()  # the process has the other end alone: when it dies, reading here ends
    try:
        answer, error, where = pickle.loads(pipe.recv_bytes())
        process.join(30)  # it ends by itself, and tidies up
    except EOFError:
        process.join()
        raise LeafeError(
            f"the process of {function.__name__} died (exit code {process.exitcode}); the same command again goes on",
            exitcode=process.exitcode,
        ) from None
    finally:  # also after Ctrl-C, which the process leaves to this one
        pipe.close()
        process.kill()
        process.join()
    if error is not None:
        error.add_note(where)
        raise error
    result: T = answer
    return result


def guarded(command: Sequence[str]) -> list[str]:
    """The command by which another one ends with the holder of its standard input, see guard.py."""
    return [sys.executable, "-I", str(Path(__file__).with_name("guard.py")), *command]


def run_guarded(command: Sequence[str]) -> int:
    """Run a command that ends with this process; its exit code, what it prints on standard error.

    A Ctrl-C, too, ends it with all that it started.
    """
    process = subprocess.Popen(guarded(command), stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    try:
        return process.wait()
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def _call(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    ignore_ctrl_c()
    threading.Thread(target=end_with_parent, daemon=True).start()
    streams.ready()
    streams.log_to_people()
    try:
        reply = pickle.dumps((function(*args), None, ""))
    except Exception as error:
        reply = pickle.dumps((None, sendable(error), "".join(traceback.format_exception(error))))
    pipe.send_bytes(reply)
