"""An SQLite connection that is written behind: rows are queued, and many are committed in one transaction.

A transaction a row is what makes small checkpoints dear: each rewrites whole pages and waits for the disk. Rows that
lie together in the tables have one owner, and an owner's rows can be committed without the others'.
"""

import atexit
import os
import sqlite3
import threading
import zlib
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from ..files import full_disk

BATCH = 2000
"""Rows that do not wait for more, and neither do as many times 32 KB."""

Row = tuple[str, tuple[Any, ...]]
"""A statement and its values; bytes at the values' end are compressed on the way."""


class WriteBehind:
    """A database and the rows that wait to be put into it; thread-safe.

    Args:
        file: the database, made if it does not exist.
        statements: every statement of the rows, in the order in which a transaction runs them.
        interval: seconds that a row may wait for others to share its transaction.
    """

    def __init__(self, file: Path, statements: Sequence[str], *, interval: float) -> None:
        self.file, self._statements, self._interval = file, statements, interval
        self.lock = threading.RLock()
        """Held while the connection is used."""
        self.db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
        self._queue: dict[Hashable, list[Row]] = {}
        self._queued = 0
        self._queue_lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._some, self._many = threading.Event(), threading.Event()
        self._commits = self._synced = 0
        self._error: RunFolderError | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        atexit.register(self.close)

    def put(self, owner: Hashable, rows: Sequence[Row]) -> None:
        """Queue rows that are committed together, after the owner's earlier ones.

        Raises:
            RunFolderError: it is closed; or an earlier commit failed: its rows are still queued and tried again.
        """
        with self._queue_lock:
            if self._closed:
                raise RunFolderError(f"{self.file} was closed: open it again to go on with it")
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._queue.setdefault(owner, []).extend(rows)
            self._queued += _weight(rows)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leafe-write-behind", daemon=True)
                self._thread.start()
        self._some.set()
        if self._queued >= BATCH:
            self._many.set()

    def flush(self, owner: Hashable = None) -> None:
        """Return when all that was put before, or all of one owner's, is safe from a kill and from a power failure.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        with self.lock:
            self.commit(owner)
            commits = self._commits
        with self._sync_lock:
            if self._synced < commits:  # else somebody else's sync was ours too
                commits = self._commits
                with open(f"{self.file}-wal", "rb") as log:
                    os.fsync(log.fileno())
                self._synced = commits

    def close(self) -> None:
        """Commit what is queued and close the file; may be called twice."""
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
                    self.commit()
                finally:
                    self.db.close()

    def commit(self, owner: Hashable = None) -> None:
        """Put the queue, or one owner's part of it, into the tables in one transaction; with the lock held.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        with self._queue_lock:
            owners = list(self._queue) if owner is None else [owner]
            taken = {each: self._queue.pop(each, []) for each in owners}
            rows = [row for each in taken.values() for row in each]
            self._queued -= _weight(rows)
            self._error = None
        if not rows:
            return
        try:
            with self.transaction():
                first, *others = self._statements
                self.db.executemany(first, dict.fromkeys(row for sql, row in rows if sql is first))
                for statement in others:
                    self.db.executemany(statement, [_compressed(row) for sql, row in rows if sql is statement])
        except BaseException:
            with self._queue_lock:
                self._queue |= {each: rows + self._queue.get(each, []) for each, rows in taken.items()}
                self._queued += _weight(rows)
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done inside, or nothing of it; with the lock held."""
        with self.writing():
            try:
                self.db.execute("BEGIN IMMEDIATE")
                yield
                self.db.execute("COMMIT")
                self._commits += 1
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in a RunFolderError what SQLite says inside."""
        try:
            yield
        except sqlite3.Error as error:
            full = full_disk(self.file, error)
            raise full or RunFolderError(f"{self.file} cannot be written: {error}") from error

    def _work(self) -> None:
        """Commit now and then, until closed."""
        while not self._closed:
            self._some.wait()
            self._many.wait(self._interval)
            self._some.clear()
            self._many.clear()
            try:
                with self.lock:
                    self.commit()
            except RunFolderError as error:
                self._error = error  # for whoever puts next


def _compressed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:-1], zlib.compress(row[-1], 1)) if isinstance(row[-1], bytes) else row


def _weight(rows: Sequence[Row]) -> int:
    """How much of a `BATCH` the rows are."""
    return sum(1 + len(row[-1]) // 2**15 for _, row in rows)
