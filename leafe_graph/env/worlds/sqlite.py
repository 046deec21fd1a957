"""A SQLite file as a world: brought back through SQLite itself, so that connections may stay open."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ...errors import ConfigError, LeafeError, WorldBusy, WorldError
from ...files import path_of
from .store import FILE, Entry, Status, Store, settled


class SqliteFile:
    """A SQLite database that tools write to, brought back in place with `sqlite3.Connection.backup`.

    Right with a write-ahead log, and while tools keep their connections open; killed in the middle, the database is
    what it was before. What a tool has not committed is no part of the database: a transaction that is open is waited
    for, and then is an error. What a restore replaces is kept first and listed in `replaced`; equal states are kept
    once.

    Args:
        path: the database; where there is none yet, it is restored as one without tables.
        store: the folder where snapshots are kept, for this file alone; None: beside it, with the ending ``.leafe``. It
            has copies of all that was in the database, so it can be read by the user alone.
        wait: seconds to wait for other connections at most.

    Raises:
        ConfigError: the path is that of a folder, or its folder is not there; ``wait`` is negative.
    """

    durable = True

    def __init__(
        self, path: str | os.PathLike[str], store: str | os.PathLike[str] | None = None, *, wait: float = 5.0
    ) -> None:
        self.path = Path(os.path.realpath(path_of(path)))
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ConfigError(f"{path} is a folder, or in none; expected the path of a SQLite file")
        if wait < 0:
            raise ConfigError(f"wait={wait}; expected seconds >= 0")
        place = Path(os.path.realpath(path_of(store))) if store else self.path.with_name(f"{self.path.name}.leafe")
        self._store, self._wait = Store(place, self.path), wait
        self._last: tuple[list[tuple[int, Status] | None], str] | None = None

    @property
    def place(self) -> Path:
        """The store: to open and close the database past SQLite would take its locks from the tools' connections."""
        self._store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._store.folder

    @property
    def replaced(self) -> list[str]:
        """Refs of what restores have replaced, oldest first: each can be restored, or forgotten."""
        return self._store.replaced()

    def snapshot(self) -> str:
        """Keep what is committed.

        Raises:
            WorldBusy: another connection's transaction has been open for all of ``wait``.
            WorldError: it is no database, or cannot be read.
        """
        with self._alone("kept"):
            return self._keep(replaced=False)

    def restore(self, ref: str) -> None:
        """Make the database what it was.

        Raises:
            WorldLost: there is no such snapshot, or it is damaged; the database is as it was.
            WorldBusy: another connection's transaction has been open for all of ``wait``; it is as it was.
            WorldError: it cannot be written; it is as it was.
        """
        with self._alone("restored"):
            then = self._store.point(ref)
            # immutable: nothing is written beside it, whatever the journal mode that its header tells
            source = f"file:{quote(self._store.path(then.held))}?mode=ro&immutable=1" if then else ":memory:"
            kept = self._keep(replaced=True)
            if self._store.point(kept) == then:
                self._store.forget(kept)
                return
            with _connected(source) as back, _connected(f"file:{quote(str(self.path))}?mode=rwc") as live:
                self._copy(back, live)

    def forget(self, ref: str) -> None:
        """Drop a snapshot, and now and then what no other one holds."""
        with self._alone("seen to"):
            self._store.forget(ref)

    def _keep(self, *, replaced: bool) -> str:
        if not self.path.exists():
            return self._store.add_point(None, replaced=replaced)
        file = self._store.folder / "database.tmp"
        for name in (file, *(file.with_name(file.name + end) for end in ("-journal", "-wal", "-shm"))):
            name.unlink(missing_ok=True)  # left by a kill
        live, new = f"file:{quote(str(self.path))}?mode=rw", f"file:{quote(str(file))}"
        with _connected(live, self._wait) as guard:
            guard.execute("BEGIN IMMEDIATE")  # nobody is in the middle of writing, and nobody begins to
            began, now = time.time_ns(), self._files()
            if self._last and self._last[0] == now and self._store.has(self._last[1]):
                held = self._last[1]
            else:
                with _connected(live) as source, _connected(new) as copy:
                    self._copy(source, copy)
                held = self._store.take(file)
                sure = all(each is None or settled(each[1], began) for each in now)
                self._last = (now, held) if sure else None
        return self._store.add_point(Entry(FILE, 0, 0, 0, 0, held), replaced=replaced)

    def _files(self) -> list[tuple[int, Status] | None]:
        """What the system says of the database and its log; never opened here: closing would take SQLite's locks."""
        told: list[tuple[int, Status] | None] = []
        for file in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            try:
                found = os.stat(file)
            except FileNotFoundError:
                told.append(None)
            else:
                # root's SQLite sets the owner of the log anew, which is a change of nothing but its ctime
                status = Status.of(found)._replace(ctime=found.st_mtime_ns)
                told.append((found.st_ino, status) if found.st_size else None)
        return told

    def _copy(self, source: sqlite3.Connection, target: sqlite3.Connection) -> None:
        """All pages; it would wait for ever for a lock."""
        end = time.monotonic() + self._wait

        def told(status: int, remaining: int, total: int) -> None:
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
                raise sqlite3.OperationalError("database is locked")

        source.backup(target, progress=told, sleep=min(0.05, self._wait))

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        try:
            with self._store.locked():
                yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise WorldBusy(
                    f"{self.path} cannot be {what}: another connection has held it for {self._wait:g} s, as one does "
                    "that has not committed, or has not read its SELECT to the end; let the tools do so, or raise wait="
                ) from error
            raise WorldError(f"{self.path} cannot be {what}: {error}") from error
        except OSError as error:
            if isinstance(error, LeafeError):
                raise
            raise WorldError(f"{self.path} cannot be {what}: {error.filename}: {error.strerror}") from error


@contextlib.contextmanager
def _connected(address: str, wait: float = 0.0) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(address, timeout=wait, uri=True, isolation_level=None)) as connection:
        yield connection
