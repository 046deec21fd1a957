"""One episode at a time in one world: two would rewind each other's work."""

import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import WorldBusy
from .protocol import World

Where = Sequence[tuple[str, str]]
"""Where in a run its agent is: from outside to inside, the step of the outer graph and the call in it."""


class _Held(NamedTuple):
    """Who has a place."""

    owner: str
    where: Where
    world: World  # kept, so that no other object gets its id
    lock: int | None  # the locked file


_HELD: dict[object, _Held] = {}
_GUARD = threading.Lock()


def occupy(world: World, owner: str, where: Where = ()) -> None:
    """Take a world for an episode, until `vacate` or the end of the process; its owner may take it again.

    Args:
        world: its ``place`` is taken where it has one, so also from other worlds of that place, and from other
            processes where the place is a path; else the object itself.
        owner: who takes it, as a thread's id. A run that failed has vacated nothing: the next one of the same owner
            goes on.
        where: an owner's agents that are at work side by side have no world in common; one that is inside another may
            take the other's.

    Raises:
        WorldBusy: somebody else has it.
    """
    place = _place(world)
    with _GUARD:
        held = _HELD.get(place)
        if held is not None and (held.owner != owner or _beside(held.where, where)):
            other = f"{held.owner!r}, asked for by {owner!r}" if held.owner != owner else f"another agent of {owner!r}"
            raise WorldBusy(
                f"{_named(world)} is in use by {other}: two episodes would rewind each other's work; give each a world "
                "of its own (worlds= takes a function), or let one end first"
            )
        if held is not None:
            lock = held.lock
        else:
            lock = _locked(place, world) if isinstance(place, Path) and place.exists() else None
        _HELD[place] = _Held(owner, where, world, lock)


def vacate(world: World, owner: str) -> None:
    """Leave a world to others; nothing happens where the owner does not have it."""
    with _GUARD:
        if (held := _HELD.get(place := _place(world))) and held.owner == owner:
            del _HELD[place]
            if held.lock is not None:
                os.close(held.lock)


def _beside(one: Where, other: Where) -> bool:
    """Whether two agents of a run are called by the same step of a graph, and not one inside the other."""
    for (step, call), (its_step, its_call) in zip(one, other, strict=False):
        if call != its_call:
            return step == its_step
    return False


def _place(world: World) -> object:
    return getattr(world, "place", id(world))


def _named(world: World) -> str:
    place = getattr(world, "place", None)
    return f"{type(world).__name__} {place}" if isinstance(place, Path) else f"this {type(world).__name__}"


def _locked(place: Path, world: World) -> int:
    """A lock on the place itself, so that nothing is written beside or into it; the system frees it at our end."""
    file = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise WorldBusy(
            f"{_named(world)} is in use by another process; wait for it, stop it, or give this one a world of its own"
        ) from None
    except OSError:  # a file system without locks
        os.close(file)
        raise
    return file
