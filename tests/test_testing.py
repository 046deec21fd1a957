"""The grid world and the scripted model do what tests rely on."""

import asyncio
import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from leafe_graph.env import SnapshotEnv
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks, random_reply


def test_grid_world_ends_at_the_goal_and_in_pits() -> None:
    """The goal is a success with reward 1, a pit a failure, a wall and nonsense cost a step."""
    env = GridWorld()
    options = {"start": [0, 0], "goal": [2, 0], "pits": [[1, 1]]}
    assert env.reset(options=options)[0] == "you are at 0,0; the goal is at 2,0"
    assert env.step("up")[4]["feedback"] == "blocked by wall"
    assert env.step("fly")[4]["valid"] is False
    assert env.step(" Right\n")[0] == "moved; you are at 1,0; the goal is at 2,0"
    observation, reward, terminated, truncated, info = env.step("right")
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert observation.startswith("reached the goal")
    env.reset(options=options)
    env.step("right")
    *_, info = env.step("down")
    assert (info["success"], info["feedback"]) == (False, "fell into a pit")
    assert env.step("up")[4]["feedback"] == "the episode is over"


def test_grid_worlds_can_be_won() -> None:
    """Worlds from seeds always have a path to the goal, also where so many pits do not fit."""
    for size, pits in ((5, 4), (2, 2), (3, 7)):
        for task in grid_tasks(50):
            env = GridWorld(size=size, pits=pits)
            env.reset(seed=task.get("seed"))
            assert env._reachable()
    GridWorld().reset(seed=1, options={"size": 2, "start": [0, 0], "goal": [1, 1]})
    with pytest.raises(ConfigError, match="pits=99"):
        GridWorld(pits=99)


def test_only_one_grid_world_has_snapshots() -> None:
    """So that replaying and restoring can be tested on the same tasks."""
    assert not isinstance(GridWorld(), SnapshotEnv)
    env = SnapshotGridWorld()
    assert isinstance(env, SnapshotEnv)
    with pytest.raises(EnvError, match="not a snapshot"):
        env.restore(b"junk")


def test_scripted_model_follows_function_list_and_seed() -> None:
    """The answer depends on the messages and the seed only."""
    model = ScriptedModel(reply=lambda messages, seed: f"{len(messages)} {seed}", seed=7)
    assert model.invoke("a").text == "1 7"
    assert model.invoke("a", seed=8).text == "1 8"
    assert model.invoke("a", seed=0, temperature=1.0).text == "1 0"
    listed = ScriptedModel(reply=["first", "second"])
    assert listed.invoke([HumanMessage("x")]).text == "first"
    assert listed.invoke([HumanMessage("x"), AIMessage("first"), HumanMessage("y")]).text == "second"
    drawn = ScriptedModel(reply=random_reply(["a", "b", "c"]))
    assert {drawn.invoke("x", seed=seed).text for seed in range(30)} == {"a", "b", "c"}
    assert all(drawn.invoke("x", seed=3).text == drawn.invoke("x", seed=3).text for _ in range(5))


def test_scripted_model_cuts_and_counts() -> None:
    """Stop words, max_tokens, usage and the reason why it ended, as a real model gives them."""
    model = ScriptedModel(reply=["one two three four"])
    cut = model.invoke("hello there", max_tokens=2)
    assert (cut.text, cut.response_metadata["finish_reason"]) == ("one two", "length")
    assert cut.usage_metadata is not None
    assert cut.usage_metadata["input_tokens"] == 2
    assert cut.usage_metadata["output_tokens"] == 2
    stopped = model.invoke("x", stop=["four", " three"])
    assert (stopped.text, stopped.response_metadata["finish_reason"]) == ("one two", "stop")


def test_scripted_model_calls_sleep_side_by_side() -> None:
    """Twenty calls with a delay take about as long as one."""
    model = ScriptedModel(reply=["a"], delay=0.1)

    async def calls() -> None:
        await asyncio.gather(*(model.ainvoke("x", seed=seed) for seed in range(20)))

    began = time.perf_counter()
    asyncio.run(calls())
    assert time.perf_counter() - began < 1.0
