"""What runs first inside the sandbox: sets the limits that are set there, then runs or serves the program.

`leafe_graph.envs.sandbox` compiles this file with the sandbox's own interpreter and hands the code over; it imports
next to nothing, since starting is most of what a run costs. A call comes as a line with a Python literal, written by
the trusted side; answers go back as JSON lines. Values cross as plain data (`encode`), so that nothing that a program
returns can bring code, or its own idea of equality, to the other side.
"""

from __future__ import annotations

import sys

MYPY = False  # typing is slow to import
if MYPY:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, NoReturn

MAIN = "main.py"
COMPILE_ERROR, MEMORY_ERROR = 120, 121
"""Exit codes; a program may use them too, and gains nothing by it."""
LONG = 14_000
"""Bits from which on an integer is handed over in hexadecimal: of decimal digits Python reads and writes no more than
4,300 unless told to, since that takes quadratic time."""


class Unreadable:
    """A value that is no plain data, by its repr; equal to nothing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def encode(value: Any) -> str:
    """As JSON: what JSON cannot say is an object with one key that names the type."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if int.bit_length(value) > LONG:
            return f'{{"int": "{int.__format__(value, "x")}"}}'
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return _items(list.__iter__(value))
    if isinstance(value, tuple):
        return f'{{"tuple": {_items(tuple.__iter__(value))}}}'
    if isinstance(value, dict):
        return f'{{"dict": {_items(dict.items(value), lambda pair: _items(pair))}}}'
    if isinstance(value, (set, frozenset)):
        return f'{{"{"set" if isinstance(value, set) else "frozenset"}": {_items(value)}}}'
    if isinstance(value, (bytes, bytearray)):
        return f'{{"bytes": "{value.hex()}"}}'
    if isinstance(value, complex):
        return f'{{"complex": [{encode(value.real)}, {encode(value.imag)}]}}'
    return f'{{"unreadable": {_quoted(repr(value)[:1000])}}}'


def _items(values: Any, one: Callable[[Any], str] = encode) -> str:
    return f"[{', '.join(map(one, values))}]"


def _quoted(text: str) -> str:
    """A JSON string in ASCII; half a surrogate pair stays what it is."""
    out = []
    for character in str.__str__(text):
        code = ord(character)
        if 32 <= code < 127 and character not in '"\\':
            out.append(character)
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            code -= 0x10000
            out.append(f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}")
    return f'"{"".join(out)}"'


def decode(value: Any) -> Any:
    """What `encode` wrote, read by a JSON parser; builtins and `Unreadable` only.

    Raises:
        ValueError: it is not what `encode` writes.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        ((kind, content),) = value.items()
        return _READ[kind](content)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"not a value: {str(value)[:80]}") from error


def _keys(items: list[Any]) -> list[Any]:
    """Items to be hashed; many of one hash are refused, since to tell them apart would take the host quadratic time."""
    keys = [decode(item) for item in items]
    if len(keys) - len({hash(key) for key in keys}) > 1000:
        raise ValueError("too many items have the same hash")
    return keys


_READ: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda items: tuple(decode(item) for item in items),
    "dict": lambda items: dict(zip(_keys([key for key, _ in items]), [decode(item) for _, item in items], strict=True)),
    "set": lambda items: set(_keys(items)),
    "frozenset": lambda items: frozenset(_keys(items)),
    "bytes": bytes.fromhex,
    "int": lambda text: int(text, 16),
    "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "unreadable": lambda text: Unreadable(str(text)),
}


def main(mode: str, prelude: str, program: str, entry_point: str, limits: tuple[int, int, int, int]) -> None:
    """Set the limits, then do what is asked."""
    _limit(*limits)
    _as_judges_start_it(limits[0])
    names = _module("__main__" if mode == "run" else "solution")  # a function's own tests under a main guard stay out
    if "random" in program:
        import random

        random.seed(0)  # the same story every time, unless the program seeds it itself
    if mode == "run":
        _run(_compile(program), names, program)
    elif mode == "serve":
        _serve(prelude, program, entry_point, names)
    else:
        _check(prelude, program, entry_point, names)


def _limit(memory: int, threads: int, cpu: int, file: int) -> None:
    """Hard limits, which nobody without privileges can raise again."""
    import resource

    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory + _RESERVE),
        (resource.RLIMIT_NPROC, threads, threads),
        (resource.RLIMIT_CPU, cpu, cpu + 1),  # a signal that can be caught, then one that cannot
        (resource.RLIMIT_FSIZE, file, file),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def _as_judges_start_it(memory: int) -> None:
    """What programs rely on where they are judged, and Python without its ``site``, and with a bound on memory, lacks.

    These are ``exit`` and ``quit``, integers of any length (their time counts), and the large stacks that are asked for
    before a deep recursion: of one that is larger than half the memory the half is given, since a stack counts whole
    from the start, used or not. And ``/dev/stdin`` and its like, which are links into a ``/proc`` that is not there.
    """
    import _thread
    import builtins
    import io
    import os
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    set_stack_size = _thread.stack_size

    def stack_size(size: int = 0) -> int:
        return set_stack_size(min(size, memory // 2))

    _thread.stack_size = stack_size
    streams = {f"/dev/{name}": number for number, name in enumerate(("stdin", "stdout", "stderr"))}
    open_file = io.open

    def open_(file: Any, *args: Any, **kwargs: Any) -> Any:
        number = streams.get(str(file))
        return open_file(file if number is None else os.dup(number), *args, **kwargs)

    builtins.open = io.open = open_


_RESERVE = 16 << 20
"""Bytes with which it is told that memory is out."""


def _use_reserve() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _module(name: str) -> dict[str, Any]:
    """The namespace of a fresh module in which a program runs."""
    module = type(sys)(name)
    sys.modules[name] = module
    sys.argv[:] = [MAIN]
    return module.__dict__


def _compile(source: str) -> CodeType:
    """The program as code; where it is none, says why and ends."""
    try:
        return compile(source, MAIN, "exec", dont_inherit=True)
    except BaseException as error:  # a SyntaxError, null bytes, nested too deep
        _tell(source)
        _end(MEMORY_ERROR if isinstance(error, MemoryError) else COMPILE_ERROR)


def _run(code: CodeType, names: dict[str, Any], source: str) -> None:
    """Execute; what it raises is told as the interpreter would, and ends it."""
    try:
        exec(code, names)
    except SystemExit:
        raise
    except BaseException as error:
        _tell(source)
        _end(MEMORY_ERROR if isinstance(error, MemoryError) else 1)


def _tell(source: str) -> str:
    """Print the traceback of the exception in flight, without this file's frames."""
    _use_reserve()
    try:
        import linecache
        import traceback

        linecache.cache[MAIN] = (len(source), None, source.splitlines(True), MAIN)
        kind, error, frames = sys.exc_info()
        while frames is not None and frames.tb_frame.f_code.co_filename == _HERE:
            frames = frames.tb_next
        text = "".join(traceback.format_exception(kind, error, frames))
    except MemoryError:
        text = "MemoryError\n"
    sys.stderr.write(text)
    return text


