"""Files of earlier releases' `TreeSaver`, whose formats 1 and 2 had a row for each part of a checkpoint."""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Iterator

from .thread import CHECKPOINT, VALUES, WRITES, Row

TABLES = ("checkpoints", "channels", "writes", "threads")
_NUMBER = {1: "NULL", 2: "number"}
"""Format 1 did not tell what was put last; its checkpoints are sorted by their ids."""


def earlier_threads(db: sqlite3.Connection, version: int) -> Iterator[tuple[str, list[Row]]]:
    """The threads of a file of format ``version``: ids, and all that was put."""
    for (thread_id,) in db.execute("SELECT DISTINCT thread_id FROM threads").fetchall():
        rows: list[Row] = []
        for thread, ns in db.execute("SELECT thread, ns FROM threads WHERE thread_id = ?", (thread_id,)).fetchall():
            sql = f"SELECT id, {_NUMBER[version]}, parent, body FROM checkpoints WHERE thread = ? ORDER BY id"
            for key, number, parent, body in db.execute(sql, (thread,)):
                about = None if parent is None else _id_of(parent)
                rows.append(Row(CHECKPOINT, ns, _id_of(key), number or 0, about, zlib.decompress(body)))
            for key, number, names, body in db.execute(
                "SELECT id, version, names, body FROM channels WHERE thread = ?", (thread,)
            ):
                rows.append(Row(VALUES, ns, _id_of(key), number, json.loads(names), zlib.decompress(body)))
            for key, number, body in db.execute("SELECT id, number, body FROM writes WHERE thread = ?", (thread,)):
                rows.append(Row(WRITES, ns, _id_of(key), number, None, zlib.decompress(body)))
        yield thread_id, rows


def _id_of(key: bytes | str) -> str:
    """A checkpoint's id; UUIDs were kept by their bytes."""
    return str(uuid.UUID(bytes=key)) if isinstance(key, bytes) else key
