"""A started sandbox from outside: bounded reading, one deadline, a typed end, and an end that leaves nothing behind."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

from leafe_graph.errors import ConfigError, EnvError

from .inside import COMPILE_ERROR, LONG, MEMORY_ERROR, Unreadable

GRACE = 10.0
"""Seconds that the kernel may take to end what was killed."""

Verdict = Literal["ok", "compile_error", "runtime_error", "time_limit", "memory_limit", "output_limit"]
"""How a program ended: by itself and without error, or why not."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use."""

    cpu_seconds: int = 10
    """Processor time, of all its threads together."""
    wall_seconds: float = 120.0
    """Time by the clock, for a program that waits; generous, since other work slows a machine down: a program that
    computes meets ``cpu_seconds`` first."""
    memory_bytes: int = 512 << 20
    """Address space."""
    output_bytes: int = 4 << 20
    """Standard output and standard error together."""
    tmp_bytes: int = 16 << 20
    """What it may keep in its /tmp, which is memory."""
    threads: int = 32
    """Its threads; other processes it cannot start at all."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ConfigError(f"{name}={value}: expected more than 0")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a program ended and what it said."""

    verdict: Verdict
    stdout: str
    stderr: str
    exit_code: int
    """As a shell has it: 128 and the signal's number where a signal ended it."""
    seconds: float
    """By the clock, starting the sandbox included."""
    by_clock: bool = False
    """Whether it was stopped at ``wall_seconds``: on a busy machine that may say nothing of the program."""


