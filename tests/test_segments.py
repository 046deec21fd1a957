"""Our savers on SQLite and PostgreSQL: segments of threads, what a kill or a lost database takes, deleting, pruning."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pgbouncer
import pytest
from earlier_saver import earlier
from postgres import Server
from savers import POSTGRES_TREE, TREE, opener
from test_prune import grow
from test_tree_saver import THREAD, at, put
from worlds import PIT, forest, lasting, pit_reply, wandering_reply

from leafe_graph import PostgresTreeSaver, TreeSaver, prune
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.exploration.explore import explore
from leafe_graph.prompts import Prompts
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, check_saver, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

KINDS = [TREE, POSTGRES_TREE]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """An empty file, or the address of an empty database."""

    def of(kind: str) -> str:
        if kind == TREE:
            return str(tmp_path / "points.sqlite")
        address: str = request.getfixturevalue("postgres_server").new_database()
        return address

    return of


def ask(where: str, sql: str) -> list[Any]:
    """Rows that anybody may ask the file or the database for."""
    if "://" not in where:
        with closing(sqlite3.connect(where, isolation_level=None)) as db:
            return db.execute(sql).fetchall()
    import psycopg

    with psycopg.connect(where, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


# ---- segments


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_thread_put_between_two_flushes_is_one_row(kind: str, place: Callable[[str], str]) -> None:
    """And a flush of one thread leaves the others' rows waiting; reading takes nothing to the database."""
    where, rows = place(kind), "SELECT thread_id, count(*) FROM leafe_segments GROUP BY thread_id ORDER BY thread_id"
    with opener(kind, where)() as saver:
        saver._log._interval = 600.0
        for thread in ("1", "2"):
            for number in range(20):
                put(saver, at(thread=thread), number, {"n": number}, {"n": number + 1})
                assert saver.get_tuple(at(thread=thread)).checkpoint["channel_values"] == {"n": number}
        assert ask(where, rows) == []
        saver.flush("1")
        assert ask(where, rows) == [("1", 1)]
        put(saver, at(thread="1"), 20, {"n": 20}, {"n": 21})
        saver.flush("1")
        assert ask(where, rows) == [("1", 2)]
    assert ask(where, rows) == [("1", 2), ("2", 1)]
    with opener(kind, where)() as saver:
        found = [each.checkpoint["channel_values"]["n"] for each in saver.list(THREAD)]
    assert found == list(reversed(range(21)))


@pytest.mark.parametrize("kind", KINDS)
def test_two_savers_see_what_the_other_one_flushed(kind: str, place: Callable[[str], str]) -> None:
    """As two processes have it, also where a thread was read before, and where it was deleted and made anew."""
    where = place(kind)
    with opener(kind, where)() as one, opener(kind, where)() as other:
        for number, (writer, reader) in enumerate([(one, other), (other, one), (one, other)]):
            put(writer, at(), number, {"n": number}, {"n": number + 1})
            writer.flush()
            assert [each.metadata["step"] for each in reader.list(THREAD)] == list(reversed(range(number + 1)))
        one.delete_thread("1")
        assert other.get_tuple(THREAD) is None
        put(other, at(), 7, {"n": 7}, {"n": 8})
        other.flush()
        assert one.get_tuple(THREAD).checkpoint["channel_values"] == {"n": 7}


@pytest.mark.parametrize("kind", KINDS)
def test_thread_is_deleted_by_its_id(kind: str, place: Callable[[str], str]) -> None:
    """Through the saver, what is still queued too; or by one DELETE that anybody sends."""
    where = place(kind)
    with opener(kind, where)() as saver:
        for thread in ("1", "2", "3"):
            put(saver, at(thread=thread), 1, {"n": 1}, {"n": 1})
            put(saver, at(thread=thread, ns="inner"), 1, {"n": 1}, {"n": 1})
        saver.flush("1")
        put(saver, at(), 2, {"n": 2}, {"n": 2})
        saver.delete_thread("1")
        saver.flush()
        assert ask(where, "SELECT thread_id FROM leafe_segments ORDER BY thread_id") == [("2",), ("3",)]
        ask(where, "DELETE FROM leafe_segments WHERE thread_id = '2'")
        assert [saver.get_tuple(at(thread=thread)) is None for thread in ("1", "2", "3")] == [True, True, False]
        assert saver.threads() == ["3"]


