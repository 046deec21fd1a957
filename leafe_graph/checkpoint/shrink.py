"""Dropping checkpoints from files that savers made."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from .sqlite import TreeSaver


def _prune_own(file: Path, decisions: Mapping[str, Collection[str]], own: Collection[str] | None) -> int:
    """``own``: the threads that may be dropped; None is all."""
    with TreeSaver(file) as saver:
        gone = _droppable(saver.threads(), own) - decisions.keys()
        for thread_id in gone:
            saver.delete_thread(thread_id)
        for thread_id, ids in decisions.items():
            saver.keep(thread_id, ids)
        saver.vacuum()
    return len(gone)


_CHAIN = """WITH RECURSIVE chain(id) AS (
    SELECT value FROM json_each(?2)
    UNION SELECT parent_checkpoint_id FROM chain JOIN checkpoints ON checkpoint_id = chain.id
    WHERE thread_id = ?1 AND parent_checkpoint_id IS NOT NULL)"""


def _is_langgraphs(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as db:
        columns = {row[1] for row in db.execute("PRAGMA table_info(checkpoints)")}
    return "parent_checkpoint_id" in columns


def _prune_langgraph(file: Path, decisions: Mapping[str, Collection[str]], own: Collection[str] | None) -> int:
    """The same in the tables of LangGraph's SqliteSaver: decision points keep the ancestors they are rebuilt from."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as db:
        threads = _droppable((name for (name,) in db.execute("SELECT DISTINCT thread_id FROM checkpoints")), own)
        gone = threads - decisions.keys()
        db.execute("BEGIN IMMEDIATE")
        for thread_id in threads:
            kept = json.dumps(sorted(decisions.get(thread_id, ())))
            for table in ("writes", "checkpoints"):
                of = "thread_id = ?1 AND checkpoint_id NOT IN (SELECT id FROM chain)"
                db.execute(f"{_CHAIN} DELETE FROM {table} WHERE {of}", (thread_id, kept))
        db.execute("COMMIT")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(gone)


def _droppable(threads: Iterable[str], own: Collection[str] | None) -> set[str]:
    return set(threads) if own is None else set(threads) & set(own)


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in (file, Path(f"{file}-wal")) if part.exists())
