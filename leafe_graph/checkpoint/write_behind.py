"""Threads in a database that is written behind: what is put is queued, and many puts become one row.

A transaction a superstep is what makes small checkpoints dear: each waits for the disk. All that a thread put between
two flushes is one compressed segment here, a row by itself, so that a thread is deleted, and read, by its id.
"""

import atexit
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from ..errors import RunFolderError
from .thread import Row, Thread, rows_of, segment, weight

R = TypeVar("R")
Execute = Callable[..., Iterable[Any]]
"""Runs an SQL statement with ``?`` for each of its parameters; what it finds."""

MOST = 2**26
"""Bytes that wait for others at most, and as many of threads that were read stay in memory."""
MOST_THREADS = 1000
"""Threads that were read and stay in memory."""
RETRY = 1.0
"""Seconds before a commit that failed is tried again, beside the interval."""
COLUMNS = "number BIGINT NOT NULL, writer BIGINT NOT NULL, thread_id TEXT NOT NULL, body {bytes} NOT NULL"
"""Of the table ``leafe_segments``. ``number`` is above all numbers in the body; with the writer's it is unique, so that
to put a segment again, when nobody knows whether it arrived, puts nothing twice."""
_LAST = "SELECT coalesce(max(number), 0) FROM leafe_segments"
PUT = "INSERT INTO leafe_segments (number, writer, thread_id, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_READ = """SELECT number, writer, CASE WHEN number > ? THEN body END FROM leafe_segments
    WHERE thread_id = ? ORDER BY number, writer"""
_DELETE = "DELETE FROM leafe_segments WHERE thread_id = ?"
_THREADS = "SELECT DISTINCT thread_id FROM leafe_segments"


class Store(Protocol):
    """A database with a table ``leafe_segments``; used by one thread at a time."""

    name: str
    """What errors call it."""

    def run(self, work: Callable[[Execute], R]) -> R:
        """Do some work in one transaction, which is safe from a power failure on return; perhaps more than once.

        Raises:
            RunFolderError: it cannot be done; nothing was.
        """
        ...

    def vacuum(self) -> None:
        """Give the space of what was deleted back, where that is ours to do."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Cached(Thread):
    """A thread that was read."""

    def __init__(self) -> None:
        super().__init__()
        self.segments: set[tuple[int, int]] = set()
        """Those that it has, by number and writer."""
        self.pending = 0
        """How many of the queued rows it has."""