@pytest.mark.parametrize("kind", KINDS)
def test_thread_id_with_nul_is_refused_when_it_is_put(kind: str, place: Callable[[str], str]) -> None:
    """PostgreSQL cannot hold it: nothing that waits behind it may be held up."""
    with opener(kind, place(kind))() as saver, pytest.raises(ConfigError, match="NUL, which no database can hold"):
        put(saver, at(thread="a\0b"), 1, {}, {})


def test_memory_of_what_was_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by number, the oldest first; what is forgotten is read again, and what is queued is never lost."""
    monkeypatch.setattr("leafe_graph.checkpoint.write_behind.MOST_THREADS", 20)
    with TreeSaver(tmp_path / "points.sqlite", interval=600) as saver:
        for thread in map(str, range(30)):
            put(saver, at(thread=thread), 1, {"n": thread}, {"n": 1})
            assert saver.get_tuple(at(thread=thread)) is not None
        assert len(saver._log._read) == 20
        saver.flush("0")
        monkeypatch.setattr("leafe_graph.checkpoint.write_behind.MOST", 1)
        for thread in map(str, range(30)):
            found = saver.get_tuple(at(thread=thread))
            assert found is not None and found.checkpoint["channel_values"] == {"n": thread}
        assert len(saver._log._read) == 1


@pytest.mark.parametrize("error", [RunFolderError("the disk is full"), MemoryError()])
def test_commit_that_failed_is_told_and_tried_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing more is put, and whatever it was that failed; the next put says it."""
    monkeypatch.setattr("leafe_graph.checkpoint.write_behind.RETRY", 0.0)
    full, failed = threading.Event(), threading.Event()
    full.set()
    with TreeSaver(tmp_path / "points.sqlite", interval=0.01) as saver:
        commit = saver._log._store.run

        def may_fail(work: Any) -> Any:
            if full.is_set():
                failed.set()
                raise error
            return commit(work)

        monkeypatch.setattr(saver._log._store, "run", may_fail)
        put(saver, at(), 1, {"n": 1}, {"n": 1})
        assert failed.wait(30)
        with pytest.raises(type(error)):
            for number in range(2, 1000):
                put(saver, at(), number, {}, {})
                time.sleep(0.01)
        full.clear()
        for _ in range(3000):
            if ask(str(saver.file), "SELECT thread_id FROM leafe_segments"):
                break
            time.sleep(0.01)
        assert ask(str(saver.file), "SELECT DISTINCT thread_id FROM leafe_segments") == [("1",)]


