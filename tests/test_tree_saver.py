"""The saver that writes behind keeps what LangGraph's own savers keep, and loses nothing that was flushed."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from earlier_saver import earlier
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command, interrupt
from worlds import PIT, WORLDS, Killed, Recorder, actions, lasting

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.checkpoint.sqlite import FORMAT, SqliteStore, TreeSaver
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld

THREAD: Any = {"configurable": {"thread_id": "1"}}
NOW = 1_795_000_000_000_000_000
"""A clock's time, in nanoseconds."""


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[TreeSaver]:
    """An empty one."""
    with TreeSaver(tmp_path / "checkpoints.sqlite") as saver:
        yield saver


def database(saver: TreeSaver) -> sqlite3.Connection:
    """Its connection."""
    store = saver._log._store
    assert isinstance(store, SqliteStore)
    return store.db


def at(checkpoint_id: str | None = None, thread: str = "1", ns: str = "") -> Any:
    """A config."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def put(saver: Any, where: Any, number: int, values: dict[str, Any], new: dict[str, int], **metadata: Any) -> Any:
    """Put a checkpoint whose id sorts by ``number`` and whose channels have these values at these new versions."""
    checkpoint = empty_checkpoint() | {
        "id": f"{number:08}-0000-6000-8000-000000000000",
        "channel_values": values,
        "channel_versions": {**dict.fromkeys(values, 1), **new},
    }
    return saver.put(where, checkpoint, {"source": "loop", "step": number, "parents": {}, **metadata}, new)


# ---- as LangGraph's own


def history(saver: Any, world: Any) -> list[Any]:
    """What a run that rewound and was forked left behind, without what differs between equal runs."""
    agent = create_leafe_agent(Recorder().model, env=world, checkpointer=saver)
    final = agent.invoke({"task": PIT}, THREAD)
    fork = agent.update_state(at(final["turns"][1]["checkpoint_id"]), {"end": "truncated"}, as_node="rewind")
    agent.invoke(None, fork)
    return [
        (lasting(state.values), state.next, state.metadata, [lasting(task.result) for task in state.tasks])
        for state in agent.get_state_history(THREAD)
    ]


@pytest.mark.parametrize("world", WORLDS)
def test_whole_history_is_what_langgraphs_saver_has(world: Any, saver: TreeSaver, tmp_path: Path) -> None:
    """Values, next nodes, metadata and the tasks' results of every checkpoint, of both leaves of a fork."""
    with SqliteSaver.from_conn_string(str(tmp_path / "langgraph.sqlite")) as theirs:
        expected = history(theirs, world)
    assert history(saver, world) == expected
    assert len(expected) > 15


def test_writes_keep_their_order_and_their_first_or_last_word(saver: TreeSaver) -> None:
    """Of a regular write at the same place the first stays, of an interrupt the last; tasks in their paths' order."""
    for each in (saver, theirs := InMemorySaver()):
        where = put(each, at(), 1, {}, {})
        each.put_writes(where, [("b", 1), ("a", 2)], "task 1", "~2")
        each.put_writes(where, [("b", 3), ("a", 4), ("c", 5)], "task 1", "~2")
        each.put_writes(where, [("a", 6)], "task 2", "~1")
        each.put_writes(where, [("__interrupt__", 7)], "task 1", "~2")
        each.put_writes(where, [("__interrupt__", 8)], "task 1", "~2")
    found, expected = saver.get_tuple(where), theirs.get_tuple(where)
    assert found is not None and expected is not None
    assert found.pending_writes == expected.pending_writes
    assert [value for _, _, value in found.pending_writes or []] == [6, 8, 1, 2, 5]


def test_values_are_stored_once_and_siblings_keep_their_own(saver: TreeSaver) -> None:
    """A channel that did not change is not written again; two forks that change it do not see each other's value."""
    root = put(saver, at(), 1, {"big": "x" * 1000, "n": 0}, {"big": 1, "n": 1})
    one = put(saver, root, 2, {"big": "not stored again", "n": 1}, {"n": 2})
    two = put(saver, root, 3, {"big": "not stored again", "n": 2}, {"n": 2})
    values = [saver.get_tuple(each).checkpoint["channel_values"] for each in (one, two)]  # type: ignore[union-attr]
    assert values == [{"big": "x" * 1000, "n": 1}, {"big": "x" * 1000, "n": 2}]
    assert saver.get_tuple(two).parent_config == root  # type: ignore[union-attr]


