"""Stage 1 by itself: what several strategies solve for the same budget, and how late the mistakes were."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from trees import branch, run_folder, turn

from leafe_graph import RunFolder, explore
from leafe_graph.envs import sokoban
from leafe_graph.errors import ConfigError
from leafe_graph.evaluation.stage1 import Depth, by_depth, curve, named_mistakes, stage1
from leafe_graph.importing import attribute
from leafe_graph.settings import Limits
from leafe_graph.testing import ScriptedModel
from leafe_graph.testing.scripted_model import random_reply
from leafe_graph.types import Branch

TASKS = ["a", "b", "c"]


def attempt(name: str, task: str, steps: int, end: Any = "failure", *, blames: int | None = None) -> Branch:
    """A branch of so many steps and one call more, whose reflection goes back to ``blames``."""
    played = branch(name, [turn("seen", "up")] * steps, end, task=task)
    played["cost"] |= {"model_calls": steps + 1, "reflections": 1}
    if blames is not None:
        played["reflection"] = {
            "turn": steps, "verdict": "rewind", "decision_point": blames, "experience": "No.", "raw": ""
        }  # fmt: skip
    return played


LEAFE = [  # as they ended: b's were quick
    attempt("0", "b", 2, blames=1),
    attempt("1", "b", 3, "success"),
    attempt("0", "a", 5, "success"),
    attempt("0", "c", 4, blames=3),
    attempt("1", "c", 6, blames=0),
]
SAMPLED = [attempt("0", "a", 5, "success"), attempt("0", "b", 2), attempt("0", "c", 4), attempt("1", "c", 9, "success")]


def folders(where: Path) -> dict[str, RunFolder]:
    """Two runs on the same tasks."""
    return {
        "tree": run_folder(where / "tree", LEAFE, tasks=TASKS, strategy="leafe"),
        "samples": run_folder(where / "samples", SAMPLED, tasks=TASKS, strategy="independent"),
    }


def test_a_curve_goes_by_every_tasks_first_branch_then_every_tasks_second(tmp_path: Path) -> None:
    """Not by when they ended, which depends on how many were played at once."""
    found = curve(folders(tmp_path)["tree"], "tree")
    assert [(each.task, each.env_steps, each.model_calls) for each in found.solved] == [("a", 5, 6), ("b", 14, 18)]
    assert (found.env_steps, found.model_calls, found.reflections, found.branches) == (20, 25, 5, 5)
    assert [sorted(found.at(budget)) for budget in (4, 5, 13, 14)] == [[], ["a"], ["a"], ["a", "b"]]
    assert found.at(17, "model_calls") == {"a"} and found.at(18, "model_calls") == {"a", "b"}


def test_tries_that_failed_and_were_played_again_are_paid_for(tmp_path: Path) -> None:
    """The last of a name counts; all of them cost."""
    broken = attempt("0", "a", 3, "env_error")
    run = run_folder(tmp_path, [broken, attempt("0", "a", 5, "success")], tasks=["a"])
    found = curve(run, "run")
    assert [(each.task, each.env_steps) for each in found.solved] == [("a", 8)]


def test_depth_of_the_mistake_is_what_the_first_reflection_names(tmp_path: Path) -> None:
    """Of the first attempts that failed; where one run did not reflect, another one's counts."""
    runs = folders(tmp_path)
    assert named_mistakes([runs["samples"]]) == {"b": None, "c": None}
    assert named_mistakes([runs["samples"], runs["tree"]]) == {"b": 1, "c": 3}
    depths = stage1(runs).depths
    assert [(d.label, d.tasks, d.solved) for d in depths] == [
        ("0-1", 1, {"tree": 1, "samples": 0}), ("2-3", 1, {"tree": 0, "samples": 1})
    ]  # fmt: skip


def test_depths_have_classes_and_one_for_what_is_not_known(tmp_path: Path) -> None:
    """The last class is open; classes without tasks are left out. All count what is solved at the least budget."""
    curves = [curve(run, name) for name, run in folders(tmp_path).items()]
    depths = by_depth(curves, {"a": 40, "b": None, "c": 4}, edges=(4, 5))
    assert depths == [
        Depth(label="4", tasks=1, solved={"tree": 0, "samples": 1}),
        Depth(label="5+", tasks=1, solved={"tree": 1, "samples": 1}),
        Depth(label="not known", tasks=1, solved={"tree": 1, "samples": 0}),
    ]


def test_tables_compare_at_the_least_that_any_run_spent(tmp_path: Path) -> None:
    """Eighths to all of it; which tasks only one of them solved; and what the whole runs cost."""
    told = stage1(folders(tmp_path)).markdown()
    assert "| solved of 3 after | 2 env steps | 5 env steps | 10 env steps | 20 env steps |" in told
    assert "| tree | 0 | 1 | 1 | 2 |" in told and "| samples | 0 | 1 | 1 | 2 |" in told
    assert "| after 20 env steps, against tree | both | only this | only that |\n| --- |" in told
    assert "| samples | 1 | 1 | 1 |" in told
    assert "| samples | independent | 2 | 4 | 20 | 24 | 4 |" in told


def test_runs_on_other_tasks_are_refused(tmp_path: Path) -> None:
    """They say nothing about each other; nor do no runs."""
    runs = folders(tmp_path) | {"else": run_folder(tmp_path / "else", LEAFE, tasks=[*TASKS, "d"])}
    with pytest.raises(ConfigError, match="1 are only in one of them, such as d"):
        stage1(runs)
    with pytest.raises(ConfigError, match="no runs"):
        stage1({})


def test_sokobans_solver_tells_when_a_level_was_lost(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """A push into a corner, or moves wasted until the rest is too few; and all of it from the command."""
    command = attribute("benchmarks.stage1:main", "command")
    lost_at = attribute("benchmarks.stage1:lost_at", "function")
    level = "######\n#    #\n#@$ .#\n#    #\n######"
    env = sokoban.SokobanEnv()

    def lost(*moves: str, horizon: int = 9) -> int | None:
        played = branch("0", [turn("seen", move) for move in moves], "failure")
        played["task"]["options"] = {"level": level}
        return lost_at(played, env, horizon)

    assert lost("left", "left") is None
    assert lost("left", "left", horizon=3) == 1  # two moves are needed, one is left
    assert lost("down", "right", "up", "right") == 2  # the box is against the wall

    def played(strategy: str) -> None:
        explore(
            ScriptedModel(reply=random_reply(sokoban.ACTIONS)),
            lambda: sokoban.SokobanEnv(size=5, max_moves=4),
            sokoban.tasks("train", 4, size=5, max_moves=4),
            out=tmp_path / strategy,
            strategy=strategy,
            max_turns=6,
            limits=Limits(max_branches=4),
            config={"env": "sokoban", "env_options": {"size": 5, "max_moves": 4}},
        )

    played("independent")
    played("refine")
    given = [str(tmp_path / name) for name in ("independent", "refine")]
    monkeypatch.setattr(sys, "argv", ["stage1.py", *given, "--out", str(tmp_path / "out")])
    command()
    assert "first attempt lost at decision" in capsys.readouterr().out
    saved = json.loads((tmp_path / "out" / "stage1.json").read_text())
    assert [each["name"] for each in saved["curves"]] == ["independent", "refine"]
    assert (tmp_path / "out" / "stage1.png").stat().st_size > 1000
