"""Checkpoints in one SQLite file, written behind."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import RunFolderError
from ..files import full_disk, path_of
from .earlier import TABLES, earlier_threads
from .saver import SegmentSaver
from .thread import segment
from .write_behind import COLUMNS, PUT, Execute, R, last_number

FORMAT = 3
"""``PRAGMA user_version`` of the files that this release writes."""
SCHEMA = (
    f"CREATE TABLE leafe_segments ({COLUMNS.format(bytes='BLOB')}, PRIMARY KEY (number, writer)) WITHOUT ROWID",
    "CREATE INDEX leafe_segments_thread ON leafe_segments (thread_id)",
    f"PRAGMA user_version = {FORMAT}",
)


class TreeSaver(SegmentSaver):
    """A LangGraph checkpointer on SQLite; thread-safe, for sync and async graphs alike.

    A put returns before it is on the disk: a kill may lose what was put within the last ``interval``, never a part of a
    checkpoint, and never what was put before a `flush` that returned. Use it as a context manager, or call `close`.

    Args:
        file: the database; made if it does not exist. One of an earlier release is brought to this release's format.
        serde: how values become bytes; LangGraph's own if None.
        interval: seconds that a put may wait for others to share its transaction.

    Raises:
        RunFolderError: it cannot be opened, or holds something else, such as the tables of LangGraph's SqliteSaver.
    """

    def __init__(self, file: str | Path, *, serde: SerializerProtocol | None = None, interval: float = 1.0) -> None:
        self.file = path_of(file)
        super().__init__(SqliteStore(self.file), serde=serde, interval=interval)


class SqliteStore:
    """Segments in a file; see `Store`.

    Raises:
        RunFolderError: it cannot be opened, or holds something else.
    """

    def __init__(self, file: Path) -> None:
        self.name, self._file = str(file), file
        try:
            self.db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
            try:
                self._open()
            except BaseException:
                self.db.close()
                raise
        except sqlite3.OperationalError as error:
            raise RunFolderError(
                f"{file} cannot be opened as a SQLite database: {error}; expected a file that can be written, or "
                "a new one in a folder that is there"
            ) from error

    def _open(self) -> None:
        try:
            tables = {name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise RunFolderError(f"{self.name} is no readable SQLite database: {error}") from error
        if tables and not (tables & {"channels", "leafe_segments"} and 1 <= version <= FORMAT):
            raise RunFolderError(
                f"{self.name} holds the tables {sorted(tables)} in format {version}; this release reads format "
                f"{FORMAT}. What LangGraph's SqliteSaver made can be pruned, but not gone on with"
            )
        try:
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA wal_autocheckpoint = 4000")
            self.db.execute("PRAGMA synchronous = FULL")  # a transaction is on the disk when it has ended
        except sqlite3.Error as error:
            raise self._told(error) from error
        if version < FORMAT:
            self.run(self._bring_to_this_format, begin="BEGIN IMMEDIATE")

    def _bring_to_this_format(self, execute: Execute) -> None:
        # Of processes that open it at once, one does it and the others find it done.
        ((version,),) = execute("PRAGMA user_version")
        if version == FORMAT:
            return
        for statement in SCHEMA:
            execute(statement)
        if version:
            for number, (thread_id, rows) in enumerate(earlier_threads(self.db, version)):
                execute(PUT, (last_number(rows), number, thread_id, segment(rows)))
            for table in TABLES:
                execute(f"DROP TABLE {table}")

    def run(self, work: Callable[[Execute], R], *, begin: str = "BEGIN") -> R:
        """See `Store`."""
        try:
            self.db.execute(begin)
            try:
                result = work(self.db.execute)
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._told(error) from error
        return result

    def vacuum(self) -> None:
        """See `Store`."""
        try:
            self.db.execute("VACUUM")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._told(error) from error

    def close(self) -> None:
        """See `Store`."""
        self.db.close()

    def _told(self, error: sqlite3.Error) -> RunFolderError:
        return full_disk(self._file, error) or RunFolderError(f"{self.name} cannot be written: {error}")
