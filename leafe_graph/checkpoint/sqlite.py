"""A LangGraph checkpointer on SQLite that writes behind and writes little: many supersteps become one transaction.

What is put is serialised at once and queued; a thread commits the queue every second, and `TreeSaver.flush` returns
when what was put before is on the disk. A read of a thread commits its queue first, so it sees every earlier put.

A channel's value is stored once, with the checkpoint that changed it; later checkpoints refer to it by its version.
For that a version must never mean two values: `TreeSaver.get_next_version` gives no number twice.
"""

import asyncio
import itertools
import json
import sqlite3
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import RunFolderError
from .tables import (
    ANCESTORS,
    FORMAT,
    PUT_CHANNELS,
    PUT_CHECKPOINT,
    PUT_THREAD,
    PUT_WRITES,
    SCHEMA,
    config_of,
    id_of,
    key_of,
    where_of,
)
from .write_behind import Row, WriteBehind

Writes = list[PendingWrite]

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
        RunFolderError: the file holds something else, such as the tables of LangGraph's SqliteSaver.
    """

    def __init__(self, file: str | Path, *, serde: SerializerProtocol | None = None, interval: float = 1.0) -> None:
        super().__init__(serde=serde)
        self.file = Path(file)
        self._version, self._version_lock = 0, threading.Lock()
        self._log = WriteBehind(self.file, (PUT_THREAD, PUT_CHECKPOINT, PUT_CHANNELS, PUT_WRITES), interval=interval)
        self._db = self._log.db
        try:
            self._open()
        except BaseException:
            self._log.close()
            raise

    def _open(self) -> None:
        try:
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise RunFolderError(f"{self.file} is no readable SQLite database: {error}") from error
        if tables and version != FORMAT:
            raise RunFolderError(
                f"{self.file} holds the tables {sorted(tables)} in format {version}; this release reads format "
                f"{FORMAT}. What LangGraph's SqliteSaver made can be pruned, but not gone on with"
            )
        with self._log.writing():
            self._db.execute("PRAGMA page_size = 2048")  # a commit rewrites whole pages
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 8000")
            self._db.execute("PRAGMA synchronous = NORMAL")  # flush() syncs the log itself
            if not tables:
                self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

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
        body = self._pack((head, get_checkpoint_metadata(config, metadata)))
        rows: list[Row] = [(PUT_CHECKPOINT, (*where, key, None if parent is None else key_of(parent), body))]
        values = checkpoint["channel_values"]
        by_version: dict[Any, dict[str, Any]] = defaultdict(dict)
        for name, version in new_versions.items():
            if name in values:
                by_version[version][name] = values[name]
        for version, changed in by_version.items():
            rows.append((PUT_CHANNELS, (*where, version, key, json.dumps(list(changed)), self._pack(changed))))
        self._put(where, rows)
        return config_of(*where, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Queue what a task wrote; see `BaseCheckpointSaver.put_writes`."""
        where, key = where_of(config), key_of(config["configurable"]["checkpoint_id"])
        self._put(where, [(PUT_WRITES, (*where, key, self._pack((task_id, task_path, list(writes)))))])

    def get_next_version(self, current: int | None, channel: None) -> int:
        """A number above ``current`` that was never given before; the clock keeps it apart from other processes'."""
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
            target = self._find(config)
            if target is None:
                return histories
            thread, key = target
            stored = {name: self._stored_versions(thread, name) for name in channels}
            missing = set(channels)
            chain = self._db.execute(ANCESTORS, (thread, key))
            next(chain, None)  # what is written at the checkpoint itself belongs to the next one
            for ancestor, body in chain:
                if not missing:
                    break
                for write in reversed(self._writes(thread, ancestor)):
                    if write[1] in missing:
                        histories[write[1]]["writes"].append(write)
                versions = self._unpack(body)[0]["channel_versions"]
                for name in [name for name in missing if versions.get(name) in stored[name]]:
                    histories[name]["seed"] = self._values(thread, ancestor, {name: versions[name]})[name]
                    missing.discard(name)
        for history in histories.values():
            history["writes"].reverse()
        return histories

    def _find(self, config: RunnableConfig) -> tuple[int, Any] | None:
        """Row keys of the checkpoint that the config names, or of its thread's newest."""
        found = self._db.execute(
            "SELECT thread FROM threads WHERE thread_id = ? AND ns = ?", where_of(config)
        ).fetchone()
        if found is None:
            return None
        if (checkpoint_id := get_checkpoint_id(config)) is not None:
            return found[0], key_of(checkpoint_id)
        newest = "SELECT id FROM checkpoints WHERE thread = ? ORDER BY id DESC LIMIT 1"
        row = self._db.execute(newest, found).fetchone()
        return None if row is None else (found[0], row[0])

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
            where.append("id < ?")
            values.append(key_of(earlier))
        sql = "SELECT thread, thread_id, ns, id, parent, body FROM threads JOIN checkpoints USING (thread) WHERE "
        with self._log.lock:
            self._log.commit(None if config is None else where_of(config)[0])
            rows = self._db.execute(f"{sql}{' AND '.join(where)} ORDER BY id DESC LIMIT ?", (*values, limit)).fetchall()
        for thread, thread_id, ns, key, parent, body in rows:
            head, metadata = self._unpack(body)
            with self._log.lock:
                channel_values = self._values(thread, key, head["channel_versions"])
                writes = self._writes(thread, key)
            yield CheckpointTuple(
                config_of(thread_id, ns, id_of(key)),
                cast(Checkpoint, head | {"id": id_of(key), "channel_values": channel_values}),
                metadata,
                None if parent is None else config_of(thread_id, ns, id_of(parent)),
                writes,
            )

    def _values(self, thread: int, key: Any, versions: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a checkpoint's channels have at these versions, of those that were stored."""
        values: dict[str, Any] = {}
        sql = "SELECT body FROM channels WHERE thread = ? AND version = ? ORDER BY id = ?, id"
        for version in set(versions.values()):
            for (body,) in self._db.execute(sql, (thread, version, key)):
                values |= {k: v for k, v in self._unpack(body).items() if versions.get(k) == version}
        return values

    def _stored_versions(self, thread: int, name: str) -> set[Any]:
        """The versions at which a channel's value was stored."""
        sql = "SELECT version FROM channels WHERE thread = ? AND instr(names, ?) > 0"
        return {version for (version,) in self._db.execute(sql, (thread, json.dumps(name)))}

    def _writes(self, thread: int, key: Any) -> Writes:
        """What tasks wrote at a checkpoint, in `writes_sort_key` order.

        Of regular writes at the same place the first counts, of special ones (an error, an interrupt) the last.
        """
        found: dict[tuple[str, str, int], PendingWrite] = {}
        places: dict[tuple[str, int], tuple[str, str, int]] = {}
        sql = "SELECT body FROM writes WHERE thread = ? AND id = ? ORDER BY number"
        for (body,) in self._db.execute(sql, (thread, key)):
            task_id, task_path, writes = self._unpack(body)
            special = all(name in WRITES_IDX_MAP for name, _ in writes)
            for number, (name, value) in enumerate(writes):
                index = WRITES_IDX_MAP.get(name, number)
                if (task_id, index) in places:
                    if not special:
                        continue
                    del found[places[task_id, index]]
                places[task_id, index] = place = writes_sort_key(task_path, task_id, index)
                found[place] = (task_id, name, value)
        return [found[place] for place in sorted(found)]

    # ---- the queue

    def _put(self, where: tuple[str, str], rows: Sequence[Row]) -> None:
        self._log.put(where[0], [(PUT_THREAD, where), *rows])

    def flush(self, thread_id: str | None = None) -> None:
        """Return when all that was put before, or all of one thread's, is safe from a kill and from a power failure.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        self._log.flush(thread_id)

    async def aflush(self, thread_id: str | None = None) -> None:
        """`flush`."""
        await asyncio.to_thread(self._log.flush, thread_id)

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

    # ---- the same for asyncio: puts queue at once, the rest may wait for the disk in a thread

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`."""
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`."""
        self.put_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (each := await asyncio.to_thread(next, found, None)) is not None:
            yield each

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history`."""
        return await asyncio.to_thread(self.get_delta_channel_history, config=config, channels=channels)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def __enter__(self) -> "TreeSaver":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- from values to bytes

    def _pack(self, value: Any) -> bytes:
        """With its serializer's name; compressed when it is written."""
        kind, data = self.serde.dumps_typed(value)
        return kind.encode() + b"\0" + data

    def _unpack(self, packed: bytes) -> Any:
        kind, _, data = zlib.decompress(packed).partition(b"\0")
        return self.serde.loads_typed((kind.decode(), data))