def test_flush_waits_for_what_another_commit_gave_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that begins while a commit is under way, which then fails, puts its rows as well."""
    with TreeSaver(tmp_path / "points.sqlite", interval=0.0) as saver:
        commit, under_way, flushing = saver._log._store.run, threading.Event(), threading.Event()

        def fails_once(work: Any) -> Any:
            if not under_way.is_set():
                under_way.set()
                assert flushing.wait(30)
                time.sleep(0.2)
                raise RunFolderError("the disk is full")
            return commit(work)

        monkeypatch.setattr("leafe_graph.checkpoint.write_behind.RETRY", 60.0)
        monkeypatch.setattr(saver._log._store, "run", fails_once)
        put(saver, at(), 1, {"n": 1}, {"n": 1})
        assert under_way.wait(30)
        flushing.set()
        saver.flush()
        assert ask(str(saver.file), "SELECT thread_id FROM leafe_segments") == [("1",)]


@pytest.mark.parametrize("kind", KINDS)
def test_long_thread_takes_little_memory(kind: str, place: Callable[[str], str]) -> None:
    """A chat, whose every checkpoint has all that was said before: it is read as it was put, and can be pruned."""
    where, said = place(kind), [f"This is sentence {number} of a long conversation. " * 4 for number in range(300)]
    with opener(kind, where)() as saver:
        for number in range(1, 301):
            where_put = at(f"{number - 1:08}-0000-6000-8000-000000000000" if number > 1 else None)
            put(saver, where_put, number, {"said": said[:number]}, {"said": number})
        assert saver.get_tuple(THREAD).checkpoint["channel_values"] == {"said": said}
    with opener(kind, where)() as saver:
        found = [saver.get_tuple(each.config) for each in saver.list(THREAD)]
        assert [each.checkpoint["channel_values"]["said"] for each in found] == [said[:n] for n in range(300, 0, -1)]
        assert saver._log._read["1"].size < 3_000_000 < sum(len("".join(said[:number])) for number in range(300))
        saver.keep("1", ["00000007-0000-6000-8000-000000000000"])
        assert [each.metadata["step"] for each in saver.list(THREAD)] == list(range(7, 0, -1))


def test_checkpoint_of_a_long_thread_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thread's segments no more is decompressed than the blocks that it lies in: the newest, and one by its id."""
    said = [f"Sentence {number} of a long conversation. " * 10 for number in range(300)]
    with TreeSaver(tmp_path / "points.sqlite") as saver:
        for number in range(1, 301):
            put(saver, at(), number, {"said": said[:number]}, {"said": number})
    decompress, read = zlib.decompress, []

    def counted(data: bytes) -> bytes:
        read.append(len(found := decompress(data)))
        return found

    monkeypatch.setattr(zlib, "decompress", counted)
    for number, where in ((300, at()), (100, at(f"{100:08}-0000-6000-8000-000000000000"))):
        read.clear()
        with TreeSaver(tmp_path / "points.sqlite") as saver:
            assert saver.get_tuple(where).checkpoint["channel_values"] == {"said": said[:number]}
        assert sum(read) < 1_000_000 < sum(len("".join(said[:each])) for each in range(300)) / 10


# ---- kills

KILLED = """
import os, signal, sys
from leafe_graph.exploration.commits import Commits
from test_segments import run

append, branches = Commits.append, []

async def killed(log, branch):
    branches.append(branch)
    if len(branches) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return await append(log, branch)

Commits.append = killed
run(*sys.argv[1:])
"""


def run(out: str, world: str, checkpointer: str) -> RunFolder:
    """Trees of a policy that wanders about."""
    return explore(
        ScriptedModel(reply=wandering_reply),
        {"GridWorld": GridWorld, "SnapshotGridWorld": SnapshotGridWorld}[world],
        grid_tasks(4),
        out=out,
        checkpointer=checkpointer,
        limits=Limits(max_branches=5, max_depth=2, branches_per_reflection=2, max_roots=2),
        max_turns=6,
        reflect_every=3,
        concurrency=2,
    )


@pytest.mark.parametrize(("kind", "world"), [(TREE, "SnapshotGridWorld"), (POSTGRES_TREE, "GridWorld")])
def test_kill_between_flush_and_log_changes_nothing(
    kind: str, world: str, place: Callable[[str], str], tmp_path: Path
) -> None:
    """SIGKILL when a branch's checkpoints are safe and its line is not: the resumed run ends as the undisturbed one."""
    where = "sqlite" if kind == TREE else place(kind)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "run"), world, where],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(RunFolder(tmp_path / "run").branches) == 6
    resumed, undisturbed = run(str(tmp_path / "run"), world, where), run(str(tmp_path / "whole"), world, "memory")
    assert forest(resumed.branches) == forest(undisturbed.branches)


