"""A budget of each task beside one of the run: which tasks are played depends on their order alone."""

from pathlib import Path
from typing import Any

import pytest
from test_explore import FIELDS, wander
from worlds import Killed, Recorder, forest, wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.evaluation.results import result_from_run
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, SnapshotGridWorld
from leafe_graph.tree.run_folder import RunFolder

EACH, WHOLE = Budget(env_steps=20, reflections=4), Budget(env_steps=90, reflections=14)
BOTH: dict[str, Any] = {"tasks": 9, "budget": EACH, "total_budget": WHOLE, "checkpointer": "memory"}


def begun(run: RunFolder) -> int:
    """How many tasks were begun; they are the first ones."""
    assert set(run.trees) == set(run.settings.tasks[: len(run.trees)])
    return len(run.trees)


@pytest.mark.parametrize("concurrency", [3, 32])
def test_tasks_that_are_played_do_not_depend_on_concurrency(concurrency: int, tmp_path: Path) -> None:
    """Every branch is the same; the total is not passed, and less than a task's budget of it is left."""
    one = wander(tmp_path / "one", concurrency=1, **BOTH)
    many = wander(tmp_path / "many", concurrency=concurrency, **BOTH)
    assert forest(many.branches) == forest(one.branches)
    assert 4 <= begun(many) == begun(one) < 9
    left = {field: getattr(WHOLE, field) - many.cost[field] for field in ("env_steps", "reflections")}  # type: ignore[literal-required]
    assert min(left.values()) >= 0
    assert any(left[field] < getattr(EACH, field) for field in left)


@pytest.mark.parametrize("world", [GridWorld, SnapshotGridWorld])
def test_killed_run_plays_the_tasks_of_an_undisturbed_one(world: Any, tmp_path: Path) -> None:
    """What was begun before keeps its place, and what resuming takes is not spent."""
    whole = wander(tmp_path / "whole", world, **BOTH)
    lives = 0
    while True:
        model = Recorder(wandering_reply, killed_at=23).model
        try:
            wander(tmp_path / "killed", world, model=model, concurrency=4, **BOTH)
            break
        except BaseExceptionGroup as group:
            assert isinstance(group.exceptions[0], Killed)
            lives += 1
    resumed = RunFolder(tmp_path / "killed")
    assert lives >= 3
    assert forest(resumed.branches) == forest(whole.branches)
    assert [resumed.cost[field] for field in FIELDS] == [whole.cost[field] for field in FIELDS]  # type: ignore[literal-required]
    none = Recorder(lambda messages, seed: pytest.fail("the model was asked")).model
    asked_again = wander(tmp_path / "killed", world, model=none, **BOTH)
    assert asked_again.branches == resumed.branches


def test_task_that_may_cost_more_than_the_run_is_played_alone(tmp_path: Path) -> None:
    """The run's limit is its own then, to the last step."""
    run = wander(tmp_path, tasks=3, budget=Budget(env_steps=100), total_budget=Budget(env_steps=7), concurrency=3)
    assert (begun(run), run.cost["env_steps"]) == (1, 7)


def test_tasks_that_there_was_no_room_for_are_not_solved_and_did_not_fail(tmp_path: Path) -> None:
    """A result counts them, and warns of nothing; a task that was never begun for no such reason has failed."""
    how: dict[str, Any] = {"strategy": "independent", "limits": Limits(max_branches=3, stop_on_success=False)}
    run = wander(tmp_path / "run", budget=Budget(env_steps=21), total_budget=Budget(env_steps=60), **how)
    result = result_from_run(run, policy="p", n=3)
    assert (len(result.tasks), result.failed, result.warning) == (8, 0, None)
    assert result.errors >= 3 * (8 - begun(run)) > 0
    free = wander(tmp_path / "free", total_budget=Budget(env_steps=60), concurrency=1, **how)
    assert result_from_run(free, policy="p", n=3).failed > 0
