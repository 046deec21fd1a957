"""Where programs that a model wrote are run: a process that can reach nothing, with limits on all it could use up.

Each program gets bubblewrap's own namespaces (users, processes, mounts, network, IPC, host name): it sees the standard
library read-only, a small private /tmp and four harmless devices; no /proc, no network, no other process, no installed
package, no environment. It runs as nobody, without capabilities, behind a filter of system calls
(`leafe_graph.envs.sandbox.seccomp`). Programs are handed over in memory: no file on the host is made.

What a program returns is never trusted: `Run` and `Session` hand out text and plain data, to be judged outside.
"""

import contextlib
import functools
import marshal
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError, EnvError

from ..catalog import ENVS
from . import bwrap, inside, seccomp
from .inside import decode
from .process import Limits, Process, Run

_CHECKER = Limits(cpu_seconds=60, wall_seconds=3600.0, memory_bytes=2 << 30, output_bytes=64 << 20)
"""What a trusted check may use: more than any program that it waits for."""
_NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
_START = (
    "import marshal,posix,sys;n=int(sys.argv[1]);f=open(n,'rb');c,m,p,s,e,l=marshal.loads(f.read());f.close();"
    "g={'__name__':'inside'};exec(marshal.loads(c),g);g['main'](m,p.decode(errors='surrogatepass'),"
    "s.decode(errors='surrogatepass'),e,l)"
)
"""Reads what to do from a file that is handed over, and closes it."""


class Sandbox:
    """Runs programs, several at a time; thread-safe.

    Args:
        limits: what each program may use, unless a call says otherwise.
        parallel: how many programs run at once; more wait. None: as many as there are processors.
        weak: do without bubblewrap and the filter of system calls: `lacks` says what that means. Only for programs that
            you would run yourself, or inside a container or virtual machine that is thrown away.
        python: the interpreter that runs the programs; None: this one where the sandbox's user can read it, else
            /usr/bin/python3.

    Raises:
        MissingDependency: bubblewrap or pyseccomp is not installed.
        EnvError: no sandbox can be set up here, such as in a container without user namespaces.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        parallel: int | None = None,
        weak: bool = False,
        python: str | None = None,
    ) -> None:
        if parallel is not None and parallel < 1:
            raise ConfigError(f"parallel={parallel}: expected at least 1, or None for the number of processors")
        self.limits = limits or Limits()
        self.weak = weak
        self._parallel = parallel or os.cpu_count() or 1
        self._slots = threading.BoundedSemaphore(self._parallel)
        if not weak:
            ENVS["codecontests"].require()
        candidates = [python] if python else [sys.executable, "/usr/bin/python3"]
        refusals = []
        for candidate in candidates:
            self._python = os.path.realpath(candidate)
            run = self._try()
            if run == "":
                return
            refusals.append(f"{self._python}: {run}")
        raise EnvError(
            f"no sandbox can be set up here ({'; '.join(refusals)}). It needs user namespaces, which containers often "
            "forbid (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined), and an "
            "interpreter that everybody can read. Sandbox(weak=True) runs programs without it, at your own risk"
        )

    @property
    def lacks(self) -> tuple[str, ...]:
        """What a weak sandbox does not keep programs from; nothing for the ordinary one."""
        if not self.weak:
            return ()
        return (
            "reading every file that its user can read, tests included",
            "writing where its user can write",
            "the network",
            "starting processes, and seeing and signalling others of its user",
            "system calls that a filter would refuse",
        )

    def run(self, program: str, stdin: str = "", *, limits: Limits | None = None) -> Run:
        """Run a whole program with ``stdin`` as its input."""
        with self._slots, self._start("run", program, stdin=stdin, limits=limits) as process:
            return process.finish()

    @contextlib.contextmanager
    def serve(
        self, program: str, entry_point: str, *, prelude: str = "", limits: Limits | None = None
    ) -> Iterator["Session"]:
        """A program whose function ``entry_point`` can be called; ``prelude`` is run before it in its namespace."""
        with self._slots, self._start("serve", program, prelude, entry_point, limits=limits) as process:
            yield Session(process)

    def check(self, check: str, entry_point: str, session: "Session", *, prelude: str = "") -> bool:
        """Whether a trusted ``check(candidate)`` accepts the function that ``session`` serves.

        The check runs in a sandbox of its own and calls the candidate by message: arguments go one way, plain data
        comes back. The program never shares a process with its judge, so it has nothing to patch, read or exit from.

        Raises:
            EnvError: the check itself was stopped, or ended without a judgement: nothing is known of the program.
        """
        with self._start("check", check, prelude, entry_point, limits=_CHECKER) as checker:
            while (message := checker.receive()) is not None:
                if "passed" in message:
                    return message["passed"] is True
                args, kwargs = decode(message["args"]), {name: decode(arg) for name, arg in message["kwargs"].items()}
                try:
                    value, error = session.call(args, kwargs)
                    if not checker.send(() if error is not None else (value,)):
                        break
                except (EOFError, RecursionError):  # it has ended; or its value is nested too deep to be passed on
                    return False
            run = checker.finish()
        raise EnvError(
            f"the check of {entry_point!r} ended before it had judged the program: {run.verdict}, exit code "
            f"{run.exit_code} {run.stderr.strip()[-500:]}"
        )

    def _try(self) -> str:
        """Why a trivial program does not run; empty where it does."""
        try:
            run = self.run("print(6 * 7)", limits=Limits())
        except (EnvError, OSError) as error:
            return str(error)
        return "" if run.stdout == "42\n" else f"{run.verdict} {run.stderr.strip()[-300:]}"

    @contextlib.contextmanager
    def _start(
        self,
        mode: str,
        program: str,
        prelude: str = "",
        entry_point: str = "",
        *,
        stdin: str | None = None,
        limits: Limits | None = None,
    ) -> Iterator["Process"]:
        limits = limits or self.limits
        threads = _room(limits.threads * self._parallel) if self.weak else limits.threads
        numbers = (limits.memory_bytes, threads, limits.cpu_seconds, limits.tmp_bytes)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            status, status_write = os.pipe()
            os.set_blocking(status, False)
            ours.callback(os.close, status)
            theirs.callback(os.close, status_write)
            given: Any = subprocess.PIPE if stdin is None else theirs.enter_context(_sealed(_bytes(stdin)))
            parts = (_inside(self._python), mode, _bytes(prelude), _bytes(program), entry_point, numbers)
            payload = theirs.enter_context(_sealed(marshal.dumps(parts, 2)))
            if self.weak:
                where, command, fds = ours.enter_context(_folder()), [], [payload]
            else:
                rules = theirs.enter_context(_sealed(seccomp.program()))
                where, fds = "/", [payload, rules, status_write]
                command = bwrap.command(self._python, rules, status_write, limits)
            popen = subprocess.Popen(
                [*command, self._python, "-s", "-S", "-B", "-c", _START, str(payload)],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                cwd=where,
                env=bwrap.ENVIRONMENT,
                start_new_session=True,
                **_NOBODY if os.getuid() == 0 else {},
            )
            theirs.close()
            process = Process(popen, limits, None if self.weak else status)
            try:
                yield process
            finally:
                process.kill()


class Session:
    """A program that serves calls of one of its functions, in one process, in the order of the calls."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.ready = process.receive() == {"ready": True}
        """Whether the program could be loaded; if not, `finish` says why."""

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> tuple[Any, str | None]:
        """What the function returned, as plain data, and None; or None and why it did not return.

        Raises:
            EOFError: the program has ended: `finish` says how.
        """
        answer = self.process.ask((list(args), dict(kwargs or {})))
        if answer is None:
            raise EOFError
        if "value" not in answer:
            return None, str(answer.get("error", "no answer"))
        try:
            return decode(answer["value"]), None
        except (ValueError, RecursionError, MemoryError) as error:
            return None, f"the value that was returned cannot be read: {error}"

    def finish(self) -> Run:
        """End the program; how it ended."""
        return self.process.finish()


