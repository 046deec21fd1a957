"""What exploring asks of the place where decision points are kept, whichever saver of LangGraph's that is."""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langgraph.checkpoint.base import BaseCheckpointSaver

Saver = BaseCheckpointSaver[Any]


class DecisionPoints(Protocol):
    """Where decision points are kept while trees grow."""

    @property
    def saver(self) -> Saver | None:
        """What the graph is compiled with; None where nothing is kept."""
        ...

    async def flush(self, thread_id: str) -> None:
        """Return when all that the thread put can be forked, also by another process after a kill."""
        ...

    async def drop(self, thread_id: str) -> None:
        """Delete a thread."""
        ...

    async def shrink(self) -> None:
        """Give the space of what was dropped back, where the place can."""
        ...


@runtime_checkable
class WritesBehind(Protocol):
    """A saver whose puts return before they are safe, and whose file shrinks only when asked, as `TreeSaver` is."""

    async def aflush(self, thread_id: str | None = None) -> None:
        """Return when what was put is safe from a kill."""
        ...

    def vacuum(self) -> None:
        """Give the space of what was deleted back."""
        ...


@dataclass(frozen=True)
class Saved:
    """Decision points in a saver; other savers than those that write behind are safe at once."""

    saver: Saver
    """For sync graphs, async ones or both."""

    async def flush(self, thread_id: str) -> None:
        """See `DecisionPoints`."""
        if isinstance(self.saver, WritesBehind):
            await self.saver.aflush(thread_id)

    async def drop(self, thread_id: str) -> None:
        """See `DecisionPoints`."""
        try:
            await self.saver.adelete_thread(thread_id)
        except NotImplementedError:  # LangGraph's way of saying that a saver is for sync graphs
            await asyncio.to_thread(self.saver.delete_thread, thread_id)

    async def shrink(self) -> None:
        """See `DecisionPoints`."""
        if isinstance(self.saver, WritesBehind):
            await asyncio.to_thread(self.saver.vacuum)


class Unsaved:
    """No decision points, for what never forks."""

    saver = None

    async def flush(self, thread_id: str) -> None:
        """Nothing was put."""

    async def drop(self, thread_id: str) -> None:
        """Nothing was put."""

    async def shrink(self) -> None:
        """Nothing was put."""
