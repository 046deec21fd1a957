"""An environment in a process of its own, so that one that hangs or dies costs a branch and not the run.

A thread that hangs can be neither ended nor waited for; a process can be killed. The worker ends with its parent, and
leaves Ctrl-C to it.
"""

import contextlib
import multiprocessing
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ..errors import ConfigError, EnvError, EnvLost
from ..processes.child import end_with_parent, sendable
from .protocol import SnapshotEnv, TextEnv

_FORKSERVER = multiprocessing.get_context("forkserver")


class SubprocessEnv:
    """A `TextEnv` that lives in another process: ``explore(model, lambda: SubprocessEnv(MyEnv, timeout=30), tasks)``.

    It has ``snapshot`` and ``restore`` where the environment has them. What the environment raises is raised here.
    After a hang or a death the next ``reset`` starts a new process.

    The process imports the script that was started: what it does must stand under ``if __name__ == "__main__":``.

    Args:
        make: makes the environment; it is sent to the process, so it must be importable there: a class or function of
            a module, or a `functools.partial` of one.
        timeout: seconds that a call may take.
        start_timeout: seconds that starting the process and making the environment may take.

    Raises:
        EnvLost: a call took longer, and the process was killed; or the process died.
        ConfigError: ``make`` cannot be sent to another process.
    """

    def __init__(self, make: Callable[[], TextEnv], *, timeout: float = 60.0, start_timeout: float = 300.0) -> None:
        if timeout <= 0 or start_timeout <= 0:
            raise ConfigError(f"timeout={timeout}, start_timeout={start_timeout}; expected seconds > 0")
        try:
            pickle.dumps(make)
        except Exception as error:
            raise ConfigError(
                f"{make!r} cannot be sent to another process ({error}); expected a class or function of a module, or a "
                "functools.partial of one, not a lambda"
            ) from error
        self._make, self._timeout, self._start_timeout = make, timeout, start_timeout
        self._process: Any = None
        self._start()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a task, in a new process if the last one was lost."""
        if self._process is None:
            self._start()
        answer: tuple[str, dict[str, Any]] = self._call("reset", seed=seed, options=options)
        return answer

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment answers."""
        answer: tuple[str, float, bool, bool, dict[str, Any]] = self._call("step", action)
        return answer

    def close(self) -> None:
        """Close the environment and end its process."""
        if self._process is not None:
            with contextlib.suppress(Exception):  # what it raises at its end helps nobody
                self._call("close")
            self._end()

    def _snapshot(self) -> bytes:
        state: bytes = self._call("snapshot")
        return state

    def _restore(self, state: bytes) -> None:
        self._call("restore", state)

    def _start(self) -> None:
        self._pipe, theirs = _FORKSERVER.Pipe()
        self._process = _FORKSERVER.Process(target=_serve, args=(theirs, self._make), daemon=True)
        self._process.start()
        theirs.close()  # the worker has the other end alone: when it dies, reading here ends
        try:
            has_snapshots = self._answer("__init__", self._start_timeout)
        except BaseException:
            self._end()
            raise
        if has_snapshots:
            self.snapshot, self.restore = self._snapshot, self._restore

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._process is None:
            raise EnvError(f"{method}() on an environment whose process has ended; reset() starts a new one")
        with contextlib.suppress(OSError):  # it is dead: reading says how it died
            self._pipe.send((method, args, kwargs))
        return self._answer(method, self._timeout)

    def _answer(self, method: str, timeout: float) -> Any:
        try:
            if not self._pipe.poll(timeout):
                self._end(grace=0)
                raise EnvLost(
                    f"{method}() took longer than {timeout:g} s; the environment's process was killed",
                    exitcode=None,
                )
            answer, error, where = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            code = self._end()
            raise EnvLost(f"the environment's process died in {method}() (exit code {code})", exitcode=code) from None
        except BaseException:  # the caller was interrupted: the answer that is under way belongs to no other call
            self._end(grace=0)
            raise
        if error is not None:
            error.add_note(where)
            raise error
        return answer

    def _end(self, grace: float = 1.0) -> int | None:
        """End the process, by force after ``grace`` seconds; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        self._pipe.close()  # it reads that and ends, if it can
        process.join(grace)
        process.kill()
        process.join()
        code: int | None = process.exitcode
        process.close()
        return code


def _serve(pipe: Connection, make: Callable[[], TextEnv]) -> None:
    """The worker: answers calls with (result, error, traceback), until it is told to close or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in a terminal reaches all processes
    threading.Thread(target=end_with_parent, daemon=True).start()
    env: Any = None
    call: tuple[str, tuple[Any, ...], dict[str, Any]] = ("__init__", (), {})
    with contextlib.suppress(EOFError, OSError):  # the other end is gone
        while True:
            method, args, kwargs = call
            try:
                if method == "__init__":
                    env = make()
                    answer: Any = isinstance(env, SnapshotEnv)
                else:
                    answer = getattr(env, method)(*args, **kwargs)
                reply = pickle.dumps((answer, None, ""))
            except Exception as error:
                reply = pickle.dumps((None, sendable(error), "".join(traceback.format_exception(error))))
            pipe.send_bytes(reply)
            if method == "close":
                return
            call = pipe.recv()
