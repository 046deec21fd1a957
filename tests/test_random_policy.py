"""The floor of a table: a policy that acts at random, without a model or a graph."""

import json
from pathlib import Path
from typing import Any

import pytest
from faulty import Faulty, Saved

from leafe_graph.cli.main import main
from leafe_graph.envs.sokoban import SokobanEnv, tasks
from leafe_graph.errors import ConfigError, NothingPlayed
from leafe_graph.evaluation.random_policy import random_policy
from leafe_graph.evaluation.results import Result
from leafe_graph.types import Task

WALK: Task = {"id": "walk", "instruction": "", "seed": 1}


class Silent(Faulty):
    """Does not say what is possible."""

    def reset(self, **how: Any) -> tuple[str, dict[str, Any]]:
        """Only the observation."""
        return super().reset(**how)[0], {}


@pytest.mark.parametrize(("max_turns", "chance"), [(1, 0.25), (3, 0.4375)])
def test_actions_are_drawn_evenly_from_the_possible_ones(max_turns: int, chance: float) -> None:
    """Of up, down, lose and win the last ends it well: in one of four first turns, then in one of four of the rest."""
    played = random_policy(Faulty, [WALK], n=4000, max_turns=max_turns)
    assert played.tasks[0].c / 4000 == pytest.approx(chance, abs=0.03)
    assert played.tasks[0].turns == pytest.approx(sum(0.5**turn for turn in range(max_turns)), abs=0.05)
    assert played.cost["env_steps"] == round(4000 * played.tasks[0].turns) and played.cost["model_calls"] == 0


def test_snapshots_and_other_tasks_change_nothing() -> None:
    """The same samples from an environment brought back or reset, alone or beside others; others from another seed."""
    other: Task = WALK | {"id": "other"}
    counts = [
        {task.task_id: (task.c, task.turns) for task in random_policy(make, chosen, n=50, max_turns=9, seed=seed).tasks}
        for make, chosen, seed in [
            (Faulty, [WALK], 0),
            (Saved, [WALK], 0),
            (Saved, [other, WALK], 0),
            (Saved, [WALK], 1),
        ]
    ]
    assert counts[0] == counts[1] == {"walk": counts[2]["walk"]} != counts[3]


def test_episodes_that_the_environment_fails_are_told_as_failed() -> None:
    """About half of them, with the cause; where all do, there is no result."""
    played = random_policy(Saved, [WALK], n=100, max_turns=5, actions=["raise", "win"])
    (task,) = played.tasks
    assert task.c + task.failed == 100 and 30 < task.failed < 70 and played.warning
    assert played.causes == {"KeyError: 'the floor is gone'": task.failed}
    with pytest.raises(NothingPlayed, match="the floor is gone"):
        random_policy(Faulty, [WALK], n=3, max_turns=5, actions=["raise"])


def test_actions_must_be_known() -> None:
    """Told by the environment or by the caller."""
    with pytest.raises(ConfigError, match=r"give random_policy\(actions="):
        random_policy(Silent, [WALK], n=1, max_turns=5)
    assert random_policy(Silent, [WALK], n=2, max_turns=5, actions=["win"]).tasks[0].c == 2


def test_eval_plays_a_random_policy_with_the_options_of_the_environment(tmp_path: Path) -> None:
    """`--model random`: the result that the function gives, under the name asked for; no run folder."""
    options = {"size": 5, "boxes": 1, "min_moves": 1, "max_moves": 3}
    flags = ["--env-options", ",".join(f"{name}={value}" for name, value in options.items())]
    flags += ["--tasks", "3", "-n", "8", "--max-turns", "6", "--out", str(tmp_path / "floor")]
    assert main(["eval", "--model", "random", "--name", "floor", *flags]) == 0
    found = Result.load(tmp_path / "floor.json")
    chosen = tasks("test", 3, **options)
    expected = random_policy(lambda: SokobanEnv(**options), chosen, n=8, max_turns=6)
    assert [(t.task_id, t.c) for t in found.tasks] == [(t.task_id, t.c) for t in expected.tasks]
    assert found.policy == "floor" and found.settings["env_options"] == options
    assert not (tmp_path / "floor").exists() and json.loads((tmp_path / "floor.json").read_text())["pass_at_k"]


@pytest.mark.parametrize("flag", [("--adapter", "."), ("--env-steps", "5"), ("--total-env-steps", "5")])
def test_eval_refuses_what_a_random_policy_does_not_have(
    flag: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that was asked for is left out in silence."""
    assert main(["eval", "--model", "random", "--out", str(tmp_path / "floor"), *flag]) == 2
    assert f"a random policy has no {flag[0].strip('-').replace('-', '_')}" in capsys.readouterr().err
