"""Checkpoints in a PostgreSQL database, written behind.

One connection a saver, which keeps nothing between transactions: no prepared statements, no settings; and no pipeline.
So PgBouncer may give each transaction another server connection.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import ConfigError, MissingDependency, RunFolderError
from .saver import SegmentSaver
from .write_behind import COLUMNS, Execute, R

SCHEMA = (
    "SELECT pg_advisory_xact_lock(x'1eafe'::int)",  # of those that come at once, one makes the table
    f"CREATE TABLE IF NOT EXISTS leafe_segments ({COLUMNS.format(bytes='BYTEA')}, PRIMARY KEY (number, writer))",
    "ALTER TABLE leafe_segments ALTER body SET STORAGE EXTERNAL",  # it is compressed already
    # Ids of any length; and so short an index is cheap to log.
    "CREATE INDEX IF NOT EXISTS leafe_segments_thread ON leafe_segments USING hash (thread_id)",
)


_BEFORE_HOST = re.compile(r"(?:[^@/?#%\s]|%[0-9a-fA-F]{2})*")
"""A user and a password as an address has them."""


def not_opened(address: str, error: Exception) -> ConfigError:
    """What is said of a database that cannot be opened: why, unless that may tell a part of the password.

    So does the database's library of an address that it reads otherwise than it is meant, and so would a traceback.
    """
    said, before_host = str(error).strip(), address.partition("://")[2].rpartition("@")[0]
    if not _BEFORE_HOST.fullmatch(before_host):
        said = (
            "its address has a user or a password with characters that stand for something else there: write them as "
            "%40 for @, %25 for %, %2F for /, %3F for ?, %23 for # and %20 for a space"
        )
    return ConfigError(f"the database for checkpoints cannot be opened: {said}")


class PostgresTreeSaver(SegmentSaver):
    """A LangGraph checkpointer on PostgreSQL; thread-safe, for sync and async graphs alike, also behind PgBouncer.

    A put returns before it is on the disk: a kill may lose what was put within the last ``interval``, never a part of a
    checkpoint, and never what was put before a `flush` that returned. Use it as a context manager, or call `close`.

    Args:
        address: ``postgresql://USER@HOST/DATABASE``. The table ``leafe_segments`` is made there if it is missing.
        serde: how values become bytes; LangGraph's own if None.
        interval: seconds that a put may wait for others to share its transaction.

    Raises:
        ConfigError: the database cannot be opened.
        MissingDependency: the extra that it needs is not installed.
    """

    def __init__(self, address: str, *, serde: SerializerProtocol | None = None, interval: float = 1.0) -> None:
        super().__init__(PostgresStore(address), serde=serde, interval=interval)


class PostgresStore:
    """Segments in a table; see `Store`.

    Raises:
        ConfigError: the database cannot be opened.
        MissingDependency: the extra that it needs is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingDependency(extra="postgres", needed_for="checkpoints in PostgreSQL") from error
        self._address, self._psycopg, self._let_go = address, psycopg, False
        try:
            self.connection = self._connect()
            info = self.connection.info
            self.name = f"the database {info.dbname} at {info.host}:{info.port}"
            ((there,),) = self.run(lambda execute: [*execute("SELECT to_regclass('leafe_segments') IS NOT NULL")])
            if not there:
                self.run(lambda execute: [execute(statement) for statement in SCHEMA])
        except (psycopg.Error, RunFolderError) as error:
            raise not_opened(address, error) from None

    def _connect(self) -> Any:
        return self._psycopg.connect(self._address, autocommit=True, prepare_threshold=None)

    def run(self, work: Callable[[Execute], R]) -> R:
        """See `Store`."""
        try:
            try:
                return self._run(work)
            except self._psycopg.OperationalError:
                if self._let_go or not self.connection.closed:
                    raise
                # What stood idle may have been closed by whoever is in between: once more, on a new one.
                self.connection = self._connect()
                return self._run(work)
        except self._psycopg.Error as error:
            raise RunFolderError(
                f"{self.name} cannot be used: {' '.join(str(error).split())} What was logged is safe: see to the "
                "database, then run the same command again to go on"
            ) from error

    def _run(self, work: Callable[[Execute], R]) -> R:
        with self.connection.transaction():
            return work(lambda sql, values=(): self.connection.execute(sql.replace("?", "%s"), values))

    def vacuum(self) -> None:
        """PostgreSQL does that itself."""

    def close(self) -> None:
        """See `Store`."""
        self._let_go = True
        with suppress(self._psycopg.Error):
            self.connection.close()
