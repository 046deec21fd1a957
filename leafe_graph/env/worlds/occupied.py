"""One episode at a time in one world: two would rewind each other's work."""

import fcntl
import os
import threading
from pathlib import Path

from ...errors import WorldBusy
from .protocol import World

_HELD: dict[object, tuple[str, World, int | None]] = {}
"""By place: who has it, the world (so that no other object gets its id), and the locked file."""
_GUARD = threading.Lock()


def occupy(world: World, owner: str) -> None:
    """Take a world for an episode, until `vacate` or the end of the process; its owner may take it again.

    Args:
        world: its ``place`` is taken where it has one, so also from other worlds of that place, and from other
            processes where the place is a path; else the object itself.
        owner: who takes it, as a thread's id. A run that failed has vacated nothing: the next one of the same owner
            goes on.

    Raises:
        WorldBusy: somebody else has it.
    """
    place = _place(world)
    with _GUARD:
        if place in _HELD:
            if (other := _HELD[place][0]) != owner:
                raise WorldBusy(
                    f"{_named(world)} is in use by {other!r}, asked for by {owner!r}: two episodes would rewind each "
                    "other's work; give each a world of its own (worlds= takes a function), or let one end first"
                )
            return
        _HELD[place] = owner, world, _locked(place, world) if isinstance(place, Path) and place.exists() else None


def vacate(world: World, owner: str) -> None:
    """Leave a world to others; nothing happens where the owner does not have it."""
    with _GUARD:
        if (held := _HELD.get(place := _place(world))) and held[0] == owner:
            del _HELD[place]
            if held[2] is not None:
                os.close(held[2])


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
