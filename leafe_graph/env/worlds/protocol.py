"""What a world must have, so that a decision can be gone back to with everything that its tools have changed."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class World(Protocol):
    """Something that tools change and that can be brought back as it was.

    Its methods wait for disks and networks, so an event loop calls them in threads; they are called while no tool runs.
    `leafe_graph.testing.check_world` proves one of your own.

    A world may also have ``place``, what it is a world *of*: two episodes cannot have the same place at once
    (`occupy`); a `pathlib.Path` that exists is locked against other processes, too.
    """

    durable: bool
    """Whether a ref outlives the process: it can be restored by an equal world in another process."""

    def snapshot(self) -> str:
        """Keep what is there now; a ref to bring it back by, as often as wanted, until it is forgotten.

        Raises:
            WorldBusy: something else writes to it.
            WorldError: it cannot be read.
        """
        ...

    def restore(self, ref: str) -> None:
        """Bring back what was there at that snapshot, in place, and nothing but that; what was kept stays kept.

        Raises:
            WorldLost: the ref is not known, or what it stands for is gone; nothing was changed.
            WorldBusy: something else uses it.
            WorldError: it cannot be written.
        """
        ...

    def forget(self, ref: str) -> None:
        """Give back what keeping this snapshot takes; nothing happens where the ref is not known."""
        ...


class Stateless(tuple[World, ...]):
    """No worlds, said on purpose: the tools change nothing that would have to be brought back."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "STATELESS"


STATELESS = Stateless()
"""Given as ``worlds=``: the tools only look things up. It is an empty tuple, but not the same as ``()``."""
