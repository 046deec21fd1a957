"""Fast Downward for ALFWorld: copies of its library, its translator with a cache on disk, its planner.

A copy of the library holds one game, since it has global variables. All copies share one registry, so none can be
unloaded safely: a copy that is given back is used again. The translator has global options, wants arguments of its own
in `sys.argv` when it is imported and writes to `sys.stdout`, which is sent elsewhere meanwhile. So loading a copy, the
translator, the planner and textworld's parsers run under one lock; what is played runs side by side.
"""

import contextlib
import ctypes
import gzip
import hashlib
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from leafe_graph import files

LOCK = threading.RLock()

_IDLE: list[Any] = []
"""Copies of the library that nobody uses now."""


def take_library() -> Any:
    """A copy of the library that nobody else uses."""
    with LOCK:
        if _IDLE:
            return _IDLE.pop()
        import fast_downward

        lib = fast_downward.load_lib()  # copies the file, loads the copy and deletes it again
        lib.set_state_id.argtypes, lib.set_state_id.restype = [ctypes.c_int], None
        return lib


def give_back(lib: Any) -> None:
    """Let others use a copy."""
    _IDLE.append(lib)


def cache_dir() -> Path:
    """Where games and translations are kept, in the folder of all that this package keeps."""
    return files.cache_dir() / "alfworld"


@contextlib.contextmanager
def _translator() -> Iterator[None]:
    """For Fast Downward's translator: one thread at a time, and the arguments that it wants to see when imported."""
    with LOCK:
        argv, sys.argv = sys.argv, ["translate.py", "domain", "task"]
        try:
            yield
        finally:
            sys.argv = argv


def _lisp(pddl: str) -> list[Any]:
    with _translator():
        from fast_downward.translate.pddl_parser import lisp_parser

        nested: list[Any] = lisp_parser.parse_nested_list(pddl.split("\n"))
    return nested


def parse_task(domain: str, problem: str) -> Any:
    """The translator's view of a domain and a problem."""
    with _translator():
        from fast_downward.translate.pddl_parser import parsing_functions

        return parsing_functions.parse_task(_lisp(domain), _lisp(problem))


def _translate(domain: str, problem: str, *, optimize: bool) -> bytes:
    """PDDL as SAS."""
    import fast_downward

    with _translator():
        return bytes(fast_downward.pddl2sas(domain, problem, optimize=optimize)[1].encode())


def sas_of(domain: str, problem: str) -> bytes:
    """A game as SAS with every operator and fact, as textworld plays it; translated once for all processes."""
    key = "\0".join((metadata.version("fast_downward_textworld"), domain, problem))
    file = cache_dir() / "sas" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.gz"
    with contextlib.suppress(OSError, EOFError, zlib.error):
        return gzip.decompress(file.read_bytes())
    sas = _translate(domain, problem, optimize=False)
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".new-", delete=False) as new:
            new.write(gzip.compress(sas))
        os.replace(new.name, file)
    return sas


_TOOLS = ("sinkbasintype", "microwavetype", "fridgetype")
"""Kinds of receptacles that the domain's rules name."""


def relevant(problem: str) -> str:
    """A problem without the things that its goal does not name, and without receptacles that hold nothing for it."""
    parsed = _lisp(problem)
    part = {section[0]: section for section in parsed[1:]}
    named = {*_words(part[":goal"]), *_TOOLS}
    facts = [fact for fact in part[":init"][1:] if fact[0] != "="]
    dropped = {fact[1] for fact in facts if fact[0] == "objecttype" and fact[2] not in named}
    used = {fact[2] for fact in facts if fact[0] == "inreceptacle" and fact[1] not in dropped}
    dropped |= {fact[1] for fact in facts if fact[0] == "receptacletype" and not {fact[1], fact[2]} & (named | used)}
    part[":objects"][:] = [word for word in part[":objects"] if word not in dropped]
    part[":init"][1:] = [fact for fact in part[":init"][1:] if dropped.isdisjoint(_words(fact))]
    return _text(parsed)


def _words(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for inner in part:
            yield from _words(inner)


def _text(part: Any) -> str:
    return part if isinstance(part, str) else f"({' '.join(map(_text, part))})"


def plan(domain: str, problem: str) -> list[str]:
    """The operators of the planner's solution; empty where it finds none."""
    import fast_downward

    sas = _translate(domain, problem, optimize=True)
    lib = take_library()
    with LOCK:
        solved = lib.solve_sas(sas, False)
        operators = (fast_downward.Operator * (lib.get_last_plan_length() if solved else 0))()
        lib.get_last_plan(operators)
    give_back(lib)
    return [operator.name for operator in operators]