@functools.cache
def _inside(python: str) -> bytes:
    """The first program of the sandbox, compiled by its interpreter."""
    script = "import marshal,sys;sys.stdout.buffer.write(marshal.dumps(compile(sys.stdin.read(),'inside.py','exec')))"
    source = Path(inside.__file__).read_text(encoding="utf-8")
    done = subprocess.run([python, "-I", "-S", "-c", script], input=source.encode(), capture_output=True)
    if done.returncode:
        raise EnvError(f"{python} does not run: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@contextlib.contextmanager
def _sealed(content: bytes) -> Iterator[int]:
    """A file in memory that can only be read."""
    fd = os.memfd_create("leafe", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        _seal(fd)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder that a weak sandbox's program may write in."""
    with tempfile.TemporaryDirectory(prefix="leafe-weak-", ignore_cleanup_errors=True) as folder:
        if os.getuid() == 0:
            os.chown(folder, _NOBODY["user"], _NOBODY["group"])
        yield folder


def _room(threads: int) -> int:
    """The limit that leaves a weak sandbox's programs so many threads.

    The kernel counts all that a user runs, whoever started it, and what has ended until its parent takes note.
    """
    import resource

    user = _NOBODY["user"] if os.getuid() == 0 else os.getuid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            if os.stat(f"/proc/{name}").st_uid == user:
                threads += len(os.listdir(f"/proc/{name}/task"))
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return threads if most == resource.RLIM_INFINITY else min(threads, most)


def _seal(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


_shared: dict[bool, Sandbox] = {}
_making = threading.Lock()


def default_sandbox(*, weak: bool = False) -> Sandbox:
    """The sandbox that all environments of this process share, so that together they keep to its bound."""
    with _making:
        if weak not in _shared:
            _shared[weak] = Sandbox(weak=weak)
        return _shared[weak]
