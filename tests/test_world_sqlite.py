"""A SQLite file and a sandbox elsewhere as worlds."""

import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leafe_graph import ConfigError, Sandbox, SqliteFile, WorldBusy, WorldError, WorldLost
from leafe_graph.env.worlds import occupy, store, vacate
from leafe_graph.testing import check_world


@pytest.fixture(params=["delete", "wal"])
def tool(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    """A connection that a tool keeps open all the time, to a database with either journal."""
    connection = sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None, check_same_thread=False)
    with closing(connection):
        connection.execute(f"PRAGMA journal_mode={request.param}")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO orders (name) VALUES (?)", [(f"order {n}" * 20,) for n in range(500)])
        connection.execute("COMMIT")
        yield connection


def rows(tool: sqlite3.Connection) -> list[object]:
    """What the tool sees."""
    tables = [name for (name,) in tool.execute("SELECT name FROM sqlite_master ORDER BY name")]
    return [(name, tool.execute(f"SELECT * FROM {name}").fetchall()) for name in tables]


def test_a_database_keeps_the_contract(tool: sqlite3.Connection, tmp_path: Path) -> None:
    """As every world, seen by a connection that stays open."""

    def change(number: int) -> None:
        tool.execute("INSERT INTO orders (name) VALUES (?)", (str(number),))
        tool.execute(f"CREATE TABLE extra{number} (a)")

    check_world(lambda: SqliteFile(tmp_path / "shop.sqlite"), change, lambda: rows(tool))


def test_what_a_restore_replaces_is_kept(tool: sqlite3.Connection, tmp_path: Path) -> None:
    """And equal states are kept once."""
    world = SqliteFile(tmp_path / "shop.sqlite", tmp_path / "store")
    first, again = world.snapshot(), world.snapshot()
    assert first != again and len([*(tmp_path / "store" / "objects").glob("*/*")]) == 1
    tool.execute("DELETE FROM orders")
    world.restore(first)
    (replaced,) = world.replaced
    world.restore(replaced)
    assert rows(tool) == [("orders", [])]
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        ".lock",
        "objects",
        "points",
        "workspace.json",
    }


def test_a_transaction_that_is_open_is_told(tool: sqlite3.Connection, tmp_path: Path) -> None:
    """What it wrote would be missing, and come back after a restore; nothing waits for ever."""
    world = SqliteFile(tmp_path / "shop.sqlite", wait=0.1)
    ref, then = world.snapshot(), rows(tool)
    tool.execute("BEGIN")
    tool.execute("DELETE FROM orders")
    for call in (world.snapshot, lambda: world.restore(ref)):
        with pytest.raises(WorldBusy, match=r"shop\.sqlite cannot be .* has held it for 0\.1 s"):
            call()
    tool.execute("COMMIT")
    world.restore(ref)
    assert rows(tool) == then


