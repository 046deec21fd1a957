"""ScienceWorld: gold paths win all kinds of tasks, and what they answer is the same in another process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import needs
import pytest
from scienceworld_replay import NOISE, play

from leafe_graph.envs import scienceworld as science
from leafe_graph.envs.scienceworld.env import by_turns
from leafe_graph.envs.scienceworld.simulator import variations
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import check_env
from leafe_graph.types import Task

pytestmark = needs.world("scienceworld")

GOLD = json.loads(Path(__file__).with_name("scienceworld_gold.json").read_text())
"""The simulator's gold actions of the two genetics tasks, which take it a minute to make."""


def first(name: str, **options: Any) -> Task:
    """A task's first variation."""
    return science.tasks("train", 1, task=name, **options)[0]


def test_gold_paths_win_and_replay_exactly_in_another_process() -> None:
    """One variation of each task: score 100; again, in another order, beside an instance that acts in between."""
    plays, digests = [], {}
    for task in science.tasks("train", 30):
        actions = GOLD.get(task["options"]["task"]) or science.expert(task)
        env = science.ScienceWorldEnv()
        digests[task["id"]], info = play(env, task, actions)
        assert (info["score"], info["success"]) == (100, True), task["id"]
        env.close()
        plays.append((task, actions))
    again = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("scienceworld_replay.py"))],
        input=json.dumps(plays),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(digests) == 30 and dict(map(json.loads, again.stdout.splitlines())) == digests


PACKAGE = """
import json
from scienceworld import ScienceWorldEnv
env = ScienceWorldEnv("")
env.load("grow-plant", 3, "easy")
print(json.dumps([env.get_task_description(), env.reset()[0], env.step("teleport to greenhouse")[0]]))
"""


def test_answers_are_as_in_the_package() -> None:
    """Word for word, though the package has to load a task twice until its simplifications hold."""
    package = subprocess.run([sys.executable, "-c", PACKAGE], capture_output=True, text=True, check=True)
    task, look, greenhouse = json.loads(package.stdout)
    env = science.ScienceWorldEnv()
    assert env.reset(options={"task": "grow-plant", "variation": 3})[0] == f"{task}\n\n{look}"
    assert env.step("teleport to greenhouse")[0] == greenhouse
    assert "flower pot 1 (containing soil, a substance called water)" in env.step("look around")[0]


def test_splits_are_the_packages_and_tasks_come_by_turns() -> None:
    """7,207 variations of thirty tasks, each in one split."""
    names = science.task_names()
    assert [task["options"]["task"] for task in science.tasks("train", 60)] == names * 2
    sizes = {split: len(by_turns(variations(split))) for split in ("train", "validation", "test")}
    assert sum(sizes.values()) == 7207 and sizes["train"] == 3592
    boil = [
        [task["options"]["variation"] for task in science.tasks(split, n, task="boil")]
        for split, n in (("train", 14), ("validation", 7), ("test", 9))
    ]
    assert boil == [list(range(14)), list(range(14, 21)), list(range(21, 30))]
    two = science.tasks(
        "test", 4, task=["boil", "melt"], simplifications=["openDoors", "teleportAction"], instruction="Do."
    )
    assert [task["id"] for task in two] == [
        f"scienceworld-{name}-00{variation}-openDoors+teleportAction"
        for variation in (21, 22)
        for name in ("boil", "melt")
    ]
    assert two[0]["instruction"] == "Do."
    assert first("boil", simplifications="")["id"] == "scienceworld-boil-0000-full"
    with pytest.raises(ConfigError, match="has 14 variations"):
        science.tasks("train", 15, task="boil")


def test_simplifications_belong_to_an_instance() -> None:
    """In the same JVM doors are open and pots water themselves for one and not for the other."""
    easy, full, some = (science.ScienceWorldEnv(simplifications=s) for s in ("easy", "", ["teleportAction"]))
    options = {"task": "grow-plant", "variation": 0}
    for env, opened in ((easy, True), (full, False), (some, False)):
        assert ("(that is open)" in env.reset(options=options)[0]) is opened
    for env, teleports in ((easy, True), (full, False), (some, True), (easy, True)):
        answer, *_, info = env.step("teleport to greenhouse")
        assert info["valid"] is teleports, answer
    for env, water in ((easy, True), (some, False)):
        assert ("flower pot 1 (containing soil, a substance called water)" in env.step("look around")[0]) is water


def test_what_is_answered_and_whether_it_was_understood() -> None:
    """The simulator's words; an ambiguous request asks back and its number is taken."""
    env = science.ScienceWorldEnv(admissible=True)
    observation, info = env.reset(options={"task": "find-plant", "variation": 0})
    assert observation.startswith("Your task is to find") and "This room is called" in observation
    assert "look around" in info["admissible"] and info["valid"]
    answer, reward, _, _, info = env.step("fly")
    assert answer == "No known action matches that input." and info["valid"] is False
    assert reward == 0.08  # what the place where the agent stands gives
    env.step("teleport to hallway")
    answer, *_, info = env.step("open door")
    assert answer.startswith("Ambiguous request: Please enter the number") and info["admissible"][:2] == ["0", "1"]
    answer, *_, info = env.step("1")
    assert answer == "The door is already open." and info["valid"]
    env.step("open door")
    answer, *_, info = env.step("the second")
    assert answer.startswith("Unknown action.") and info["valid"] is False


def test_a_wrong_focus_fails_the_task() -> None:
    """The return is the score: -1; then the episode is over."""
    env = science.ScienceWorldEnv()
    env.reset(options={"task": "find-plant", "variation": 0})
    _, first_reward, *_ = env.step("teleport to kitchen")
    _, reward, terminated, truncated, info = env.step("focus on stove")
    assert (terminated, truncated, info["success"], info["score"]) == (True, False, False, -100)
    assert first_reward + reward == pytest.approx(-1)
    assert env.step("look around")[:3] == ("The episode is over.", 0.0, True)


def test_the_contract_holds_without_a_task_and_at_the_horizon() -> None:
    """Seeds choose training tasks; max_steps truncates; a closed instance can be reset."""
    check_env(
        lambda: science.ScienceWorldEnv(max_steps=3), seeds=(15, 31), actions=["wait1", "objects", "help", "task"]
    )
    env = science.ScienceWorldEnv(max_steps=1)
    with pytest.raises(EnvError, match="call reset first"):
        env.step("wait")
    env.reset(seed=0)
    assert env.step("wait1")[2:4] == (False, True)
    env.close()
    assert env.reset(seed=0)[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "fly"}, "unknown task 'fly': expected one of boil"),
        ({"task": "boil", "variation": 30}, "has variations 0 to 29"),
        ({"task": "boil", "variation": "one"}, "has variations 0 to 29"),
        ({"task": "boil", "simplifications": "lessWork"}, "unknown simplifications"),
        ({"task": "power-component", "simplifications": "noElectricalAction"}, "leave it out"),
        ({"level": 1}, "unknown options"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    """With what was seen and what was expected."""
    with pytest.raises(ConfigError, match=said):
        science.ScienceWorldEnv().reset(options=options)


def test_noise_is_not_silent() -> None:
    """What disturbs the replays is understood, and acts."""
    env = science.ScienceWorldEnv()
    env.reset(seed=1, options=NOISE["options"])
    assert env.step("teleport to greenhouse")[4]["valid"] and env.step("wait1")[4]["valid"]
