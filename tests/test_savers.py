"""Forks are right on every saver and in every environment, and the check notices a saver on which they are not."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from postgres import Server
from savers import ASYNC_SQLITE, MEMORY, POSTGRES, SAVERS, SQLITE, opener
from worlds import actions, pit_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.agent.state import BranchInfo, forked
from leafe_graph.envs import sokoban
from leafe_graph.errors import CheckpointError, ConfigError
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, check_saver, grid_tasks

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "GridWorld": {"env": GridWorld},
    "SnapshotGridWorld": {"env": SnapshotGridWorld},
    "Sokoban": {"env": sokoban.SokobanEnv, "task": sokoban.tasks("train", 1, min_moves=8, max_moves=12)[0]},
}


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path | str]:
    """Where a kind of saver keeps its checkpoints; starts the database server for those that need it."""

    def place(kind: str) -> Path | str:
        if "Postgres" not in kind:
            return tmp_path / f"{kind}.sqlite"
        server: Server = request.getfixturevalue("postgres_server")
        return server.new_database()

    return place


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("saver", SAVERS)
def test_forks_are_right(saver: str, env: str, where: Callable[[str], Path | str]) -> None:
    """First, middle, last decision point, a fork of a fork, sixteen at once, and all again after opening it anew."""
    check_saver(opener(saver, where(saver)), **ENVIRONMENTS[env])


STRICT = """
import sys
from savers import opener
from leafe_graph.testing import SnapshotGridWorld, check_saver
from langgraph.checkpoint.serde import _msgpack
assert _msgpack.STRICT_MSGPACK_ENABLED
for saver, place in zip(sys.argv[1::2], sys.argv[2::2]):
    check_saver(opener(saver, place), env=SnapshotGridWorld, at_once=4)
    print(saver)
"""


def test_nothing_is_lost_under_strict_msgpack(where: Callable[[str], Path | str]) -> None:
    """With LANGGRAPH_STRICT_MSGPACK=true every saver gives back all that it was given, and warns of nothing."""
    places = [str(part) for saver in SAVERS for part in (saver, where(saver))]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STRICT, *places],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == SAVERS, done.stderr
    assert done.stderr == ""


KILLED = """
import os, signal, sys
from savers import opener
from worlds import PIT, pit_reply
from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.testing import GridWorld, ScriptedModel

def reply(messages, seed):
    if sum(message.type == "ai" for message in messages) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return pit_reply(messages, seed)

with opener(*sys.argv[1:])() as saver:
    agent = create_leafe_agent(ScriptedModel(reply=reply), env=GridWorld, checkpointer=saver)
    # By default LangGraph writes behind: a kill loses the last moments, never a part of one. Here it is to lose none.
    agent.invoke({"task": PIT}, {"configurable": {"thread_id": "1"}}, durability="sync")