def with_cpu(limits: Limits, seconds: float) -> Limits:
    """The limits with another processor time, rounded up to whole seconds as the kernel counts it."""
    whole = max(1, -(-int(seconds * 1000) // 1000))
    return replace(limits, cpu_seconds=whole, wall_seconds=max(limits.wall_seconds, 10.0 * whole))


def with_output(limits: Limits, size: int) -> Limits:
    """The limits with room for an output of so many bytes beside the usual."""
    return replace(limits, output_bytes=limits.output_bytes + size)


class Process:
    """A started sandbox: bounded reading, one deadline, and an end that leaves nothing behind."""

    def __init__(self, popen: "subprocess.Popen[bytes]", limits: Limits, status: int | None) -> None:
        self._popen, self._limits, self._status = popen, limits, status
        self._started = time.monotonic()
        self._deadline = self._started + limits.wall_seconds
        self._room = limits.output_bytes
        self._text = {"stdout": bytearray(), "stderr": bytearray()}
        self._ended_by: Verdict | None = None
        self._selector = selectors.DefaultSelector()
        for name in self._text:
            self._selector.register(getattr(popen, name), selectors.EVENT_READ, name)
        if popen.stdin is not None:
            os.set_blocking(popen.stdin.fileno(), False)

    def send(self, message: tuple[Any, ...]) -> bool:
        """Write a line; False where it was not taken."""
        stdin, rest = self._popen.stdin, literal(message).encode() + b"\n"
        assert stdin is not None
        with selectors.DefaultSelector() as writable:
            writable.register(stdin, selectors.EVENT_WRITE)
            while rest:
                if not writable.select(self._left()):
                    return self._stop("time_limit")
                try:
                    rest = rest[os.write(stdin.fileno(), rest) :]
                except OSError:  # it has ended
                    return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next line; None where none comes, or it is no JSON object."""
        out = self._text["stdout"]
        while (end := out.find(b"\n")) < 0:
            if not self._read():
                return None
        line = bytes(out[:end])
        del out[: end + 1]
        self._room += end + 1  # what was taken is held no more
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def ask(self, message: tuple[Any, ...]) -> dict[str, Any] | None:
        """Send, then receive."""
        return self.receive() if self.send(message) else None

    def finish(self) -> Run:
        """Wait for the end, by itself or at a limit."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        while self._read():
            pass
        if not self._over():  # its outputs are closed, but it goes on
            self._stop("time_limit")
        self._signal()
        code = self._popen.returncode
        code = 128 - code if code < 0 else code
        if self._ended_by is None and not self._set_up():
            said = self._text["stderr"].decode(errors="replace").strip()
            raise EnvError(f"the sandbox could not be set up: {said[-500:]}")
        return Run(
            verdict=self._ended_by or self._verdict(code),
            stdout=self._text["stdout"].decode(errors="replace"),
            stderr=self._text["stderr"].decode(errors="replace"),
            exit_code=code,
            seconds=time.monotonic() - self._started,
            by_clock=self.by_clock,
        )

    @property
    def by_clock(self) -> bool:
        """Whether it was stopped at ``wall_seconds``."""
        return self._ended_by == "time_limit"

    def _set_up(self) -> bool:
        """Whether the end was the program's: bubblewrap tells its exit code only if it could start it."""
        if self._status is None:
            return True
        with contextlib.suppress(BlockingIOError):
            return b"exit-code" in os.read(self._status, 1 << 16)
        return False

    def kill(self) -> None:
        """End everything inside and wait until it has ended: until nobody can write any more."""
        self._signal()
        give_up = time.monotonic() + GRACE
        while self._selector.get_map() and (left := give_up - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if not os.read(key.fd, 1 << 16):
                    self._selector.unregister(key.fileobj)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        self._selector.close()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _read(self) -> bool:
        """Take in what is there, waiting for it; False at the end of both outputs or at a limit."""
        if self._ended_by is not None or not self._selector.get_map():
            return False
        ready = self._selector.select(max(0.0, self._left()))
        if not ready:
            return self._stop("time_limit")
        for key, _ in ready:
            chunk = os.read(key.fd, 1 << 16)
            if not chunk:
                self._selector.unregister(key.fileobj)
            self._room -= len(chunk)
            if self._room < 0:
                return self._stop("output_limit")
            self._text[key.data] += chunk
        return True

    def _stop(self, verdict: Verdict) -> bool:
        self._ended_by = self._ended_by or verdict
        self._signal()
        return False

    def _over(self) -> bool:
        """Wait for the end without burying it; False where the deadline comes first."""
        pause = 0.0005
        while self._popen.returncode is None:
            if os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            if self._left() <= 0:
                return False
            time.sleep(pause := min(2 * pause, 0.05))
        return True

    def _signal(self) -> None:
        """Kill bubblewrap, and with it all that is inside; or the weak sandbox's group of processes."""
        if self._popen.returncode is None:  # not yet buried, so the number is still its own, even if it has ended
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _verdict(self, code: int) -> Verdict:
        if code == 0:
            return "ok"
        if code == COMPILE_ERROR:
            return "compile_error"
        if code == MEMORY_ERROR:
            return "memory_limit"
        spent = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        if code == 128 + signal.SIGXCPU or (code == 128 + signal.SIGKILL and spent >= self._limits.cpu_seconds):
            return "time_limit"
        return "runtime_error"


def shown(value: Any) -> str:
    """A plain value as Python writes it; as `literal` does where it holds an integer too long for that."""
    try:
        return repr(value)
    except ValueError:
        return literal(value)
    except RecursionError:
        return f"{type(value).__name__} nested too deep to be shown"


def literal(value: Any) -> str:
    """A plain value as an ASCII expression that the sandbox evaluates."""
    match value:
        case Unreadable():
            return f"unreadable({value.text!a})"
        case list():
            return f"[{','.join(map(literal, value))}]"
        case tuple():
            return f"({''.join(f'{literal(item)},' for item in value)})"
        case set() | frozenset():
            return f"{type(value).__name__}({literal(list(value))})"
        case dict():
            return f"{{{','.join(f'{literal(key)}:{literal(item)}' for key, item in value.items())}}}"
        case complex():
            return f"complex({value.real!r},{value.imag!r})"
        case int() if value.bit_length() > LONG:
            return hex(value)
        case None | bool() | int() | float() | str() | bytes():
            return ascii(value)
    raise TypeError(f"not a plain value: {value!r}")
