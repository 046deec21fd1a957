"""Dropping the checkpoints from which nothing will start any more, from a saver or from a file that one made."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .points import Saver
from .saver import SegmentSaver
from .sqlite import TreeSaver

Decisions = Mapping[str, Collection[str]]
"""The checkpoints to keep: ids by thread."""
Own = Collection[str] | None
"""The threads that may be dropped; None is all."""


@dataclass(frozen=True)
class Shrunk:
    """What was dropped."""

    threads: int
    """Whole threads."""
    before: int
    after: int
    """Bytes of the file; 0 where it is no file."""


def shrink_file(file: Path, decisions: Decisions, own: Own = None) -> Shrunk:
    """Keep these checkpoints of a `TreeSaver`'s file or one of LangGraph's SqliteSaver, and what they are rebuilt from.

    Raises:
        ConfigError: there is no such file.
        RunFolderError: it holds something else.
    """
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; say where the run's checkpoints are")
    before = _size(file)
    threads = (_shrink_langgraphs if _is_langgraphs(file) else _shrink_our_file)(file, decisions, own)
    return Shrunk(threads, before, _size(file))


def shrink_saver(saver: Saver, decisions: Decisions, own: Collection[str]) -> Shrunk:
    """Drop what ``own`` threads do not need for the checkpoints to keep; LangGraph's savers drop whole threads only."""
    if isinstance(saver, SegmentSaver):
        return Shrunk(_shrink_ours(saver, decisions, own), 0, 0)
    gone = set(own) - decisions.keys()
    for thread_id in gone:
        saver.delete_thread(thread_id)
    return Shrunk(len(gone), 0, 0)


def _shrink_our_file(file: Path, decisions: Decisions, own: Own) -> int:
    with TreeSaver(file) as saver:
        return _shrink_ours(saver, decisions, own)


def _shrink_ours(saver: SegmentSaver, decisions: Decisions, own: Own) -> int:
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


def _shrink_langgraphs(file: Path, decisions: Decisions, own: Own) -> int:
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


def _droppable(threads: Iterable[str], own: Own) -> set[str]:
    return set(threads) if own is None else set(threads) & set(own)


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in (file, Path(f"{file}-wal")) if part.exists())
