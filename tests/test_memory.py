"""Decision points in memory: a branch as one superstep is the branch that a graph with checkpoints plays."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from test_explore import MIXED, wander
from worlds import ScriptedLimited, forest, wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.testing import GridWorld

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all along": {"reflect_every": 2, "experience_turns": 1, "history": 1},
    "task budget": {"budget": Budget(env_steps=17, model_calls=25, reflections=3)},
    "replays": {"budget": Budget(replayed_steps=4)},
    "tokens": {"budget": Budget(prompt_tokens=3000), "model": ScriptedLimited(reply=wandering_reply, max_tokens=3)},
    "accepted": {"on_divergence": "accept"},
}


class Failing(GridWorld):
    """Raises at every eleventh step of an instance."""

    steps = 0

    def step(self, action: str) -> Any:
        """Raise, or go on."""
        self.steps += 1
        if self.steps % 11 == 0:
            raise OSError("the world has ended")
        return super().step(action)


def failing_reply(messages: Any, seed: int | None = None) -> str:
    """Wander about, and fail at some prompts."""
    if seed is not None and seed % 17 == 0:
        raise ValueError("no answer")
    return wandering_reply(messages, seed)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("strategy", "world"), MIXED)
def test_memory_finds_the_branches_that_a_saver_finds(strategy: str, world: Any, settings: str, tmp_path: Path) -> None:
    """All fields but ids of threads and checkpoints and seconds, for every strategy, with and without snapshots."""
    given = {"strategy": strategy, "tasks": 4, **SETTINGS[settings]}
    saved = wander(tmp_path / "saved", world, checkpointer=InMemorySaver(), **given)
    memory = wander(tmp_path / "memory", world, checkpointer="memory", **given)
    assert forest(memory.branches) == forest(saved.branches)
    assert len(memory.branches) > 4
    assert {branch["thread_id"] for branch in memory.branches} == {None}
    assert not (tmp_path / "memory" / "checkpoints.sqlite").exists()