_HERE = main.__code__.co_filename


def _end(code: int) -> NoReturn:
    """End now, with what was printed."""
    import posix

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue
    posix._exit(code)


class _Wire:
    """Lines on what were standard input and output; the program gets empty ones instead."""

    def __init__(self) -> None:
        import posix

        self._in = open(posix.dup(0), encoding="ascii")  # noqa: SIM115 - for as long as the process lives
        self._out = open(posix.dup(1), "w", encoding="ascii")  # noqa: SIM115
        nothing = posix.open("/dev/null", posix.O_RDWR)
        posix.dup2(nothing, 0)
        posix.dup2(nothing, 1)
        posix.close(nothing)

    def send(self, message: str) -> None:
        self._out.write(message + "\n")
        self._out.flush()

    def receive(self) -> Any:
        """What the trusted side wrote; None where it will write no more."""
        line = self._in.readline()
        return eval(line, {"inf": float("inf"), "nan": float("nan"), "unreadable": Unreadable}) if line else None


def _serve(prelude: str, program: str, entry_point: str, names: dict[str, Any]) -> None:
    """Define what the program defines, then answer calls of one of its functions until no more come."""
    wire = _Wire()
    code = _compile(program)
    try:
        exec(prelude, names)
        exec(code, names)
        _find(names, entry_point)
    except BaseException as error:
        _tell(program)
        _end(MEMORY_ERROR if isinstance(error, MemoryError) else 1)
    wire.send('{"ready": true}')
    while (call := wire.receive()) is not None:
        args, kwargs = call
        try:
            answer = f'{{"value": {encode(_find(names, entry_point)(*args, **kwargs))}}}'
        except BaseException:
            answer = f'{{"error": {encode(_tell(program))}}}'
        wire.send(answer)


def _find(names: dict[str, Any], entry_point: str) -> Any:
    """The function of this name, or the method of a class ``Solution``; ``Solution().name`` is the latter too."""
    name = entry_point.removeprefix("Solution().")
    if name in names:
        return names[name]
    if hasattr(names.get("Solution"), name):
        return getattr(names["Solution"](), name)
    raise NameError(f"the program defines no {entry_point!r}")


def _check(prelude: str, check: str, entry_point: str, names: dict[str, Any]) -> None:
    """Run a trusted ``check(candidate)``; the candidate is asked for over the wire."""
    wire = _Wire()

    def candidate(*args: Any, **kwargs: Any) -> Any:
        named = [f"{encode(name)}: {encode(value)}" for name, value in kwargs.items()]
        wire.send(f'{{"args": {encode(list(args))}, "kwargs": {{{", ".join(named)}}}}}')
        (answer,) = wire.receive()  # empty: the candidate failed
        return answer

    try:
        exec(prelude, names)
        names[entry_point] = candidate
        exec(compile(check, MAIN, "exec", dont_inherit=True), names)
        names["check"](candidate)
    except MemoryError:  # says nothing of the program
        _tell(check)
        _end(MEMORY_ERROR)
    except BaseException:
        wire.send('{"passed": false}')
    else:
        wire.send('{"passed": true}')