@pytest.mark.parametrize("version", [1, 2])
def test_run_of_an_earlier_release_is_resumed_and_pruned(version: int, tmp_path: Path) -> None:
    """Its file is brought to this release's format, and trees are forked from what it held."""
    resumed, pruned = (earlier(version, tmp_path / name) / "run" for name in ("resumed", "pruned"))
    how: Any = {"tasks": 1, "prompts": Prompts(**RunFolder(resumed).settings.texts), "checkpointer": None}
    undisturbed = grow(tmp_path / "whole", **how)
    assert prune(pruned).kept == 2
    for out in (resumed, pruned):
        told = [lasting(forest(run.branches), "usage") for run in (grow(out, **how), undisturbed)]
        assert told[0] == told[1]  # its messages did not tell their tokens
        assert {branch["thread_id"] is None for branch in RunFolder(out).branches} == {False}


# ---- PostgreSQL


def test_runs_in_a_database_are_pruned_by_its_address(tmp_path: Path, postgres_server: Server) -> None:
    """Of a tree that is not finished the waiting forks' checkpoints stay, another run's all; and the run goes on."""
    address = postgres_server.new_database()
    undisturbed = grow(tmp_path / "whole", checkpointer=address)
    grow(tmp_path / "run", killed_at=40, checkpointer=address)
    size = "SELECT sum(length(body)) FROM leafe_segments"
    ((before,),) = ask(address, size)
    pruned = prune(tmp_path / "run", checkpoints=address)
    ((after,),) = ask(address, size)
    assert pruned.kept > 0 and pruned.threads > 0 and after < before
    assert forest(grow(tmp_path / "run", checkpointer=address).branches) == forest(undisturbed.branches)
    with PostgresTreeSaver(address) as saver:
        assert {branch["thread_id"] for branch in undisturbed.branches} <= set(saver.threads())


def test_langgraphs_own_saver_is_one_setting_away(tmp_path: Path, postgres_server: Server) -> None:
    """The same trees in LangGraph's tables, and its runs are pruned there, too."""
    address = postgres_server.new_database()
    theirs = address.replace("postgresql://", "postgresql+langgraph://")
    undisturbed = grow(tmp_path / "whole")
    grow(tmp_path / "run", killed_at=40, checkpointer=theirs)
    assert ask(address, "SELECT to_regclass('leafe_segments'), to_regclass('checkpoints')") == [(None, "checkpoints")]
    assert prune(tmp_path / "run", checkpoints=theirs).threads > 0
    assert forest(grow(tmp_path / "run", checkpointer=theirs).branches) == forest(undisturbed.branches)


