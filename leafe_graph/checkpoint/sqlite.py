"""A LangGraph checkpointer on SQLite that writes behind and writes little: many supersteps become one transaction.

What is put is serialised at once and queued; a thread commits the queue every second, and `TreeSaver.flush` returns
when what was put before is on the disk. A read of a thread commits its queue first, so it sees every earlier put.

A channel's value is stored once, with the checkpoint that changed it; later checkpoints refer to it by its version.
For that a version must never mean two values: `TreeSaver.get_next_version` gives no number twice. The newest
checkpoint is the one that was put last, whatever the clock said: such numbers tell that, too.
"""

import itertools
import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import RunFolderError
from ..files import path_of
from .tables import (
    ANCESTORS,
    BEFORE,
    FORMAT,
    LAST_NUMBER,
    NEWEST_FIRST,
    PUT_CHANNELS,
    PUT_CHECKPOINT,
    PUT_THREAD,
    PUT_WRITES,
    TO_THIS_FORMAT,
    Tables,
    config_of,
    id_of,
    key_of,
    where_of,
)
from .twins import at_once, in_thread, one_by_one
from .write_behind import Row, WriteBehind

_ABSENT = object()


class TreeSaver(BaseCheckpointSaver[int]):
    """Checkpoints in one SQLite file; thread-safe, for sync and async graphs alike.

    A put returns before it is on the disk: a kill may lose what was put within the last ``interval``, never a part of a
    checkpoint, and never what was put before a `flush` that returned. Use it as a context manager, or call `close`.

    Args:
        file: the database; made if it does not exist.
        serde: how values become bytes; LangGraph's own if None.
        interval: seconds that a put may wait for others to share its transaction.

    Raises:
        RunFolderError: it cannot be opened, or holds something else, such as the tables of LangGraph's SqliteSaver.
    """

    def __init__(self, file: str | Path, *, serde: SerializerProtocol | None = None, interval: float = 1.0) -> None:
        super().__init__(serde=serde)
        self.file = path_of(file)
        self._version, self._version_lock = 0, threading.Lock()
        try:
            self._log = WriteBehind(
                self.file, (PUT_THREAD, PUT_CHECKPOINT, PUT_CHANNELS, PUT_WRITES), interval=interval
            )
            self._db = self._log.db
            try:
                self._open()
            except BaseException:
                self._log.close()
                raise
        except sqlite3.OperationalError as error:
            raise RunFolderError(
                f"{self.file} cannot be opened as a SQLite database: {error}; expected a file that can be written, or "
                "a new one in a folder that is there"
            ) from error

    def _open(self) -> None:
        try:
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise RunFolderError(f"{self.file} is no readable SQLite database: {error}") from error
        if tables and not ("channels" in tables and 1 <= version <= FORMAT):
            raise RunFolderError(
                f"{self.file} holds the tables {sorted(tables)} in format {version}; this release reads format "
                f"{FORMAT}. What LangGraph's SqliteSaver made can be pruned, but not gone on with"
            )
        with self._log.writing():
            self._db.execute("PRAGMA page_size = 2048")  # a commit rewrites whole pages
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 8000")
            self._db.execute("PRAGMA synchronous = NORMAL")  # flush() syncs the log itself
            if version < FORMAT:
                self._bring_to_this_format()
            (self._version,) = self._db.execute(f"SELECT coalesce(({LAST_NUMBER}), 0)").fetchone()

    def _bring_to_this_format(self) -> None:
        with self._log.transaction():  # of processes that open it at once, one does it and the others find it done
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for statement in TO_THIS_FORMAT.get(version, "").split(";"):
                self._db.execute(statement)

    @property
    def _tables(self) -> Tables:
        # With the serializer of now: LangGraph gives another one to a copy of a saver.
        return Tables(self._db, self.serde)

    # ---- putting

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Queue a checkpoint; see `BaseCheckpointSaver.put`."""
        where, parent = where_of(config), get_checkpoint_id(config)
        key = key_of(checkpoint["id"])
        head = {name: value for name, value in checkpoint.items() if name not in ("id", "channel_values")}
        body = self._tables.pack((head, get_checkpoint_metadata(config, metadata)))
        number = self.get_next_version(None, None)
        rows: list[Row] = [(PUT_CHECKPOINT, (*where, number, key, None if parent is None else key_of(parent), body))]
        values = checkpoint["channel_values"]
        by_version: dict[Any, dict[str, Any]] = defaultdict(dict)
        for name, version in new_versions.items():
            if name in values:
                by_version[version][name] = values[name]
        for version, changed in by_version.items():
            rows.append((PUT_CHANNELS, (*where, version, key, json.dumps(list(changed)), self._tables.pack(changed))))
        self._put(where, rows)
        return config_of(*where, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Queue what a task wrote; see `BaseCheckpointSaver.put_writes`."""
        where, key = where_of(config), key_of(config["configurable"]["checkpoint_id"])
        self._put(where, [(PUT_WRITES, (*where, key, self._tables.pack((task_id, task_path, list(writes)))))])

    def get_next_version(self, current: int | None, channel: None) -> int:
        """A number above ``current`` and all that are in the file; the clock keeps it apart from other processes'."""
        with self._version_lock:
            self._version = max(self._version, current or 0, time.time_ns()) + 1
            return self._version

    # ---- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the thread's newest; see `BaseCheckpointSaver.get_tuple`."""
        return next(self._read(config, limit=1), None)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, the newest first; see `BaseCheckpointSaver.list`."""
        found = self._read(config, before=before, any_ns=True)
        wanted = (filter or {}).items()
        matching = (each for each in found if all(each.metadata.get(k, _ABSENT) == v for k, v in wanted))
        return itertools.islice(matching, limit)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Each channel's nearest stored value and the writes since; see `BaseCheckpointSaver`."""
        histories = {name: DeltaChannelHistory(writes=[]) for name in channels}
        with self._log.lock:
            self._log.commit(where_of(config)[0])
            target = self._tables.find(config)
            if target is None:
                return histories
            thread, key = target
            stored = {name: self._tables.stored_versions(thread, name) for name in channels}
            missing = set(channels)
            chain = self._db.execute(ANCESTORS, (thread, key))
            next(chain, None)  # what is written at the checkpoint itself belongs to the next one
            for ancestor, body in chain:
                if not missing:
                    break
                for write in reversed(self._tables.writes(thread, ancestor)):
                    if write[1] in missing:
                        histories[write[1]]["writes"].append(write)
                versions = self._tables.unpack(body)[0]["channel_versions"]
                for name in [name for name in missing if versions.get(name) in stored[name]]:
                    histories[name]["seed"] = self._tables.values(thread, ancestor, {name: versions[name]})[name]
                    missing.discard(name)
        for history in histories.values():
            history["writes"].reverse()
        return histories

    def _read(
        self,
        config: RunnableConfig | None,
        *,
        before: RunnableConfig | None = None,
        any_ns: bool = False,
        limit: int = -1,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, the newest first."""
        where, values = ["TRUE"], list[Any]()
        if config is not None:
            where.append("thread_id = ?")
            values.append(str(config["configurable"]["thread_id"]))
            ns = config["configurable"].get("checkpoint_ns", None if any_ns else "")
            if ns is not None:
                where.append("ns = ?")
                values.append(ns)
            if (checkpoint_id := get_checkpoint_id(config)) is not None:
                where.append("id = ?")
                values.append(key_of(checkpoint_id))
        if before is not None and (earlier := get_checkpoint_id(before)) is not None:
            where.append(BEFORE)
            values += 2 * [key_of(earlier)]
        sql = "SELECT thread, thread_id, ns, id, parent, body FROM threads JOIN checkpoints USING (thread) WHERE "
        with self._log.lock:
            self._log.commit(None if config is None else where_of(config)[0])
            rows = self._db.execute(
                f"{sql}{' AND '.join(where)} ORDER BY {NEWEST_FIRST} LIMIT ?", (*values, limit)
            ).fetchall()
        for thread, thread_id, ns, key, parent, body in rows:
            head, metadata = self._tables.unpack(body)
            with self._log.lock:
                channel_values = self._tables.values(thread, key, head["channel_versions"])
                writes = self._tables.writes(thread, key)
            yield CheckpointTuple(
                config_of(thread_id, ns, id_of(key)),
                cast(Checkpoint, head | {"id": id_of(key), "channel_values": channel_values}),
                metadata,
                None if parent is None else config_of(thread_id, ns, id_of(parent)),
                writes,
            )

    # ---- the queue

    def _put(self, where: tuple[str, str], rows: Sequence[Row]) -> None:
        self._log.put(where[0], [(PUT_THREAD, where), *rows])

    def flush(self, thread_id: str | None = None) -> None:
        """Return when all that was put before, or all of one thread's, is safe from a kill and from a power failure.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        self._log.flush(thread_id)

    def close(self) -> None:
        """Commit what is queued and close the file; may be called twice."""
        self._log.close()

    # ---- deleting

    def delete_thread(self, thread_id: str) -> None:
        """Drop everything of a thread."""
        with self._log.lock:
            self._log.commit()
            with self._log.transaction():
                for table in ("checkpoints", "channels", "writes", "threads"):
                    of = "(SELECT thread FROM threads WHERE thread_id = ?)"
                    self._db.execute(f"DELETE FROM {table} WHERE thread IN {of}", (str(thread_id),))

    def keep(self, thread_id: str, checkpoint_ids: Collection[str]) -> None:
        """Drop all checkpoints of a thread but these and their ancestors, which they are rebuilt from."""
        with self._log.lock:
            self._log.commit()
            threads = "SELECT thread FROM threads WHERE thread_id = ?"
            for (thread,) in self._db.execute(threads, (thread_id,)).fetchall():
                kept: set[Any] = set()
                for checkpoint_id in checkpoint_ids:
                    kept.update(key for key, _ in self._db.execute(ANCESTORS, (thread, key_of(checkpoint_id))))
                every = self._db.execute("SELECT id FROM checkpoints WHERE thread = ?", (thread,)).fetchall()
                gone = [(thread, key) for (key,) in every if key not in kept]
                with self._log.transaction():
                    for table in ("checkpoints", "channels", "writes"):
                        self._db.executemany(f"DELETE FROM {table} WHERE thread = ? AND id = ?", gone)

    def threads(self) -> Sequence[str]:
        """The ids of all threads."""
        with self._log.lock:
            self._log.commit()
            return [name for (name,) in self._db.execute("SELECT DISTINCT thread_id FROM threads")]

    def vacuum(self) -> None:
        """Give the space of what was deleted back to the disk."""
        with self._log.lock:
            self._log.commit()
            with self._log.writing():
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # ---- the same for asyncio: puts queue at once, the rest may wait for the disk

    aput = at_once(put)
    aput_writes = at_once(put_writes)
    aget_tuple = in_thread(get_tuple)
    alist = one_by_one(list)
    aget_delta_channel_history = in_thread(get_delta_channel_history)
    adelete_thread = in_thread(delete_thread)
    aflush = in_thread(flush)

    def __enter__(self) -> "TreeSaver":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