def test_versions_are_never_given_twice(saver: TreeSaver, tmp_path: Path) -> None:
    """Not by one saver and not by the next, and always above the one before."""
    with TreeSaver(tmp_path / "other.sqlite") as other:
        versions = [each.get_next_version(current, None) for each in (saver, other) for current in (None, 5, None, 9)]
    assert len(set(versions)) == len(versions)
    ahead = [saver.get_next_version(1 << 62, None) for _ in range(3)]  # two forks of what a clock ahead of ours wrote
    assert ahead == [(1 << 62) + 1, (1 << 62) + 2, (1 << 62) + 3]


def test_list_filters_limits_and_looks_back(saver: TreeSaver) -> None:
    """The newest first; by thread, namespace, metadata, and what came before."""
    for number in range(6):
        put(saver, at(ns="sub" if number == 5 else ""), number, {}, {}, kind="even" if number % 2 == 0 else "odd")
    put(saver, at(thread="2"), 9, {}, {})

    def steps(config: Any, **how: Any) -> Sequence[int]:
        return [each.metadata["step"] for each in saver.list(config, **how)]

    async def asteps(config: Any, **how: Any) -> Sequence[int]:
        return [each.metadata["step"] async for each in saver.alist(config, **how)]

    cases: list[tuple[Any, dict[str, Any], list[int]]] = [
        (None, {}, [9, 5, 4, 3, 2, 1, 0]),
        (THREAD, {}, [5, 4, 3, 2, 1, 0]),
        (at(), {"limit": 2}, [4, 3]),
        (at(), {"filter": {"kind": "odd"}, "limit": 1}, [3]),
        (at(), {"before": at("00000002-0000-6000-8000-000000000000")}, [1, 0]),
        (at(thread="3"), {}, []),
    ]
    for config, how, expected in cases:
        assert (steps(config, **how), asyncio.run(asteps(config, **how))) == (expected, expected)


def test_deleted_thread_is_gone_and_may_come_back(saver: TreeSaver) -> None:
    """With all its namespaces, and without touching others."""
    put(saver, at(), 1, {}, {})
    put(saver, at(ns="sub"), 1, {}, {})
    put(saver, at(thread="2"), 1, {}, {})
    saver.delete_thread("1")
    assert saver.threads() == ["2"]
    assert saver.get_tuple(THREAD) is None
    asyncio.run(saver.adelete_thread("2"))
    put(saver, at(), 2, {"n": 1}, {"n": 1})
    assert saver.get_tuple(THREAD).checkpoint["channel_values"] == {"n": 1}  # type: ignore[union-attr]


def test_thread_that_another_saver_deleted_may_come_back(saver: TreeSaver) -> None:
    """Two on one file, as two workers have it; and what else is queued is not held up."""
    put(saver, at(), 1, {"n": 1}, {"n": 1})
    saver.flush()
    with TreeSaver(saver.file) as other:
        other.delete_thread("1")
    put(saver, at(), 2, {"n": 2}, {"n": 2})
    put(saver, at(thread="2"), 1, {"n": 3}, {"n": 3})
    saver.flush()
    assert sorted(saver.threads()) == ["1", "2"]
    assert saver.get_tuple(THREAD).checkpoint["channel_values"] == {"n": 2}  # type: ignore[union-attr]


def test_interrupts_and_streams_work_on_it(saver: TreeSaver) -> None:
    """A human as the policy, asked through LangGraph's interrupt, sync and async; and the stream of checkpoints."""
    human = RunnableLambda(lambda messages: AIMessage(interrupt("your move?")))
    agent = create_leafe_agent(human, env=GridWorld, checkpointer=saver, max_rewinds=0)
    agent.invoke({"task": PIT}, THREAD)
    agent.invoke(Command(resume="down"), THREAD)
    state = asyncio.run(agent.ainvoke(Command(resume="right"), THREAD))
    assert actions(state) == ["down", "right"]
    modes = {mode for mode, _ in agent.stream(Command(resume="up"), THREAD, stream_mode=["updates", "checkpoints"])}
    assert modes == {"updates", "checkpoints"}
    assert agent.get_state(THREAD).values["end"] == "failure"


@pytest.mark.parametrize("world", WORLDS)
def test_new_agent_goes_on_where_another_was_killed(world: Any, tmp_path: Path) -> None:
    """From the file alone."""
    for recorder, given in ((Recorder(killed_at=4), {"task": PIT}), (Recorder(), None)):
        with TreeSaver(tmp_path / "checkpoints.sqlite") as saver:
            agent = create_leafe_agent(recorder.model, env=world, checkpointer=saver)
            try:
                final = agent.invoke(given, THREAD)
            except Killed:
                assert agent.get_state(THREAD).next == ("reflect",)
    assert (final["end"], actions(final)) == ("success", ["down", "right", "right", "up"])


