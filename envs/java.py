"""Simulators that run on a Java virtual machine (JVM): one per simulator and process, reached through py4j.

All instances of a simulator share its JVM, and whatever that keeps in static variables: what must not be disturbed is
done in one `Jvm.call`. A JVM is started when it is first needed and again after it died. It ends with this process,
however that ends; Ctrl-C in a terminal does not reach it. It listens on this machine only, and asks for a password.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TypeVar

from leafe_graph.env.common import plain
from leafe_graph.errors import ConfigError, EnvError, EnvLost, LeafeError

T = TypeVar("T")

_OPTIONS = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError")
"""Little memory and few threads; no files in /tmp; memory that is used up is a death that is noticed."""
_START_SECONDS = 120.0
_PREFIX = "leafe-java-"

_shared: dict[tuple[str, ...], "Jvm"] = {}
_shared_lock = threading.Lock()


def shared(name: str, jar: str, *options: str) -> "Jvm":
    """The JVM that this process has for a simulator: one for all that ask with the same jar and options."""
    with _shared_lock:
        return _shared.setdefault((jar, *options), Jvm(name, jar, options))


def heap_option(megabytes: int) -> str:
    """The JVM option that bounds its heap.

    Raises:
        ConfigError: not a number that a JVM could live with.
    """
    megabytes = plain(megabytes)
    if not isinstance(megabytes, int) or megabytes < 64:
        raise ConfigError(f"heap_mb={megabytes!r}: expected the bound of the JVM's heap in MB, at least 64")
    return f"-Xmx{megabytes}m"


class Jvm:
    """A JVM that is started when it is needed; thread-safe."""

    def __init__(self, name: str, jar: str, options: tuple[str, ...] = ()) -> None:
        self._name, self._jar, self._options = name, jar, options
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._gateway: Any = None
        self._finish: Callable[[], object] = lambda: None
        self.started = 0
        """Grows with every start and end; what was got at another number is gone."""

    @property
    def pid(self) -> int | None:
        """The process id; None where none is running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def classes(self) -> Any:
        """The view through which Java's classes are named, as py4j has it."""
        return self._gateway.jvm

    def scala(self, package: str, name: str) -> Any:
        """The one instance of a Scala ``object``."""
        view = self.classes
        for part in (*package.split("."), f"{name}$", "MODULE$"):
            view = getattr(view, part)
        return view

    def lines(self, strings: Any) -> list[str]:
        """A Java list of strings, none with a line break, brought over in one piece and released."""
        text: str = self.classes.java.lang.String.join("\n", strings)
        self._gateway.detach(strings)
        return text.split("\n") if text else []

    def call(self, what: Callable[[], T], doing: str) -> T:
        """Do something that calls Java, as one piece, in the JVM that runs.

        Raises:
            EnvLost: the JVM died; ``exitcode`` as `subprocess.Popen` has it.
            EnvError: the simulator raised.
        """
        from py4j.protocol import Py4JError, Py4JJavaError

        with self._lock:
            try:
                return what()
            except LeafeError:
                raise
            except (Py4JError, OSError) as error:
                if not isinstance(error, Py4JJavaError):  # else the connection is well
                    _close_failed(error)
                # The connection ends a moment before the process does.
                if isinstance(error, Py4JJavaError) or self._runs_on():
                    said = str(error).partition("\n\tat ")[0]  # without Java's stack
                    raise EnvError(f"{self._name} raised while {doing}: {said}") from error
                raise self._lost(doing) from error
            except Exception as error:
                raise EnvError(f"{self._name} failed while {doing}: {type(error).__name__}: {error}") from error
            except BaseException as error:  # interrupted: what is under way in there would disturb the next call
                _close_failed(error)
                self._stop()
                raise

    def ensure(self) -> int:
        """Start it unless it runs; `started`.

        Raises:
            EnvLost: it could not be started; the message has what it said.
        """
        with self._lock:
            if self.pid is None:
                self._start()
            return self.started

    def release(self, started: int, reference: Any) -> None:
        """Let Java collect an object of that start that nobody uses any more."""
        with self._lock, contextlib.suppress(Exception):  # a JVM that has died holds nothing
            if started == self.started and self.pid is not None:
                self._gateway.detach(reference)

    def _start(self) -> None:
        from py4j import java_gateway
        from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path

        # py4j logs what it also raises, some of it by the root logger: nobody shall have to read it twice.
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        java_gateway.logging = java_gateway.logger
        self._stop()
        # Simulators read and write where they are started: in a folder of their own, with the data beside the jar.
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        for file in Path(self._jar).parent.iterdir():
            if file.suffix in (".json", ".tsv"):
                shutil.copy(file, self._folder)
        classpath = os.pathsep.join((find_jar_path(), self._jar))
        server = ("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0")
        with open(self._folder / "new", "wb") as stderr:
            with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept either
                fcntl.flock(stderr, fcntl.LOCK_EX)  # the JVM holds it on, until it ends
            (self._folder / "new").rename(self._folder / "stderr")
            self._process = process = subprocess.Popen(
                ["java", "-classpath", classpath, *_OPTIONS, *self._options, *server],
                stdin=subprocess.PIPE,  # it ends when this is closed, at the latest when this process has ended
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self._folder,
                process_group=0,
            )
        # Not weakref.finalize, which multiprocessing's children do not run at their end. It does nothing in a fork.
        self._finish = Finalize(self, _finish, (process, self._folder), exitpriority=0)
        too_long = threading.Timer(_START_SECONDS, process.kill)
        too_long.daemon = True
        too_long.start()
        assert process.stdout is not None
        try:
            port, password = process.stdout.readline().strip(), process.stdout.readline().strip().decode()
        finally:
            too_long.cancel()
            process.stdout.close()
        if not port.isdigit():
            raise self._lost("starting")
        # Objects are released when we say so, not by finalizers that call Java from anywhere.
        parameters = GatewayParameters(port=int(port), auth_token=password, enable_memory_management=False)
        self._gateway = JavaGateway(gateway_parameters=parameters)
        self.started += 1
        java_io = self.classes.java.io
        self.classes.System.setOut(java_io.PrintStream(java_io.OutputStream.nullOutputStream()))

    def _runs_on(self) -> bool:
        """Whether it still runs after a moment."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        return self.pid is not None

    def _lost(self, doing: str) -> EnvLost:
        """The error of a JVM that is gone, with the end of what it said."""
        code = None if self._process is None else self._process.wait()
        said = ""
        with contextlib.suppress(OSError):  # another process may have swept it
            said = (self._folder / "stderr").read_text(encoding="utf-8", errors="replace")[-1000:].strip()
        self._stop()
        return EnvLost(
            f"the JVM of {self._name} died while {doing} (exit code {code}); the next reset starts a new one"
            + (f". It said: {said}" if said else ""),
            exitcode=code,
        )

    def _stop(self) -> None:
        self._finish()
        if self._process is not None and self._gateway is not None:
            self._gateway.close()
        self._process, self._gateway = None, None
        self.started += 1  # so that other instances do not call what is gone

    def _forget(self) -> None:
        """In a forked child: the JVM is the parent's, and what was got from it is of no use here."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process, self._lock, self.started = None, threading.RLock(), self.started + 1


def _close_failed(error: BaseException | None) -> None:
    """Close the connections in which this was raised: py4j forgets them, and they would be warned of when collected."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            connection: Any = frame.f_locals.get("self")
            if isinstance(getattr(connection, "socket", None), socket.socket):
                for held in ("stream", "socket"):
                    with contextlib.suppress(Exception):  # it is broken already, or was not opened
                        getattr(connection, held).close()
        error = error.__context__


def _finish(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End a JVM and remove its folder."""
    process.kill()
    with contextlib.suppress(OSError):
        process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of JVMs whose processes were killed: nobody holds their lock any more."""
    for said in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/stderr"):
        with contextlib.suppress(OSError):  # it is in use, or gone
            if said.parent.lstat().st_uid == os.getuid():
                with open(said, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(said.parent)


def _forget() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for jvm in _shared.values():
        jvm._forget()


os.register_at_fork(after_in_child=_forget)