def test_a_select_that_is_not_read_to_its_end_is_told(tmp_path: Path) -> None:
    """It holds a lock where there is no write-ahead log; the database is as it was."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as tool:
        tool.execute("CREATE TABLE t (a)")
        tool.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(9)])
        world = SqliteFile(tmp_path / "a.sqlite", wait=0.1)
        ref = world.snapshot()
        tool.execute("DELETE FROM t WHERE a > 5")
        open_one = tool.execute("SELECT a FROM t")
        next(open_one)
        with pytest.raises(WorldBusy, match="SELECT to the end"):
            world.restore(ref)
        assert [a for (a,) in open_one] == [1, 2, 3, 4, 5]
        world.restore(ref)
        assert tool.execute("SELECT count(*) FROM t").fetchall() == [(9,)]


def test_a_database_that_is_not_there_yet_comes_back_empty(tmp_path: Path) -> None:
    """A tool makes it when it is first asked."""
    world = SqliteFile(tmp_path / "later.sqlite")
    ref = world.snapshot()
    assert not (tmp_path / "later.sqlite").exists()
    with closing(sqlite3.connect(tmp_path / "later.sqlite")) as tool:
        tool.execute("CREATE TABLE t (a)")
        tool.commit()
        world.restore(ref)
        assert rows(tool) == []


def test_mistakes_and_damage_are_told(tmp_path: Path) -> None:
    """And nothing is changed by them."""
    for wrong in (tmp_path, tmp_path / "nowhere" / "a.sqlite"):
        with pytest.raises(ConfigError, match="expected the path of a SQLite file"):
            SqliteFile(wrong)
    with pytest.raises(ConfigError, match="wait=-1"):
        SqliteFile(tmp_path / "a.sqlite", wait=-1)
    (tmp_path / "text.sqlite").write_text("no database, but a text that is long enough to be taken for one" * 9)
    with pytest.raises(WorldError, match="cannot be kept: file is not a database"):
        SqliteFile(tmp_path / "text.sqlite").snapshot()
    world = SqliteFile(tmp_path / "a.sqlite")
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as tool:
        tool.execute("CREATE TABLE t (a)")
        tool.commit()
        ref = world.snapshot()
        tool.execute("CREATE TABLE u (a)")
        tool.commit()
        (kept,) = (tmp_path / "a.sqlite.leafe" / "objects").glob("*/*")
        kept.write_bytes(kept.read_bytes()[:-1] + b"!")
        with pytest.raises(WorldLost, match="is damaged"):
            world.restore(ref)
        assert len(rows(tool)) == 2
        with pytest.raises(ConfigError, match="store of its own"):
            SqliteFile(tmp_path / "b.sqlite", tmp_path / "a.sqlite.leafe").snapshot()


def test_a_database_is_one_episodes(tmp_path: Path) -> None:
    """Two worlds of one file are one."""
    one, other = SqliteFile(tmp_path / "a.sqlite"), SqliteFile(tmp_path / "a.sqlite")
    occupy(one, "a")
    with pytest.raises(WorldBusy, match="in use by 'a'"):
        occupy(other, "b")
    vacate(one, "a")


class Box:
    """A sandbox of some maker, whose snapshots are numbered."""

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {}
        self.running: list[int] = []

    def snapshot(self) -> str:
        """Keep the running one."""
        self.kept[ref := f"image-{len(self.kept)}-{sum(self.running)}"] = [*self.running]
        return ref

    def fork(self, ref: str) -> None:
        """Run another one."""
        if ref not in self.kept:
            raise WorldLost(f"no image {ref}")
        self.running = [*self.kept[ref]]


def test_a_sandbox_keeps_the_contract() -> None:
    """By two callables, or three."""
    box = Box()
    check_world(
        lambda: Sandbox(box.snapshot, box.fork, forget=lambda ref: box.kept.pop(ref, None)),
        lambda number: box.running.append(number),
        lambda: [*box.running],
    )
    Sandbox(box.snapshot, box.fork).forget("image-0")
    assert not Sandbox(box.snapshot, box.fork, durable=False).durable


def test_what_a_sandbox_raises_is_told() -> None:
    """With the call that raised it."""

    def fails(*args: str) -> str:
        raise ConnectionError("no network")

    world = Sandbox(fails, fails, forget=fails)
    for call, name in (
        (world.snapshot, "snapshot"),
        (lambda: world.restore("a"), "fork"),
        (lambda: world.forget("a"), "forget"),
    ):
        with pytest.raises(WorldError, match=rf"{name}\(.*\) of a Sandbox raised ConnectionError: no network"):
            call()
    with pytest.raises(WorldError, match="gave 7; expected an id"):
        Sandbox(lambda: 7, fails).snapshot()  # type: ignore[arg-type,return-value]


def test_what_has_not_changed_is_not_copied_again(
    tool: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most calls of tools only read; a change within a tick of the clock is seen even so."""
    copied = []
    world = SqliteFile(tmp_path / "shop.sqlite")
    real = world._copy
    monkeypatch.setattr(world, "_copy", lambda *args: (copied.append(args), real(*args)))
    monkeypatch.setattr(store, "_TICK", 10**15)
    first = world.snapshot()
    world.snapshot()
    assert len(copied) == 2
    monkeypatch.setattr(store, "_TICK", -(10**15))
    refs = [world.snapshot() for _ in range(3)]
    assert len(copied) == 3 and len({*refs}) == 3
    tool.execute("UPDATE orders SET name = 'x' WHERE id = 1")
    refs.append(world.snapshot())
    assert len(copied) == 4
    for ref in world._store.refs():
        world.forget(ref)
    world.restore(world.snapshot())
    assert tool.execute("SELECT name FROM orders WHERE id = 1").fetchall() == [("x",)]
    with pytest.raises(WorldLost):
        world.restore(first)


_RESTORING = """
import sys
from leafe_graph import SqliteFile
world = SqliteFile(sys.argv[1])
print(flush=True)
while True:
    for ref in sys.argv[2:]:
        world.restore(ref)
"""


def test_a_process_that_is_killed_leaves_one_state_or_the_other(tool: sqlite3.Connection, tmp_path: Path) -> None:
    """With the signal that nothing can see to."""
    world = SqliteFile(tmp_path / "shop.sqlite")
    refs = {world.snapshot(): rows(tool)}
    tool.execute("UPDATE orders SET name = id || name")
    refs[world.snapshot()] = rows(tool)
    for wait in (0.011, 0.043):
        with subprocess.Popen(
            [sys.executable, "-c", _RESTORING, str(tmp_path / "shop.sqlite"), *refs], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        assert rows(tool) in refs.values()
        for ref, then in refs.items():
            world.restore(ref)
            assert rows(tool) == then
        assert tool.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