# ---- written behind

KILLED = """
import os, signal, sys
from pathlib import Path
from test_tree_saver import at, put
from leafe_graph.checkpoint.sqlite import TreeSaver
saver = TreeSaver(sys.argv[1])
where = at()
for number in range(500):
    where = put(saver, where, number, {"n": number}, {"n": number + 1})
saver.flush()
put(saver, where, 500, {"n": 500}, {"n": 501})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL right after a flush: all that was put before it is there, whole."""
    file = tmp_path / "checkpoints.sqlite"
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], env=where, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with TreeSaver(file) as saver:
        steps = [each.metadata["step"] for each in saver.list(THREAD)]
        assert steps[-500:] == list(reversed(range(500)))
        assert saver.get_tuple(at("00000499-0000-6000-8000-000000000000")).checkpoint["channel_values"] == {"n": 499}  # type: ignore[union-attr]


def test_rows_are_committed_without_being_asked(saver: TreeSaver) -> None:
    """Another connection sees them after a while, though nobody flushes or reads."""
    put(saver, at(), 1, {}, {})
    count = "SELECT count(*) FROM leafe_segments"
    waited = threading.Event()
    for _ in range(600):
        other = sqlite3.connect(saver.file)
        found = other.execute(count).fetchone()[0]
        other.close()
        if found:
            return
        waited.wait(0.1)
    pytest.fail("nothing was committed in a minute")


def test_full_disk_is_said_and_nothing_is_lost_when_there_is_room_again(saver: TreeSaver) -> None:
    """The flush fails by name; the rows stay queued, and the next flush puts them in."""
    db = database(saver)
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    put(saver, at(), 1, {"noise": os.urandom(100_000)}, {"noise": 1})
    with pytest.raises(RunFolderError, match=r"checkpoints.sqlite cannot be written: database or disk is full"):
        saver.flush()
    db.execute("PRAGMA max_page_count = 1000000")
    saver.flush()
    assert saver.get_tuple(THREAD) is not None


