"""Generated ALFWorld games: the planner wins all of them, none is trivial, and splits share what ALFWorld's share."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest

from leafe_graph.envs.alfworld import TASK_TYPES, AlfworldEnv, expert, tasks
from leafe_graph.envs.alfworld import games as alfworld_games
from leafe_graph.errors import EnvError
from leafe_graph.types import Task

pytestmark = needs.world("alfworld")

SPLITS = {"train": 40, "validation": 30, "test": 30}


@pytest.fixture(autouse=True, scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own, and no official games."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("alfworld")
        patch.setenv("LEAFE_CACHE", str(folder / "cache"))
        patch.setenv("ALFWORLD_DATA", str(folder / "official"))
        yield folder


def files(task: Task) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """A generated game and what is said beside it."""
    file = alfworld_games.game_file(**task["options"])  # type: ignore[arg-type]
    return json.loads(file.read_text()), json.loads(file.with_name("traj_data.json").read_text())


def test_the_planner_wins_100_of_100_games_and_none_is_trivial() -> None:
    """Of all six types in all splits: won by searching for something that is not yet where it is wanted."""
    import alfworld.gen.constants as tables

    env = AlfworldEnv()
    types: Counter[str] = Counter()
    problems: set[str] = set()
    for split, n in SPLITS.items():
        for task in tasks(split, n):  # type: ignore[arg-type]
            observation, _ = env.reset(options=task["options"])
            commands = expert(task)
            for command in commands:
                _, reward, terminated, _, info = env.step(command)
                assert info["valid"], (task["id"], command)
            assert terminated and reward == 1.0 and info["success"] is True
            game, trajectory = files(task)
            goal, problem = trajectory["pddl_params"], game["pddl_problem"]
            types[str(trajectory["task_type"])] += 1
            problems.add(problem)
            scenes = tables.TEST_SCENE_NUMBERS if split == "test" else tables.TRAIN_SCENE_NUMBERS
            assert trajectory["scene"]["scene_num"] in scenes
            room = observation.split("you see ")[1].split(".")[0]
            assert 10 <= len(room.split(", ")) <= 25
            things = re.findall(r"\(inReceptacle ([A-Za-z]+)_bar_\S+ ([A-Za-z]+)_bar", problem)
            assert len({thing for thing, _ in things}) >= 7
            assert len(commands) >= 4 and f"take {goal['object_target'].lower()} " in " ".join(commands)
            wanted = [place for thing, place in things if thing == goal["object_target"]]
            assert wanted and goal["parent_target"].removesuffix("Basin") not in wanted
    assert sum(types.values()) == len(problems) == 100
    assert set(types) == set(TASK_TYPES) and min(types.values()) >= 15
    env.close()


def test_a_game_that_nobody_can_win_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner is asked; where it never finds a solution, the error names the game and nothing is kept."""
    monkeypatch.setattr(alfworld_games.Game, "walkthrough", lambda self: [])
    monkeypatch.setattr(alfworld_games.Game, "__init__", lambda self, data: None)
    with pytest.raises(EnvError, match="train pick_and_place_simple 999"):
        alfworld_games.game_file("train", "pick_and_place_simple", 999)
    folder = alfworld_games.cache_dir() / alfworld_games.VERSION / "train"
    assert not [path for path in folder.iterdir() if "999" in path.name or path.name.startswith(".new-")]
