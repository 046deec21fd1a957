"""The tables of a `TreeSaver`'s file: what they are, how rows are put, and how a row's keys come from LangGraph's."""

import uuid

from langchain_core.runnables import RunnableConfig

FORMAT = 1

# Ids of checkpoints grow with time, so in each table the rows of one thread lie together, the newest last.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS threads (
    thread INTEGER PRIMARY KEY, thread_id TEXT NOT NULL, ns TEXT NOT NULL, UNIQUE (thread_id, ns));
CREATE TABLE IF NOT EXISTS checkpoints (
    thread INTEGER, id, parent, body BLOB, PRIMARY KEY (thread, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (
    thread INTEGER, version, id, names TEXT, body BLOB, PRIMARY KEY (thread, version, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writes (
    thread INTEGER, id, number INTEGER, body BLOB, PRIMARY KEY (thread, id, number)) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""
_THREAD = "(SELECT thread FROM threads WHERE thread_id = ? AND ns = ?)"
PUT_THREAD = "INSERT OR IGNORE INTO threads (thread_id, ns) VALUES (?, ?)"
PUT_CHECKPOINT = f"INSERT OR REPLACE INTO checkpoints VALUES ({_THREAD}, ?, ?, ?)"
PUT_CHANNELS = f"INSERT OR REPLACE INTO channels VALUES ({_THREAD}, ?, ?, ?, ?)"
PUT_WRITES = """INSERT INTO writes SELECT t.thread, ?3,
    (SELECT coalesce(max(number) + 1, 0) FROM writes w WHERE w.thread = t.thread AND w.id = ?3), ?4
    FROM threads t WHERE thread_id = ?1 AND ns = ?2"""
ANCESTORS = """WITH RECURSIVE chain(id, parent, body) AS (
    SELECT id, parent, body FROM checkpoints WHERE thread = ?1 AND id = ?2
    UNION SELECT c.id, c.parent, c.body FROM chain CROSS JOIN checkpoints c
    ON c.thread = ?1 AND c.id = chain.parent) SELECT id, body FROM chain"""


def where_of(config: RunnableConfig) -> tuple[str, str]:
    """A thread's id and its namespace, by which the tables know it."""
    return str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", "")


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