def test_threads_put_side_by_side(saver: TreeSaver) -> None:
    """Eight threads, each its own LangGraph thread, with readers in between: every checkpoint is there."""

    def work(name: str) -> None:
        where = at(thread=name)
        for number in range(100):
            where = put(saver, where, number, {"n": number}, {"n": number + 1})
            saver.put_writes(where, [("n", number)], "task")
            if number % 25 == 0:
                saver.get_tuple(where)

    threads = [threading.Thread(target=work, args=(str(name),)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for name in range(8):
        found = list(saver.list(at(thread=str(name))))
        assert [each.checkpoint["channel_values"]["n"] for each in found] == list(reversed(range(100)))
        assert all(len(each.pending_writes or []) == 1 for each in found)


ODD = ["a/b", "a\\b", "'", '"; DROP TABLE x', "a\nb", " ", "%", "_", "é", "e\u0301", "🙂", "x" * 5000, "..", "00"]
"""Thread ids that a file's name, a query or a normal form could take for one another."""


def test_odd_thread_ids_are_threads_of_their_own(tmp_path: Path) -> None:
    """Also when the file is opened again."""
    with TreeSaver(tmp_path / "points.sqlite") as saver:
        for number, name in enumerate(ODD):
            put(saver, at(thread=name), number, {"n": name}, {"n": number + 1})
    with TreeSaver(tmp_path / "points.sqlite") as saver:
        for name in ODD:
            (found,) = saver.list(at(thread=name))
            assert found.config["configurable"]["thread_id"] == name
            assert found.checkpoint["channel_values"] == {"n": name}


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """LangGraph's own tables, and what is no database."""
    with SqliteSaver.from_conn_string(str(tmp_path / "langgraph.sqlite")) as theirs:
        theirs.setup()
    with pytest.raises(RunFolderError, match=r"holds the tables .*SqliteSaver made can be pruned"):
        TreeSaver(tmp_path / "langgraph.sqlite")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(RunFolderError, match="no readable SQLite database"):
        TreeSaver(tmp_path / "text")


def test_thread_id_that_no_database_can_hold_is_refused(saver: TreeSaver) -> None:
    """Two such ids must not become one thread."""
    agent = create_leafe_agent(Recorder().model, env=GridWorld, checkpointer=saver)
    with pytest.raises(ConfigError, match=r"thread_id 'a\\ud83d': half a surrogate pair at character 1"):
        agent.invoke({"task": PIT}, {"configurable": {"thread_id": "a\ud83d"}})


def test_closed_saver_says_so(saver: TreeSaver) -> None:
    """Closing twice is nothing; putting afterwards is a mistake."""
    saver.close()
    saver.close()
    with pytest.raises(RunFolderError, match="was closed"):
        put(saver, at(), 1, {}, {})


# ---- growth


class Endless:
    """A world that says as much at every step, with snapshots."""

    steps = resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin; instances count together."""
        type(self).resets += 1
        self.at = 0
        return f"{self.at:04} " * 50, {}

    def step(self, action: str) -> Any:
        """Go on."""
        type(self).steps += 1
        self.at += 1
        return f"{self.at:04} " * 50, 0.0, False, False, {}

    def close(self) -> None:
        """Nothing is held."""


class SavedEndless(Endless):
    """The same with snapshots."""

    steps = resets = 0

    def snapshot(self) -> bytes:
        """Where it is."""
        return b"%d" % self.at

    def restore(self, state: bytes) -> None:
        """Be there."""
        self.at = int(state)


def episode(saver: Any, world: Any, turns: int, calls: list[int] | None = None) -> tuple[Any, Any]:
    """An agent and the final state of an episode of so many turns."""

    def reply(messages: Any, seed: Any) -> str:
        if calls is not None:
            calls.append(1)
        return "on"

    model = ScriptedModel(reply=reply)
    agent = create_leafe_agent(model, env=world, checkpointer=saver, max_turns=turns, max_rewinds=0, history=0)
    return agent, agent.invoke({"task": {"id": "t", "instruction": ""}}, THREAD)


def test_bytes_a_turn_stay_flat(tmp_path: Path) -> None:
    """Three hundred turns take no more bytes each than thirty."""
    sizes = {}
    for turns in (30, 300):
        with TreeSaver(tmp_path / f"{turns}.sqlite") as saver:
            episode(saver, SavedEndless, turns)
        sizes[turns] = (tmp_path / f"{turns}.sqlite").stat().st_size / turns
    assert sizes[300] < 1.1 * sizes[30]


@pytest.mark.parametrize("tau", [2, 35])
@pytest.mark.parametrize("world", [Endless, SavedEndless])
def test_rewinding_costs_no_steps_with_snapshots_and_tau_without(world: Any, tau: int, saver: TreeSaver) -> None:
    """However deep: no model call, one reset, and the replayed steps alone."""
    calls: list[int] = []
    agent, final = episode(saver, world, 40, calls)
    world.steps = world.resets = 0
    calls.clear()
    fork = agent.update_state(at(final["turns"][tau]["checkpoint_id"]), {"experience": "x"}, as_node="rewind")
    assert (world.steps, world.resets, calls) == (0, 0, [])
    again = agent.invoke(None, fork, interrupt_after=["step"])
    replayed = 0 if world is SavedEndless else tau
    assert (world.steps, world.resets, len(calls)) == (replayed + 1, 1, 1)
    assert again["cost"]["replayed_steps"] == replayed
    assert len(again["turns"]) == tau + 1


def test_snapshot_world_is_used(saver: TreeSaver) -> None:
    """The agent's own rewinds are the same on this saver as in memory."""
    runs = [
        create_leafe_agent(Recorder().model, env=SnapshotGridWorld, checkpointer=each).invoke({"task": PIT}, THREAD)
        for each in (saver, InMemorySaver())
    ]
    assert lasting(runs[0]) == lasting(runs[1])


def test_list_looks_back_from_a_checkpoint_that_the_thread_has_not(saver: TreeSaver) -> None:
    """From one that was dropped, and in all threads from that of one: by their ids, as LangGraph's savers do."""
    other = InMemorySaver()
    for thread in ("1", "2"):
        for number in (1, 4, 7) if thread == "1" else (2, 5, 8):
            for each in (saver, other):
                put(each, at(thread=thread), number, {}, {})
    from_there = at(f"{4:08}-0000-6000-8000-000000000000")

    def steps(of: Any, config: Any) -> list[int]:
        return sorted(found.metadata["step"] for found in of.list(config, before=from_there))

    assert steps(saver, None) == steps(other, None) == [1, 2]
    saver.keep("1", [f"{number:08}-0000-6000-8000-000000000000" for number in (1, 7)])
    assert steps(saver, at()) == [1]


# ---- a clock that is set back


def test_what_was_put_last_is_the_latest_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """Ids, which grow with the clock, may fall: the newest is what was put last, by whichever process."""
    file, numbers = tmp_path / "checkpoints.sqlite", [5, 9, 3]
    for number in numbers:
        with TreeSaver(file) as saver:
            put(saver, at(), number, {"number": number}, {"number": saver.get_next_version(None, None)})
    with TreeSaver(file) as saver:
        put(saver, at(), 1, {"number": 1}, {"number": saver.get_next_version(None, None)})
        latest = saver.get_tuple(at())
        assert latest is not None and latest.checkpoint["channel_values"] == {"number": 1}
        found = [each.checkpoint["channel_values"]["number"] for each in saver.list(at())]
        assert found == [1, 3, 9, 5]
        before = saver.list(at(), before=saver.get_tuple(at(f"{3:08}-0000-6000-8000-000000000000")).config)  # type: ignore[union-attr]
        assert [each.checkpoint["channel_values"]["number"] for each in before] == [9, 5]


def test_agent_goes_on_where_it_was_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second task on the same thread, an hour earlier by the clock: the thread's state is that of the second."""
    import langgraph.checkpoint.base.id as ids

    for hours, task in enumerate(("first", "second")):
        clock = SimpleNamespace(time_ns=lambda hours=hours: NOW - hours * 3_600_000_000_000)
        monkeypatch.setattr(ids, "time", clock)
        monkeypatch.setattr(ids, "_last_v6_timestamp", None)
        monkeypatch.setattr("leafe_graph.checkpoint.write_behind.time", clock)
        with TreeSaver(tmp_path / "checkpoints.sqlite") as saver:
            model = ScriptedModel(reply=["up"])
            agent = create_leafe_agent(model, env=SnapshotGridWorld, max_turns=2, max_rewinds=0, checkpointer=saver)
            agent.invoke({"task": PIT | {"id": task}}, THREAD)
            assert agent.get_state(THREAD).values["task"]["id"] == task
            assert agent.invoke({"task": PIT | {"id": f"{task} again"}}, THREAD)["task"]["id"] == f"{task} again"


def test_no_version_is_given_twice_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two forks of one checkpoint by two later processes with earlier clocks: each has its own values."""
    file = tmp_path / "checkpoints.sqlite"
    given = []
    for hours in range(3):
        clock = SimpleNamespace(time_ns=lambda hours=hours: NOW - 10 * hours)
        monkeypatch.setattr("leafe_graph.checkpoint.write_behind.time", clock)
        with TreeSaver(file) as saver:
            version = saver.get_next_version(given[0] if given else None, None)
            put(saver, at(), 10 - hours, {"value": hours}, {"value": version})
            given.append(version)
            values = [each.checkpoint["channel_values"]["value"] for each in saver.list(at())]
            assert values == [*range(hours, -1, -1)]
    assert given == sorted(set(given))


@pytest.mark.parametrize("version", [1, 2])
def test_file_of_an_earlier_release_is_gone_on_with(tmp_path: Path, version: int) -> None:
    """What it holds comes before what is put now; format 1 had no numbers, so there in the order of its ids."""
    file = earlier(version, tmp_path) / "two.sqlite"
    with TreeSaver(file) as saver:
        put(saver, at(), 5, {"number": 5}, {"number": 8})
        assert [each.checkpoint["channel_values"]["number"] for each in saver.list(at())] == [5, 7, 4]
        before = saver.list(at(), before=at(f"{7:08}-0000-6000-8000-000000000000"))
        assert [each.checkpoint["channel_values"]["number"] for each in before] == [4]
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_processes_that_open_a_file_at_once_bring_it_to_this_format_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """Another process does it after this one has read the format: both go on; 0 is a new file."""
    file = (earlier(version, tmp_path) if version else tmp_path) / "two.sqlite"
    run = SqliteStore.run

    def meanwhile(store: SqliteStore, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(SqliteStore, "run", run)
        with TreeSaver(file) as other:
            put(other, at(), 9, {"number": 9}, {"number": 9})
        return run(store, *args, **kwargs)

    monkeypatch.setattr(SqliteStore, "run", meanwhile)
    with TreeSaver(file) as saver:
        put(saver, at(), 5, {"number": 5}, {"number": 10})
        found = [each.checkpoint["channel_values"]["number"] for each in saver.list(at())]
        assert found == ([5, 9, 7, 4] if version else [5, 9])


def test_thread_and_last_number_are_found_by_index(saver: TreeSaver) -> None:
    """However many threads a file holds: SQLite reads through no table for one of them."""
    said: list[str] = []
    db = database(saver)
    db.set_trace_callback(said.append)
    assert saver.get_tuple(at()) is None
    saver.delete_thread("1")
    db.set_trace_callback(None)
    steps = [
        step
        for sql in [*(sql for sql in said if "thread_id" in sql), "SELECT max(number) FROM leafe_segments"]
        for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]
    assert len(steps) >= 3
    assert not [step for step in steps if step.startswith("SCAN")]