@contextmanager
def shut(address: str, server: Server) -> Iterator[None]:
    """Nobody is connected to the database, or can connect to it."""
    name = address.rpartition("/")[2]
    ask(server.address(), f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    disconnect(address, server)
    try:
        yield
    finally:
        ask(server.address(), f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def disconnect(address: str, server: Server) -> None:
    """End all connections to the database."""
    name = address.rpartition("/")[2]
    ask(
        server.address(),
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )


def test_database_that_is_gone_is_said_and_nothing_is_lost(postgres_server: Server) -> None:
    """What was put stays queued, and is there when the database is back; a lost connection alone goes unnoticed."""
    address = postgres_server.new_database()
    with PostgresTreeSaver(address, interval=600) as saver:
        put(saver, at(), 1, {"n": 1}, {"n": 1})
        saver.flush()
        put(saver, at(), 2, {"n": 2}, {"n": 2})
        with shut(address, postgres_server):
            for attempt in (saver.flush, lambda: saver.get_tuple(THREAD)):
                with pytest.raises(RunFolderError, match=r"^the database test_\d+ at 127.0.0.1:\d+ cannot be used: .*"):
                    attempt()
        saver.flush()
        disconnect(address, postgres_server)
        put(saver, at(), 3, {"n": 3}, {"n": 3})
        saver.flush()
    with PostgresTreeSaver(address) as saver:
        assert [each.metadata["step"] for each in saver.list(THREAD)] == [3, 2, 1]


def test_run_whose_database_goes_away_is_resumed(tmp_path: Path, postgres_server: Server) -> None:
    """It ends with one line that says what to do, what was logged stays, and the same command goes on."""
    address, calls = postgres_server.new_database(), []

    def reply(messages: Any, seed: Any) -> str:
        calls.append(seed)
        if len(calls) == 30:
            gone.__enter__()
        return wandering_reply(messages, seed)

    def life(out: Path, model: ScriptedModel) -> RunFolder:
        limits = Limits(max_branches=5, max_depth=2, branches_per_reflection=2, max_roots=2)
        how: Any = {"limits": limits, "max_turns": 6, "reflect_every": 3, "concurrency": 2}
        return explore(model, GridWorld, grid_tasks(4), out=out, checkpointer=address, **how)

    gone = shut(address, postgres_server)
    with pytest.raises(RunFolderError, match="What was logged is safe: see to the database, then run the same command"):
        life(tmp_path / "run", ScriptedModel(reply=reply))
    gone.__exit__(None, None, None)
    logged = len(RunFolder(tmp_path / "run").branches)
    resumed = life(tmp_path / "run", ScriptedModel(reply=wandering_reply))
    assert 0 < logged < len(resumed.branches)
    undisturbed = life(tmp_path / "whole", ScriptedModel(reply=wandering_reply))
    assert forest(resumed.branches) == forest(undisturbed.branches)


def test_transactions_may_come_from_any_connection_of_pgbouncer(tmp_path: Path, postgres_server: Server) -> None:
    """More savers than connections in its pool, forks and reads in between, and a whole run."""
    binary = pgbouncer.program()
    if "LEAFE_NEEDS_POSTGRES" not in os.environ and binary is None:
        pytest.skip(pgbouncer.MISSING)
    assert binary is not None, pgbouncer.MISSING
    address = postgres_server.new_database()
    with pgbouncer.pooler(binary, postgres_server, connections=2) as port:
        pooled = address.replace(str(postgres_server.port), str(port))
        savers = [PostgresTreeSaver(pooled, interval=600) for _ in range(5)]
        for number in range(10):  # more often than psycopg needs to prepare a statement
            for thread, saver in enumerate(savers):
                put(saver, at(thread=str(thread)), number, {"n": number}, {"n": number + 1})
                saver.flush()
                assert savers[thread - 1].get_tuple(at(thread=str(thread))).metadata["step"] == number
        for saver in savers:
            saver.close()
        check_saver(lambda: PostgresTreeSaver(pooled), env=SnapshotGridWorld, at_once=4)
        run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, checkpointer=pooled)
        assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert {name for (name,) in ask(address, "SELECT DISTINCT thread_id FROM leafe_segments")} >= set("01234")


def test_what_savers_make_at_once_is_made_once(postgres_server: Server) -> None:
    """Eight that come to an empty database at the same moment: one makes the table."""
    from concurrent.futures import ThreadPoolExecutor

    address = postgres_server.new_database()
    with ThreadPoolExecutor(8) as pool:
        for saver in pool.map(lambda _: PostgresTreeSaver(address), range(8)):
            saver.close()


def test_closed_saver_connects_to_no_database(postgres_server: Server) -> None:
    """A read after `close` says so; it opens no connection that nobody would close."""
    saver = PostgresTreeSaver(postgres_server.new_database())
    saver.close()
    with pytest.raises(RunFolderError, match="the connection is closed"):
        saver.get_tuple(THREAD)


def test_file_that_was_never_a_tree_savers_is_refused(tmp_path: Path) -> None:
    """Also one that a later release made."""
    file = tmp_path / "later.sqlite"
    TreeSaver(file).close()
    ask(str(file), "PRAGMA user_version = 9")
    with pytest.raises(RunFolderError, match="in format 9; this release reads format 3"):
        TreeSaver(file)