"""


@pytest.mark.parametrize("saver", [SQLITE, POSTGRES])
def test_fork_in_another_process_after_the_first_was_killed(saver: str, where: Callable[[str], Path | str]) -> None:
    """Killed at its third decision; its second one is forked here, and what it had done stays readable."""
    place = str(where(saver))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, saver, place],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    thread: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
    with opener(saver, place)() as opened:
        agent: Any = create_leafe_agent(ScriptedModel(reply=pit_reply), env=GridWorld, checkpointer=opened)
        left = agent.get_state(thread)
        assert actions(left.values) == ["down", "right"]
        decision = left.values["turns"][1]["checkpoint_id"]
        at = {"configurable": {**thread["configurable"], "checkpoint_id": decision}}
        branch = BranchInfo(id="1", parent="0", decision_point=1, depth=1)
        update = forked(agent.get_state(at).values, 1, "Mind the pit.", branch)
        final = agent.invoke(None, agent.update_state(at, update, as_node="rewind"))
        assert (final["end"], actions(final)) == ("success", ["down", "right", "right", "up"])
        assert (final["cost"]["replayed_steps"], final["cost"]["env_steps"]) == (1, 3)
        assert agent.get_state(thread).values == final
        assert agent.get_state(left.config).values == left.values


# ---- savers that break a promise


class DropsWrites(InMemorySaver):
    """Loses a write now and then: the fourth turn of an episode."""

    turns = 0

    def put_writes(self, config: Any, writes: Any, *args: Any, **kwargs: Any) -> None:
        kept = []
        for channel, value in writes:
            self.turns += channel == "turns"
            if channel != "turns" or self.turns != 5:  # the first is the one that empties the thread
                kept.append((channel, value))
        super().put_writes(config, kept, *args, **kwargs)


class LatestOnly(InMemorySaver):
    """Gives the newest checkpoint of the thread, whichever was asked for."""

    def get_tuple(self, config: Any) -> Any:
        return super().get_tuple({"configurable": {**config["configurable"], "checkpoint_id": None}})


class NoParents(InMemorySaver):
    """Does not know from which checkpoint another one came."""

    def put(self, config: Any, *args: Any) -> Any:
        configurable = {key: value for key, value in config["configurable"].items() if key != "checkpoint_id"}
        return super().put({**config, "configurable": configurable}, *args)


class SharesWrites(InMemorySaver):
    """Writes are kept by thread: what a branch left behind wrote, its siblings read too."""

    def get_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        histories: Any = super().get_delta_channel_history(config=config, channels=channels)
        everything = [write for writes in self.writes.values() for write in writes.values()]
        for channel, history in histories.items():
            known = {id(write) for write in history["writes"]}
            history["writes"] += [
                (task, channel, self.serde.loads_typed(value))
                for task, name, value, _ in everything
                if name == channel and id(value) not in known
            ][: len(history["writes"]) and 1]
        return histories


class Overwrites(InMemorySaver):
    """Keeps one child a checkpoint: a second fork takes the place of the first."""

    def put(self, config: Any, checkpoint: Any, *args: Any) -> Any:
        where = config["configurable"]
        parent = where.get("checkpoint_id")
        saved = self.storage[where["thread_id"]][where["checkpoint_ns"]]
        for name in [name for name, (_, _, of) in saved.items() if of == parent and parent is not None]:
            del saved[name]
        return super().put(config, checkpoint, *args)


class TextOnly(InMemorySaver):
    """Keeps no bytes."""

    def put(self, config: Any, checkpoint: Any, *args: Any) -> Any:
        values = checkpoint["channel_values"]
        return super().put(config, {**checkpoint, "channel_values": {**values, "env_state": None}}, *args)


class Full(InMemorySaver):
    """Raises from a moment on."""

    puts = 0

    def put(self, *args: Any) -> Any:
        self.puts += 1
        if self.puts > 30:
            raise OSError("no space left on device")
        return super().put(*args)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (DropsWrites, "first rollout, read back, decision point 4: turns"),
        (LatestOnly, "decision point 0: "),
        (NoParents, "first rollout, read back, decision point [0-9]: turns"),
        (SharesWrites, "turns"),
        (Overwrites, "fork of the middle decision point, before its first turn: turns"),
        (TextOnly, "snapshots"),
        (Full, "raised OSError: no space left on device"),
    ],
)
def test_a_broken_saver_is_noticed(broken: type[InMemorySaver], said: str) -> None:
    """Each breaks one promise, and the error says where, what was expected and what came."""
    saver = broken()
    with pytest.raises(CheckpointError, match=said) as caught:
        check_saver(lambda: nullcontext(saver), env=SnapshotGridWorld, at_once=2)
    if broken is not Full:
        assert caught.value.expected != caught.value.actual  # type: ignore[attr-defined]


def test_a_store_that_is_empty_when_opened_again_is_noticed() -> None:
    """A saver in memory that is made anew each time loses everything, which only opening it again shows."""
    with pytest.raises(CheckpointError, match="opened again, decision point 0: the checkpoint"):
        check_saver(lambda: nullcontext(InMemorySaver()), env=GridWorld, at_once=1)


def test_a_task_that_is_too_short_to_fork_is_refused() -> None:
    """A task that the first steps end has no middle."""
    task: Any = grid_tasks(1)[0] | {"options": {"size": 2, "start": [0, 0], "goal": [0, 1], "pits": [[1, 0]]}}
    with pytest.raises(ConfigError, match="expected 3 or more"):
        check_saver(opener(MEMORY, ""), env=GridWorld, task=task, actions=["down", "right"])


def test_a_real_saver_passes_with_a_users_own_environment(tmp_path: Path) -> None:
    """As the documentation says: a saver, an environment, a task and what may be played."""
    check_saver(
        opener(ASYNC_SQLITE, tmp_path / "c.sqlite"),
        env=lambda: GridWorld(max_steps=4),
        task=grid_tasks(1)[0] | {"options": {"size": 4, "start": [2, 2], "goal": [3, 3], "pits": [[0, 0]]}},
        actions=["up", "left", "jump"],
        at_once=2,
    )