class WriteBehind:
    """Threads in a store, and the rows that wait to be put into it; thread-safe.

    Args:
        store: what keeps them.
        interval: seconds that a row may wait for others to share its segment.
    """

    def __init__(self, store: Store, *, interval: float) -> None:
        self.lock = threading.RLock()
        """Held while the store and what was read of it are used."""
        self._store, self._interval = store, interval
        self._queue: dict[str, list[Row]] = {}
        self._asked: set[str] = set()
        self._queued = 0
        self._read: OrderedDict[str, Cached] = OrderedDict()
        self._held = 0  # their sizes' sum
        self._queue_lock, self._number_lock = threading.Lock(), threading.Lock()
        self._writer = secrets.randbits(63)
        self._some, self._many = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._number: int
        ((self._number,),) = store.run(lambda execute: [*execute(_LAST)])
        atexit.register(self.close)

    def next_number(self, above: int = 0) -> int:
        """A number above this one and all that are in the store; the clock keeps it apart from other processes'."""
        with self._number_lock:
            self._number = max(self._number, above, time.time_ns()) + 1
            return self._number

    # ---- putting

    def put(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Queue rows that are committed together, after the thread's earlier ones.

        Raises:
            RunFolderError: it is closed; or an earlier commit failed: its rows are still queued and tried again. What
                stopped that may also be another exception.
        """
        with self._queue_lock:
            if self._closed:
                raise RunFolderError(f"{self._store.name} was closed: open it again to go on with it")
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._queue.setdefault(thread_id, []).extend(rows)
            self._queued += sum(map(weight, rows))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leafe-write-behind", daemon=True)
                self._thread.start()
        self._some.set()
        if self._queued >= MOST:
            self._many.set()

    def flush(self, thread_id: str | None = None) -> None:
        """Return when all that was put before, or all of one thread's, is safe from a kill and from a power failure.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        mine = set() if thread_id is None else {thread_id}
        with self._queue_lock:
            self._asked |= mine
        with self.lock:
            with self._queue_lock:  # what others wait for goes along, in one transaction
                asked, self._asked = self._asked | mine, set()
            # All of it as it is now: what was being committed may have come back.
            self._commit(None if thread_id is None else asked)

    def close(self) -> None:
        """Commit what is queued and close the store; may be called twice."""
        with self._queue_lock:
            closed, self._closed = self._closed, True
        self._some.set()
        self._many.set()
        if self._thread is not None:
            self._thread.join()
        if not closed:
            atexit.unregister(self.close)
            with self.lock:
                try:
                    self._commit()
                finally:
                    self._store.close()

    def _commit(self, thread_ids: Iterable[str] | None = None) -> None:
        """Put the queue, or these threads' part of it, into the store in one transaction; with the lock held."""
        with self._queue_lock:
            names = list(self._queue if thread_ids is None else thread_ids)
            taken = {name: self._queue.pop(name) for name in names if name in self._queue}
            size = sum(weight(row) for rows in taken.values() for row in rows)
            self._queued -= size
            self._error = None
        if not taken:
            return
        try:
            parts = [self._part(name, rows) for name, rows in taken.items()]
            self._store.run(lambda execute: [execute(PUT, part) for part in parts])
        except BaseException:
            with self._queue_lock:
                self._queue |= {name: rows + self._queue.get(name, []) for name, rows in taken.items()}
                self._queued += size
            raise
        for number, writer, name, _ in parts:
            if (thread := self._read.get(name)) is not None:
                before = thread.size
                thread.apply(taken[name][thread.pending :])
                self._held += thread.size - before
                thread.pending = 0
                thread.segments.add((number, writer))

    def _part(self, thread_id: str, rows: Sequence[Row]) -> tuple[int, int, str, bytes]:
        """A segment as it is put."""
        return self.next_number(last_number(rows)), self._writer, thread_id, segment(rows)

    def _work(self) -> None:
        """Commit now and then, until closed."""
        while not self._closed:
            self._some.wait()
            self._many.wait(self._interval)
            self._some.clear()
            self._many.clear()
            try:
                with self.lock:
                    self._commit()
            except Exception as error:
                self._error = error  # for whoever puts next
                self._some.set()  # it is tried again, whether anybody does or not
                self._many.wait(RETRY)

    # ---- reading

    @contextmanager
    def reading(self, thread_id: str) -> Iterator[Thread]:
        """A thread with all that was put, by others too; not to be looked at without the lock."""
        with self.lock:
            yield self._up_to_date(thread_id)

    def _up_to_date(self, thread_id: str) -> Cached:
        thread = self._forget(thread_id) or Cached()
        if not self._take_in(thread, thread_id):  # something of it was deleted by others
            self._take_in(thread := Cached(), thread_id)
        with self._queue_lock:
            queued = self._queue.get(thread_id, [])[thread.pending :]
        thread.apply(queued)
        thread.pending += len(queued)
        self._read[thread_id] = thread
        self._held += thread.size
        while len(self._read) > 1 and (self._held > MOST or len(self._read) > MOST_THREADS):
            self._forget(next(iter(self._read)))
        return thread

    def _forget(self, thread_id: str) -> Cached | None:
        """Let go of a thread that was read."""
        thread = self._read.pop(thread_id, None)
        self._held -= thread.size if thread is not None else 0
        return thread

    def _take_in(self, thread: Cached, thread_id: str) -> bool:
        """Apply the segments that a thread has not; False where that is not all that it takes."""
        known = max((number for number, _ in thread.segments), default=-1)
        found = self._store.run(lambda execute: [*execute(_READ, (known, thread_id))])
        new = {(number, writer): body for number, writer, body in found if (number, writer) not in thread.segments}
        if len(new) + len(thread.segments) != len(found) or any(body is None for body in new.values()):
            return False
        for (number, writer), body in new.items():
            thread.apply([*rows_of(body)])
            thread.size += len(body)
            thread.segments.add((number, writer))
            self.next_number(number)
        return True

    def threads(self) -> list[str]:
        """The ids of all threads."""
        with self.lock:
            found = self._store.run(lambda execute: [*execute(_THREADS)])
            with self._queue_lock:
                return list(dict.fromkeys([*(name for (name,) in found), *self._queue]))

    # ---- deleting

    def keep(self, thread_id: str, checkpoint_ids: Collection[str] = ()) -> None:
        """Drop all checkpoints of a thread but these and their ancestors."""
        with self.lock:
            rows = self._up_to_date(thread_id).kept(checkpoint_ids) if checkpoint_ids else []
            part = self._part(thread_id, rows)

            def replace(execute: Execute) -> None:
                execute(_DELETE, (thread_id,))
                if rows:
                    execute(PUT, part)

            self._store.run(replace)
            read = self._forget(thread_id)
            with self._queue_lock:
                queued = self._queue.pop(thread_id, [])
                there = read.pending if read is not None and checkpoint_ids else len(queued)
                self._queued -= sum(map(weight, queued[:there]))
                if queued[there:]:  # put in the meantime
                    self._queue[thread_id] = queued[there:]

    def vacuum(self) -> None:
        """Give the space of what was deleted back."""
        with self.lock:
            self._commit()
            self._store.vacuum()


def last_number(rows: Iterable[Row]) -> int:
    """The greatest number in them."""
    return max((row.number for row in rows if isinstance(row.number, int)), default=0)
