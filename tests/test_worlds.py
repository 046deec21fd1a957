"""Every environment of the catalogue has the common shape and keeps the contract."""

import json
from importlib import import_module
from types import ModuleType
from typing import Any

import needs
import pytest

from leafe_graph.env import Guide
from leafe_graph.envs.catalog import ENVS
from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.testing import check_env

SPLITS = ("train", "validation", "test")
EVERY = [pytest.param(name, marks=needs.world(name)) for name in ENVS]


def module(name: str) -> ModuleType:
    """The environment's module."""
    return import_module(ENVS[name].env.partition(":")[0])


def make(name: str) -> Any:
    """The environment's class."""
    return getattr(module(name), ENVS[name].env.partition(":")[2])


@pytest.mark.parametrize("name", EVERY)
def test_an_environment_has_the_common_shape(name: str) -> None:
    """Pieces of a prompt, a horizon, and a docstring with Gymnasium's headings."""
    guide, horizon = module(name).GUIDE, module(name).HORIZON
    assert isinstance(guide, Guide) and guide.role and guide.actions and guide.example
    assert isinstance(horizon, int) and horizon >= 1
    for heading in (
        "Description",
        "Action space",
        "Observation space",
        "Starting state",
        "Reward",
        "Episode end",
        "Info",
        "Version",
    ):
        assert f"{heading}:" in make(name).__doc__, heading


@pytest.mark.parametrize("name", EVERY)
def test_tasks_are_the_same_every_time_and_splits_share_none(name: str) -> None:
    """Lists begin alike, go on where they are asked to, and hold nothing but JSON."""
    tasks = module(name).tasks
    ids: list[str] = []
    for split in SPLITS:
        found = tasks(split, 3)
        assert len(found) == 3 and json.loads(json.dumps(found)) == found
        assert tasks(split, 2) == found[:2]
        ids += [task["id"] for task in found]
    assert len(set(ids)) == len(ids)
    assert tasks("train", 1, start=20)[0]["id"] not in ids
    with pytest.raises(ConfigError, match="train, validation, test"):
        tasks("dev", 1)


@pytest.mark.parametrize("name", EVERY)
def test_numbers_of_numpy_ask_for_the_same_tasks(name: str) -> None:
    """As Python's do: when tasks are made, and as seeds and in options of a reset; what is made holds Python's."""
    np = pytest.importorskip("numpy")
    tasks = module(name).tasks("train", np.int64(1), start=np.int64(2))
    assert json.loads(json.dumps(tasks)) == tasks == module(name).tasks("train", 1, start=2)
    (task,) = tasks
    options = {key: np.int64(value) if isinstance(value, int) else value for key, value in task["options"].items()}
    env, other = make(name)(), make(name)()
    seed = task.get("seed") or 3
    assert env.reset(seed=np.int64(seed), options=options)[0] == other.reset(seed=seed, options=task["options"])[0]
    env.close()
    other.close()


@pytest.mark.parametrize("name", EVERY)
def test_an_expert_wins_and_the_contract_holds_on_the_way(name: str) -> None:
    """On the expert's path: the same story again, snapshots, bad actions answered, closed twice."""
    task = module(name).tasks("train", 1)[0]
    actions = module(name).expert(task)
    env = make(name)()
    env.reset(seed=task.get("seed"), options=task.get("options"))
    for action in actions:
        *_, terminated, _, info = env.step(action)
    env.close()
    assert terminated and info["success"] is True
    check_env(make(name), tasks=[task], actions=actions, steps=module(name).HORIZON)


def test_what_is_missing_is_named_with_the_command() -> None:
    """The error of an environment that is not installed says how to install it."""
    world = ENVS["scienceworld"]
    lacking = type(world)(name="x", env="x:X", about="", extra="x", modules=("no_such_module",), programs={"nope": "p"})
    with pytest.raises(MissingDependency, match=r"no_such_module, nope.*apt-get install p && pip install .*\[x\]"):
        lacking.require()
    assert ENVS["sokoban"].missing() == [] and ENVS["sokoban"].install == ""
