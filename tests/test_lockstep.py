"""Samples that are only counted are those that are recorded, and what cannot be played so is played as ever."""

from pathlib import Path
from typing import Any

import pytest

from leafe_graph.envs import sokoban
from leafe_graph.errors import NothingPlayed
from leafe_graph.evaluation.lockstep import can, lockstep
from leafe_graph.evaluation.results import Result
from leafe_graph.models.local.chat_model import LocalChatModel
from leafe_graph.phases import EvalConfig
from leafe_graph.phases.evaluate import run_eval
from leafe_graph.prompts import Prompts
from leafe_graph.settings import Acting
from leafe_graph.testing import GridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

pytest.importorskip("torch", reason='local models are not installed: pip install ".[hf]"')


class World(GridWorld):
    """Any word is a step, so that a random policy walks; one task breaks on the way."""

    instant = True

    def __init__(self) -> None:
        super().__init__(size=2, pits=0)
        self.broken = False

    def reset(self, **given: Any) -> Any:
        self.broken = given["seed"] == 2
        return super().reset(**given)

    def step(self, action: str) -> Any:
        if self.broken and len(action) % 3 == 0:
            raise OSError("the world is gone")
        return super().step(["up", "down", "left", "right"][sum(map(ord, action)) % 4])


class Told(Prompts):
    """Prompts that look at what the turns hold, whatever is shown of them."""

    def act_messages(self, task: Any, turns: Any, observation: str, **how: Any) -> Any:
        observation += f" {len(turns)} " + " ".join(turn["action"] + turn["feedback"] for turn in turns[-1:])
        return super().act_messages(task, turns, observation, **how)


TOLD = Told()


def tasks(split: str, n: int, *, start: int = 0) -> Any:
    """The same for all splits."""
    return grid_tasks(n, start=start)


def judged(model: Path, out: Path, **changes: Any) -> Result:
    """By way of the command."""
    settings = {"max_turns": 4, "max_tokens": 2, "tasks": 4, "samples": 6, "seed": 3, "split": "train"} | changes
    return run_eval(EvalConfig(model=f"local:{model}", env="test_lockstep:World", out=out, **settings))


@pytest.mark.parametrize(("history", "prompts"), [(0, None), (1, None), (None, None), (0, "test_lockstep:TOLD")])
def test_counted_samples_are_the_recorded_ones(
    history: int | None, prompts: str | None, tiny_model_path: Path, tmp_path: Path
) -> None:
    """Task by task: solved, failed and turns, and what it all cost; nothing else is left of them."""
    given = {"history": history, "prompts": prompts}
    recorded = judged(tiny_model_path, tmp_path / "a", **given)
    counted = judged(tiny_model_path, tmp_path / "b", keep_samples=False, **given)
    assert [vars(task) | {"seconds": 0} for task in counted.tasks] == [
        vars(task) | {"seconds": 0} for task in recorded.tasks
    ]
    assert counted.failed and 0 < sum(task.c for task in counted.tasks) < counted.samples
    assert counted.causes == recorded.causes
    assert {name: counted.cost[name] for name in counted.cost if name != "seconds"} == {
        name: recorded.cost[name] for name in recorded.cost if name != "seconds"
    }
    assert counted.settings == {name: recorded.settings[name] for name in counted.settings}
    assert {"weights", "seed", "max_tokens", "max_turns"} <= counted.settings.keys()
    assert (tmp_path / "a").is_dir() and not (tmp_path / "b").exists() and (tmp_path / "b.json").is_file()


def test_how_many_play_at_once_does_not_matter(tiny_model_path: Path) -> None:
    """Nor in which order they do."""
    model = LocalChatModel(path=str(tiny_model_path))
    play, ended = Acting(max_turns=4, max_tokens=2), list[int]()
    told = [
        lockstep(model, World, grid_tasks(2), policy="p", n=5, play=play, at_once=at_once, done=ended.append)
        for at_once in (1, 3, 100)
    ]
    assert [[(task.c, task.turns) for task in each.tasks] for each in told] == [
        [(task.c, task.turns) for task in told[0].tasks]
    ] * 3
    assert sum(ended) == 3 * 10


def test_a_prompt_that_the_model_does_not_take_fails_its_sample(tiny_model_path: Path) -> None:
    """And where all do, there is no result."""
    model = LocalChatModel(path=str(tiny_model_path))
    (task,) = grid_tasks(1)
    long: Any = {**task, "id": "long", "instruction": "up " * 300}
    result = lockstep(model, World, [task, long], policy="p", n=2, play=Acting(max_turns=2, max_tokens=2))
    assert [(each.task_id, each.failed) for each in result.tasks] == [(task["id"], 0), ("long", 2)]
    assert "the context of" in next(iter(result.causes))
    with pytest.raises(NothingPlayed):
        lockstep(model, World, [long], policy="p", n=2, play=Acting(max_turns=2, max_tokens=2), prompts=Prompts())


def test_only_what_is_instant_and_local_is_played_in_lockstep(tiny_model_path: Path, tmp_path: Path) -> None:
    """A limit, or a world that may wait, is played as ever; what was recorded on the way is dropped."""
    model = LocalChatModel(path=str(tiny_model_path))
    assert can(model, World()) and can(model, sokoban.SokobanEnv())
    assert not can(model.bind(stop=["x"]), World())
    assert not can(model, type("Slow", (World,), {})())
    limited = judged(tiny_model_path, tmp_path / "c", keep_samples=False, env_steps=1000)
    assert limited.budget["env_steps"] == 1000 and not (tmp_path / "c").exists() and (tmp_path / "c.json").is_file()


def test_samples_outlive_a_result_that_was_not_saved(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are dropped only when what they came to is on the disk."""

    def full(self: Result, file: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Result, "save", full)
    with pytest.raises(OSError, match="no space"):
        judged(tiny_model_path, tmp_path / "d", keep_samples=False, env_steps=1000, tasks=1, samples=1)
    assert len(RunFolder(tmp_path / "d").branches) == 1
