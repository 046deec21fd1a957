"""The tables of a `TreeSaver`'s file: what they are, how rows are put and read, and how keys come from LangGraph's."""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, PendingWrite, get_checkpoint_id, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import ConfigError

Writes = list[PendingWrite]

FORMAT = 2

# In each table the rows of one thread lie together. Ids of checkpoints grow with the clock, which may be set back, so
# what was put last is told by ``number``; it is NULL in what was put when files had format 1.
SCHEMA = f"""
CREATE TABLE threads (
    thread INTEGER PRIMARY KEY, thread_id TEXT NOT NULL, ns TEXT NOT NULL, UNIQUE (thread_id, ns));
CREATE TABLE checkpoints (
    thread INTEGER, id, parent, body BLOB, number INTEGER, PRIMARY KEY (thread, id)) WITHOUT ROWID;
CREATE INDEX newest ON checkpoints (thread, number);
CREATE TABLE channels (
    thread INTEGER, version, id, names TEXT, body BLOB, PRIMARY KEY (thread, version, id)) WITHOUT ROWID;
CREATE TABLE writes (
    thread INTEGER, id, number INTEGER, body BLOB, PRIMARY KEY (thread, id, number)) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""
FROM_FORMAT_1 = f"""
ALTER TABLE checkpoints ADD COLUMN number INTEGER;
CREATE INDEX newest ON checkpoints (thread, number);
PRAGMA user_version = {FORMAT};
"""
TO_THIS_FORMAT = {0: SCHEMA, 1: FROM_FORMAT_1}
"""Statements by the format that a file has; a new one has 0."""
LAST_NUMBER = """SELECT max(max(
    coalesce((SELECT max(number) FROM checkpoints c WHERE c.thread = t.thread), 0),
    coalesce((SELECT max(version) FROM channels v WHERE v.thread = t.thread), 0))) FROM threads t"""
NEWEST_FIRST = "number DESC, id DESC"  # NULL is below every number; the index has them in this order
# By the id alone where the thread has no such checkpoint (any more): that of another thread, or one that was dropped.
BEFORE = """coalesce((coalesce(number, 0), id) < (
    SELECT coalesce(number, 0), id FROM checkpoints b WHERE b.thread = checkpoints.thread AND b.id = ?), id < ?)"""
_THREAD = "(SELECT thread FROM threads WHERE thread_id = ? AND ns = ?)"
PUT_THREAD = "INSERT OR IGNORE INTO threads (thread_id, ns) VALUES (?, ?)"
PUT_CHECKPOINT = f"INSERT OR REPLACE INTO checkpoints (thread, number, id, parent, body) VALUES ({_THREAD}, ?, ?, ?, ?)"
PUT_CHANNELS = f"INSERT OR REPLACE INTO channels VALUES ({_THREAD}, ?, ?, ?, ?)"
PUT_WRITES = """INSERT INTO writes SELECT t.thread, ?3,
    (SELECT coalesce(max(number) + 1, 0) FROM writes w WHERE w.thread = t.thread AND w.id = ?3), ?4
    FROM threads t WHERE thread_id = ?1 AND ns = ?2"""
ANCESTORS = """WITH RECURSIVE chain(id, parent, body) AS (
    SELECT id, parent, body FROM checkpoints WHERE thread = ?1 AND id = ?2
    UNION SELECT c.id, c.parent, c.body FROM chain CROSS JOIN checkpoints c
    ON c.thread = ?1 AND c.id = chain.parent) SELECT id, body FROM chain"""


def where_of(config: RunnableConfig) -> tuple[str, str]:
    """A thread's id and its namespace, by which the tables know it.

    Raises:
        ConfigError: the id is no text that a database can hold.
    """
    thread_id = str(config["configurable"]["thread_id"])
    try:
        thread_id.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"thread_id {thread_id!r}: half a surrogate pair at character {error.start}, which no database can hold"
        ) from None
    return thread_id, config["configurable"].get("checkpoint_ns", "")


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """What LangGraph calls a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def key_of(checkpoint_id: str) -> bytes | str:
    """A checkpoint's id in the tables: LangGraph's are UUIDs that grow with time, and so do their bytes."""
    try:
        key = uuid.UUID(checkpoint_id)
    except ValueError:
        return checkpoint_id
    return key.bytes if str(key) == checkpoint_id else checkpoint_id


def id_of(key: bytes | str) -> str:
    """The checkpoint's id of a `key_of`."""
    return str(uuid.UUID(bytes=key)) if isinstance(key, bytes) else key


@dataclass(frozen=True)
class Tables:
    """What an open file holds; whoever reads holds the lock of its connection."""

    db: sqlite3.Connection
    """The connection."""
    serde: SerializerProtocol
    """How values became bytes."""

    def pack(self, value: Any) -> bytes:
        """A value's bytes with its serializer's name; compressed when they are written."""
        kind, data = self.serde.dumps_typed(value)
        return kind.encode() + b"\0" + data

    def unpack(self, packed: bytes) -> Any:
        """The value that was packed, as it was written."""
        kind, _, data = zlib.decompress(packed).partition(b"\0")
        return self.serde.loads_typed((kind.decode(), data))

    def find(self, config: RunnableConfig) -> tuple[int, Any] | None:
        """Row keys of the checkpoint that the config names, or of its thread's newest."""
        sql = "SELECT thread FROM threads WHERE thread_id = ? AND ns = ?"
        found = self.db.execute(sql, where_of(config)).fetchone()
        if found is None:
            return None
        if (checkpoint_id := get_checkpoint_id(config)) is not None:
            return found[0], key_of(checkpoint_id)
        newest = f"SELECT id FROM checkpoints WHERE thread = ? ORDER BY {NEWEST_FIRST} LIMIT 1"
        row = self.db.execute(newest, found).fetchone()
        return None if row is None else (found[0], row[0])

    def values(self, thread: int, key: Any, versions: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a checkpoint's channels have at these versions, of those that were stored."""
        values: dict[str, Any] = {}
        sql = "SELECT body FROM channels WHERE thread = ? AND version = ? ORDER BY id = ?, id"
        for version in set(versions.values()):
            for (body,) in self.db.execute(sql, (thread, version, key)):
                values |= {k: v for k, v in self.unpack(body).items() if versions.get(k) == version}
        return values

    def stored_versions(self, thread: int, name: str) -> set[Any]:
        """The versions at which a channel's value was stored."""
        sql = "SELECT version FROM channels WHERE thread = ? AND instr(names, ?) > 0"
        return {version for (version,) in self.db.execute(sql, (thread, json.dumps(name)))}

    def writes(self, thread: int, key: Any) -> Writes:
        """What tasks wrote at a checkpoint, in `writes_sort_key` order.

        Of regular writes at the same place the first counts, of special ones (an error, an interrupt) the last.
        """
        found: dict[tuple[str, str, int], PendingWrite] = {}
        places: dict[tuple[str, int], tuple[str, str, int]] = {}
        sql = "SELECT body FROM writes WHERE thread = ? AND id = ? ORDER BY number"
        for (body,) in self.db.execute(sql, (thread, key)):
            task_id, task_path, writes = self.unpack(body)
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
