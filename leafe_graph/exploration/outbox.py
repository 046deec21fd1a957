"""What a worker on a cluster has to say, until it is sent: branches together, and at once what somebody waits for."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..agent.context import Outage

HEARTBEAT = 5.0
"""Seconds after which it says how far its tasks are, though no branch has ended."""

Event = tuple[Any, ...]
"""What a worker says: the name of a method of the driver's `Cluster`, and what that is called with."""


class Outbox:
    """What waits to be sent, in its order.

    Args:
        size: bytes from which on it is sent at once.
        seconds: for which it waits for more otherwise.
        beat: what is said when nothing else was for a while; None is nothing.
    """

    def __init__(self, size: int, seconds: float, beat: Callable[[], Event | None]) -> None:
        self._limits, self._beat = (size, seconds), beat
        self._waiting: list[Event] = []
        self._bytes, self._now, self._any = 0, False, False
        self._changed = threading.Condition()

    def say(self, *event: Any, size: int = 0, now: bool = False, some_time: bool = False) -> None:
        """Have it sent: with what comes soon, ``now``, or ``some_time``, with whatever is sent next."""
        with self._changed:
            self._waiting.append(event)
            self._bytes += size
            self._now |= now
            self._any |= not some_time
            self._changed.notify()

    def parcels(self) -> Iterator[list[Event]]:
        """What is sent together."""
        size, seconds = self._limits
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._any, HEARTBEAT)
                self._changed.wait_for(lambda: not self._any or self._now or self._bytes >= size, seconds)
                parcel, self._waiting = self._waiting, []
                self._bytes, self._now, self._any = 0, False, False
            if (beat := self._beat()) is not None:
                parcel.append(beat)
            if parcel:
                yield parcel


class ToldOutage(Outage):
    """Has the one who sees all workers' calls told of this one's."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox, self._well = outbox, False

    def failed(self, error: Exception) -> None:
        """A call has failed."""
        self._well = False
        self._outbox.say("failed", str(error))

    def answered(self) -> None:
        """A call has not; said once for all in a row."""
        if not self._well:
            self._outbox.say("answered", some_time=True)
        self._well = True


class Warnings(logging.Handler):
    """Has warnings told where somebody reads them."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        """Send it as a text, with its traceback."""
        try:
            text = self.format(record)
        except Exception:  # its arguments do not fit: no fault of the tree that grows
            self.handleError(record)
        else:
            self._outbox.say("warning", record.levelno, text)
