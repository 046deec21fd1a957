"""A world of one's own: the contract that it keeps, and what is said where it does not."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from worlds import PIT, pit_reply

from leafe_graph import Budget, Limits, create_leafe_agent, explore
from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.envs.catalog import environment, find
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import GridWorld, ScriptedModel, check_env, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

MODEL = ScriptedModel(reply=pit_reply)


class AsGymnasium(GridWorld):
    """Tells by the reward whether the task was solved, as worlds of Gymnasium do."""

    def step(self, action: str) -> Any:
        *answer, info = super().step(action)
        info.pop("success", None)
        return *answer, info


class AsOldGym(GridWorld):
    """Four values."""

    def step(self, action: str) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class BareStart(GridWorld):
    """A reset returns the observation alone, here of two characters."""

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return "ab"


class Forgetful(GridWorld):
    """Its step returns nothing."""

    def step(self, action: str) -> Any:
        super().step(action)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (AsGymnasium, r"terminated the episode with reward 0 and no info\['success'\]; expected True or False there"),
        (
            AsOldGym,
            r"step returned 4 values, as Gym did before 0\.26.*; expected \(observation, reward, terminated",
        ),
        (BareStart, r"reset returned str, as Gym did before 0\.26; expected \(observation, info\)"),
        (Forgetful, r"step returned NoneType; expected \(observation, reward"),
    ],
)
def test_a_world_that_breaks_the_contract_stops_the_run_at_once(
    world: type[GridWorld], said: str, tmp_path: Path
) -> None:
    """One clear error at the first such answer, not a tree of failures; nothing that failed is counted."""
    with pytest.raises(ConfigError, match=said):
        create_leafe_agent(MODEL, env=world).invoke({"task": PIT})
    with pytest.raises(ConfigError, match=said):
        explore(MODEL, world, [PIT], out=tmp_path / "run")
    assert RunFolder(tmp_path / "run").branches == []
    with pytest.raises(ConfigError, match=said):
        demonstrate(world, [PIT], lambda task: ["down", "right", "up", "up"])


@pytest.mark.parametrize(
    ("terminated", "truncated", "told", "end"),
    [
        (True, False, True, "success"),
        (True, False, False, "failure"),
        (True, True, True, "success"),
        (False, True, True, "success"),
        (False, True, False, "truncated"),
        (False, True, None, "truncated"),
    ],
)
def test_a_success_is_what_the_world_says_at_the_end(
    terminated: bool, truncated: bool, told: bool | None, end: str
) -> None:
    """Also of an episode that was truncated: some worlds go on until time is up, solved or not."""
    info = {} if told is None else {"success": told}
    world = type("World", (GridWorld,), {"step": lambda self, action: ("end", 0.0, terminated, truncated, dict(info))})
    assert create_leafe_agent(MODEL, env=world, max_rewinds=0).invoke({"task": PIT})["end"] == end


def test_check_env_tells_that_success_is_missing_without_being_given_actions() -> None:
    """It goes on to the end of what it drew."""
    with pytest.raises(EnvError, match=r"info\['success'\] as a bool, since it terminated"):
        check_env(lambda: AsGymnasium(size=3, pits=3), tasks=grid_tasks(1), steps=1)


def test_check_env_says_that_it_saw_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """What was not seen is not called right."""
    with caplog.at_level(logging.WARNING):
        check_env(GridWorld, tasks=grid_tasks(1), actions=["up"])
    assert "no episode has terminated" in caplog.text
    caplog.clear()
    check_env(lambda: GridWorld(size=3, pits=3), tasks=grid_tasks(2))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": [{"instruction": "Walk."}]}, r"a task needs id and instruction; \['id'\] not in \['instruction'\]"),
        ({"actions": "ab"}, r"actions='ab': expected a list of texts"),
        ({"actions": [1]}, r"actions=\[1\]: expected a list of texts"),
    ],
)
def test_check_env_says_what_it_takes(given: dict[str, Any], said: str) -> None:
    """Tasks that are none and actions that are none are the caller's mistake, not the environment's."""
    with pytest.raises(ConfigError, match=said):
        check_env(GridWorld, **given)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sokobn", "unknown environment 'sokobn'; expected one of sokoban, alfworld, "),
        ("sokobn", "; did you mean 'sokoban'?"),
        ("Sokoban", "; did you mean 'sokoban'?"),
        ("nothing-like-it", "MODULE:CLASS for your own, or gymnasium:ID"),
    ],
)
def test_an_unknown_environment_is_answered_with_what_there_is(name: str, said: str) -> None:
    """By whoever asks, with what may have been meant."""
    for ask in (lambda: find(name), lambda: environment(name, split="train", n=1, options={})):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert said in str(caught.value)


needs_numpy = pytest.mark.skipif(find_spec("numpy") is None, reason="pip install numpy")


@needs_numpy
def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """In rewards, ends, info, tasks and settings; what is saved are Python's."""
    import numpy as np

    class Numbers(GridWorld):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            assert type(seed) is int and type(options["size"]) is int and type(options["goal"][0]) is int
            observation, info = super().reset(seed=seed, options=options)
            return np.str_(observation), info

        def step(self, action: str) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            told = {name: np.bool_(value) for name, value in info.items() if isinstance(value, bool)}
            return np.str_(observation), np.array([reward]), np.bool_(terminated), np.bool_(truncated), info | told

    options = {"size": np.int64(3), "start": np.array([0, 0]), "goal": [np.int8(2), 0], "pits": [(1, np.int64(0))]}
    task: Any = {"id": np.str_("pit"), "instruction": "Walk.", "seed": np.int64(3), "options": options}
    run = explore(
        MODEL,
        Numbers,
        [task],
        out=tmp_path / "run",
        seed=np.int64(1),  # type: ignore[arg-type]
        max_turns=np.int32(9),  # type: ignore[arg-type]
        limits=Limits(max_branches=np.int64(2), stop_on_success=np.bool_(True)),  # type: ignore[arg-type]
        budget=Budget(env_steps=np.int64(50)),  # type: ignore[arg-type]
    )
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    won = RunFolder(tmp_path / "run").branches[1]
    assert won["turns"][-1]["reward"] == won["return_"] == 1.0 and won["task"]["options"]["goal"] == [2, 0]
    check_env(Numbers, tasks=[task], actions=["down", "right", "right", "up"])


@needs_numpy
def test_an_array_of_several_is_no_number() -> None:
    """It ends its branch, with what was seen."""
    import numpy as np

    world = type("World", (GridWorld,), {"step": lambda self, action: ("x", np.zeros(2), False, False, {})})
    final = create_leafe_agent(MODEL, env=world).invoke({"task": PIT})
    assert (final["end"], final["error"]) == (
        "env_error",
        "EnvError: the reward is array([0., 0.]); expected one value",
    )
