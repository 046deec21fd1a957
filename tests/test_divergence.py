"""Replays that show something else than was recorded: ended, raised or accepted and marked; and who closes what."""

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from trees import branch, turn
from worlds import LESSON, PIT, Restless, actions, pit_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.dataset.examples import examples
from leafe_graph.dataset.export import export
from leafe_graph.env import EnvPool
from leafe_graph.errors import ReplayDivergence
from leafe_graph.exploration.explore import aexplore, explore
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.tree.run_folder import RunFolder


def cloudy(out: Path, **settings: Any) -> RunFolder:
    """The pit under clouds."""
    world = type("World", (Restless,), {})
    how: Any = {"limits": Limits(max_branches=2), "checkpointer": InMemorySaver(), **settings}
    return explore(ScriptedModel(reply=pit_reply), world, [PIT], out=out, **how)


def seen(clouds: int) -> str:
    """The observation that differs."""
    return f"moved; you are at 0,1; the goal is at 2,0; clouds: {clouds}"


FIRST = {"turn": 1, "expected": seen(1), "actual": seen(2)}


def test_divergence_ends_the_branch_and_is_written_down(tmp_path: Path) -> None:
    """The default. The record holds the decision point and both texts."""
    run = cloudy(tmp_path)
    assert [b["end"] for b in run.branches] == ["failure", "replay_divergence"]
    assert [b.get("divergence") for b in run.branches] == [None, FIRST]


def test_divergence_is_raised_if_asked(tmp_path: Path) -> None:
    """What ended before it is logged, and the instance is closed."""
    with pytest.raises(ReplayDivergence) as raised:
        cloudy(tmp_path, on_divergence="raise")
    assert {name: getattr(raised.value, name) for name in FIRST} == FIRST
    assert [b["end"] for b in RunFolder(tmp_path).branches] == ["failure"]


def test_divergence_is_accepted_and_marked_if_asked(tmp_path: Path) -> None:
    """The branch is played on from where the environment stands; its record says that, and what first differed."""
    run = cloudy(tmp_path, on_divergence="accept")
    first, second = run.branches
    assert [first["end"], second["end"]] == ["failure", "success"]
    assert [first.get("divergence"), second.get("divergence")] == [None, FIRST]
    assert (actions(second), second["cost"]["replayed_steps"]) == (["right", "up"], 2)
    assert second["turns"][0]["observation"].endswith("clouds: 1")  # what the policy was shown
    assert second["turns"][1]["observation"].endswith("clouds: 2")  # where it really was
    assert (second["error"], RunFolder(tmp_path).branches) == (None, run.branches)


@pytest.mark.parametrize(("how", "end", "mark"), [("end", "replay_divergence", FIRST), ("accept", "success", FIRST)])
def test_agent_answers_a_divergence_as_it_was_told(how: Any, end: str, mark: Any) -> None:
    """Rewinding in place is no different; the abandoned path is not marked."""
    world = type("World", (Restless,), {})
    final = create_leafe_agent(ScriptedModel(reply=pit_reply), env=world, on_divergence=how).invoke({"task": PIT})
    assert (final["end"], final["divergence"]) == (end, mark)
    assert [path["divergence"] for path in final["abandoned"]] == [None]


def test_export_leaves_diverged_branches_out_unless_asked(tmp_path: Path) -> None:
    """Their histories are not what led to their actions; the summary says how many they were."""
    run = cloudy(tmp_path, on_divergence="accept")
    summary = export(run)
    assert (summary.counterfactual, summary.rehearsal, summary.diverged) == (0, 0, 1)
    assert "diverged branches ignored" in str(summary)
    summary = export(run, diverged=True)
    assert (summary.counterfactual, summary.rehearsal, summary.diverged) == (1, 4, 0)
    assert "diverged" not in str(summary)


def test_what_was_forked_from_a_diverged_branch_is_left_out_too() -> None:
    """As far as its path holds the diverged branch's turns; one that leaves before them is clean."""

    def walk(name: str, says: str, end: Any, parent: str | None = None, at: int = 0) -> Any:
        turns = [turn(f"at {name}{word}", word) for word in says]
        return branch(name, turns, end, parent=parent, at=at, experience=LESSON if parent else None)

    tree: Any = [
        walk("0", "abcd", "failure"),
        walk("1", "ef", "failure", "0", 2) | {"divergence": FIRST},
        walk("2", "g", "success", "1", 3),
        walk("3", "h", "success", "1", 1),
        walk("4", "i", "success", "2", 2),
        walk("5", "j", "success", "2", 3),
    ]
    rows, summary = examples(tree)
    assert {row["branch_id"] for row in rows} == {"3", "4"}
    assert summary.diverged == 3
    ended = tree[1] | {"end": "replay_divergence", "turns": []}
    assert examples([tree[0], ended])[1].diverged == 0  # it is one of the unfinished


# ---- environments are closed, whatever ends the run


class Kept(GridWorld):
    """Every instance is kept, and counts how often it was closed."""

    kept: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.kept.append(self)

    def close(self) -> None:
        """Count."""
        self.closed += 1


def test_cancelled_run_closes_its_environments(tmp_path: Path) -> None:
    """The idle ones at once, those that are stepping as soon as they have stepped."""
    entered, go_on = threading.Event(), threading.Event()

    class World(Kept):
        kept: list[Any] = []  # noqa: RUF012

        def step(self, action: str) -> Any:
            if len(self.kept) > 1:
                entered.set()
                go_on.wait(60)
            return super().step(action)

    async def cancelled() -> None:
        tasks: Any = [PIT | {"id": f"pit {n}"} for n in range(4)]
        model = ScriptedModel(reply=pit_reply)
        run = asyncio.create_task(aexplore(model, World, tasks, out=tmp_path, checkpointer=InMemorySaver()))
        await asyncio.to_thread(entered.wait, 60)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert RunFolder(tmp_path).open(RunFolder(tmp_path).config).close() is None  # the lock is free
        go_on.set()

    asyncio.run(cancelled())
    assert len(World.kept) > 1
    assert {world.closed for world in World.kept} == {1}


def test_interrupted_step_closes_its_environment() -> None:
    """A Ctrl-C that falls into a step leaves no instance behind that nobody knows of."""

    class World(Kept):
        kept: list[Any] = []  # noqa: RUF012

        def step(self, action: str) -> Any:
            raise KeyboardInterrupt

    pool = EnvPool(World, size=1)
    agent = create_leafe_agent(ScriptedModel(reply=pit_reply), env=pool)
    for _ in range(2):  # the pool's only place is free again
        with pytest.raises(KeyboardInterrupt):
            agent.invoke({"task": PIT})
    assert [world.closed for world in World.kept] == [1, 1]


def test_pool_that_nobody_holds_is_closed() -> None:
    """At the latest when Python exits: what an agent's own pool holds is not left open."""

    class World(Kept):
        kept: list[Any] = []  # noqa: RUF012

    pool = EnvPool(World)
    pool.put_back(pool.reset(PIT)[0])
    assert [world.closed for world in World.kept] == [0]
    del pool
    gc.collect()
    assert [world.closed for world in World.kept] == [1]
