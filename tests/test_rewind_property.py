"""Whatever is stepped, rewound, forked and killed: a branch's state is that of playing its actions from the start."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.sqlite import SqliteSaver
from worlds import WORLDS, Killed, actions, is_reflection

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.agent.state import BranchInfo, forked
from leafe_graph.env import EnvPool, snapshot
from leafe_graph.testing import GridWorld
from leafe_graph.types import Task

TASK: Task = {
    "id": "property",
    "instruction": "Walk.",
    "options": {"size": 4, "start": [1, 1], "goal": [3, 3], "pits": [[0, 3], [3, 0]]},
}
FIELDS = ("observation", "action", "feedback", "reward", "terminated", "truncated", "valid", "env_state")

MOVES = st.lists(
    st.tuples(st.sampled_from(["up", "down", "left", "right", "jump"]), st.none() | st.integers(0, 20)),
    min_size=1,
    max_size=4,
)
"""What is played in one go: actions, each with the turn to rewind to, in place, when asked after it."""
STEPS = st.lists(
    st.tuples(st.sampled_from(["go on", "fork", "fork", "kill"]), st.integers(0, 20), st.integers(0, 20), MOVES),
    max_size=7,
)
"""What is done: to which leaf, at which of its decision points, playing what."""


def truth(world: type[GridWorld], path: Sequence[str]) -> dict[str, Any]:
    """The state after these actions from the start."""
    env = world()
    observation, _ = env.reset(options=TASK["options"])
    turns, end = [], None
    for action in path:
        before = observation, snapshot(env)
        observation, reward, terminated, truncated, info = env.step(action)
        turn = (before[0], action, info["feedback"], reward, terminated, truncated, info["valid"], before[1])
        turns.append(dict(zip(FIELDS, turn, strict=True)))
        end = None if not terminated else "success" if info["success"] else "failure"
    return {"turns": turns, "observation": observation, "env_state": snapshot(env), "end": end}


def played(world: type[GridWorld], path: list[str], moves: Sequence[tuple[str, int | None]]) -> list[str]:
    """Where the path leads when these moves are made on it."""
    for action, back in moves:
        path = [*path, action]
        end = truth(world, path)["end"]
        if end != "success" and back is not None:
            path = path[: back % len(path)]
        elif end:
            break
    return path


class Lives:
    """An agent that dies at the end of whatever it plays, and the leaves that it left."""

    def __init__(self, world: type[GridWorld], file: Path) -> None:
        self.world, self.file = world, file
        self.leaves: list[tuple[Any, list[str]]] = []
        self.config: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
        self.start()

    def start(self) -> None:
        """A new life: nothing is left but the file."""
        self.connection = sqlite3.connect(self.file, check_same_thread=False)
        self.agent: Any = create_leafe_agent(
            RunnableLambda(self.reply),
            env=EnvPool(self.world, size=2),
            checkpointer=SqliteSaver(self.connection),
            max_turns=1000,
            reflect_every=1,
            max_rewinds=1000,
        )

    def reply(self, prompt: list[Any]) -> AIMessage:
        """Say what is to be played; when there is no more, die."""
        if is_reflection([AIMessage(prompt[-1]["content"])]):
            back, steps = self.back, prompt[-1]["content"].count(" -> ")
            return AIMessage('{"step": null}' if back is None else f'{{"step": {back % steps}, "experience": "no"}}')
        if not self.moves:
            raise Killed
        action, self.back = self.moves.pop(0)
        return AIMessage(action)

    def play(self, given: Any, config: Any, path: list[str], moves: Any) -> None:
        """Play on, and remember the leaf."""
        self.moves = list(moves)
        with contextlib.suppress(Killed):
            self.agent.invoke(given, config)
        leaf = self.agent.get_state(self.config).config, played(self.world, path, moves)
        self.leaves.append(leaf)
        self.check(*leaf)

    def fork(self, config: Any, path: list[str], t: int, moves: Any) -> None:
        """Fork a decision point of a leaf's path."""
        t %= len(path)
        turn = self.agent.get_state(config).values["turns"][t]
        at = {"configurable": {**self.config["configurable"], "checkpoint_id": turn["checkpoint_id"]}}
        info = BranchInfo(id=str(1000 * len(self.leaves)), parent="0", decision_point=t, depth=1)
        update = forked(self.agent.get_state(at).values, t, "Try something else.", info)
        fork = self.agent.update_state(at, update, as_node="rewind")
        self.check(fork, path[:t])
        self.play(None, fork, path[:t], moves)

    def check(self, config: Any, path: list[str]) -> None:
        """What is saved is what the path's actions lead to."""
        state = self.agent.get_state(config)
        assert actions(state.values) == path
        expected = truth(self.world, path)
        turns = [{field: turn[field] for field in FIELDS} for turn in state.values["turns"]]
        assert {key: state.values[key] for key in expected} | {"turns": turns} == expected
        assert state.next == (() if expected["end"] else ("act",))


@pytest.mark.parametrize("world", WORLDS)
@settings(
    max_examples=12,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes here
)
@given(first=MOVES, steps=STEPS)
def test_state_is_that_of_the_branchs_own_actions(world: type[GridWorld], first: Any, steps: Any) -> None:
    """Random trees of rewinds, in place and by forks, with kills in between: every leaf stays what it was."""
    with tempfile.TemporaryDirectory() as folder:
        lives = Lives(world, Path(folder) / "checkpoints.sqlite")
        lives.play({"task": TASK}, lives.config, [], first)
        for what, number, t, moves in steps:
            config, path = lives.leaves[number % len(lives.leaves)]
            if what == "kill":
                lives.connection.close()
                lives.start()
            elif what == "fork" and path:
                lives.fork(config, path, t, moves)
            elif what == "go on" and truth(world, path)["end"] is None:
                lives.play(None, config, path, moves)
        for config, path in lives.leaves:
            lives.check(config, path)
        lives.connection.close()
