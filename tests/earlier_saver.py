"""Files as earlier releases' `TreeSaver` left them, made from those of this one."""

import json
import sqlite3
import uuid
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

from leafe_graph.checkpoint.thread import CHECKPOINT, VALUES, rows_of

SCHEMA = {
    2: """
CREATE TABLE threads (
    thread INTEGER PRIMARY KEY, thread_id TEXT NOT NULL, ns TEXT NOT NULL, UNIQUE (thread_id, ns));
CREATE TABLE checkpoints (
    thread INTEGER, id, parent, body BLOB, number INTEGER, PRIMARY KEY (thread, id)) WITHOUT ROWID;
CREATE INDEX newest ON checkpoints (thread, number);
CREATE TABLE channels (
    thread INTEGER, version, id, names TEXT, body BLOB, PRIMARY KEY (thread, version, id)) WITHOUT ROWID;
CREATE TABLE writes (
    thread INTEGER, id, number INTEGER, body BLOB, PRIMARY KEY (thread, id, number)) WITHOUT ROWID;
PRAGMA user_version = 2;
""",
}
SCHEMA[1] = SCHEMA[2].replace(", number INTEGER, PRIMARY KEY (thread, id)", ", PRIMARY KEY (thread, id)")
SCHEMA[1] = SCHEMA[1].replace("CREATE INDEX newest ON checkpoints (thread, number);\n", "").replace("= 2", "= 1")


def make_earlier(file: Path, version: int = 2) -> None:
    """Turn a closed file of this release into one of format ``version``."""
    with closing(sqlite3.connect(file)) as db:
        segments = db.execute("SELECT thread_id, body FROM leafe_segments ORDER BY number").fetchall()
        db.executescript("DROP TABLE leafe_segments;" + SCHEMA[version])
        for thread_id, segment in segments:
            for row in rows_of(segment):
                db.execute("INSERT OR IGNORE INTO threads (thread_id, ns) VALUES (?, ?)", (thread_id, row.ns))
                of = db.execute("SELECT thread FROM threads WHERE thread_id = ? AND ns = ?", (thread_id, row.ns))
                (thread,), body = of.fetchone(), zlib.compress(row.body, 1)
                if row.kind == CHECKPOINT:
                    values: tuple[Any, ...] = (thread, key(row.id), row.about and key(row.about), body, row.number)
                    values = values[: 3 + version]
                    db.execute(f"INSERT INTO checkpoints VALUES ({', '.join('?' * len(values))})", values)
                elif row.kind == VALUES:
                    values = (thread, row.number, key(row.id), json.dumps(row.about), body)
                    db.execute("INSERT INTO channels VALUES (?, ?, ?, ?, ?)", values)
                else:
                    db.execute(
                        "INSERT INTO writes SELECT ?1, ?2, count(*), ?3 FROM writes WHERE thread = ?1 AND id = ?2",
                        (thread, key(row.id), body),
                    )
        db.commit()


def key(checkpoint_id: str) -> bytes | str:
    """UUIDs were kept by their bytes."""
    try:
        return uuid.UUID(checkpoint_id).bytes
    except ValueError:
        return checkpoint_id
