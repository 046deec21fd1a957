"""Decision points in memory: a branch as one superstep is the branch that a graph with checkpoints plays."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from test_explore import FIELDS, MIXED, wander
from worlds import Killed, Recorder, Restless, ScriptedLimited, forest, wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.errors import ConfigError, ReplayDivergence, RunFolderError
from leafe_graph.exploration.explore import aexplore
from leafe_graph.exploration.pruning import prune
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

SETTINGS: dict[str, dict[str, Any]] = {
    "on failure": {"budget": Budget(env_steps=17, model_calls=25, reflections=3)},
    "all along": {"reflect_every": 2, "experience_turns": 1, "history": 1, "budget": Budget(replayed_steps=4)},
    "tokens": {"budget": Budget(prompt_tokens=3000), "model": ScriptedLimited(reply=wandering_reply, max_tokens=3)},
}


class Failing(GridWorld):
    """Raises where one went down twice."""

    def reset(self, **given: Any) -> Any:
        """Forget."""
        self.down = 0
        return super().reset(**given)

    def step(self, action: str) -> Any:
        """Raise, or go on."""
        self.down += action == "down"
        if self.down == 2:
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
    given = {"strategy": strategy, "tasks": 3, **SETTINGS[settings]}
    saved = wander(tmp_path / "saved", world, checkpointer=InMemorySaver(), **given)
    memory = wander(tmp_path / "memory", world, checkpointer="memory", **given)
    assert forest(memory.branches) == forest(saved.branches)
    assert len(memory.branches) > 3
    assert {branch["thread_id"] for branch in memory.branches} == {None}
    assert {turn["checkpoint_id"] for branch in memory.branches for turn in branch["turns"]} == {None}
    assert not (tmp_path / "memory" / "checkpoints.sqlite").exists()


def test_what_never_forks_is_played_so_by_itself(tmp_path: Path) -> None:
    """A saver that is given is used all the same; what is found is the same."""
    alone = wander(tmp_path / "alone", strategy="independent", tasks=2)
    kept = wander(tmp_path / "kept", strategy="independent", tasks=2, checkpointer=InMemorySaver())
    assert forest(alone.branches) == forest(kept.branches)
    assert {branch["thread_id"] for branch in alone.branches} == {None}
    assert all(branch["thread_id"] for branch in kept.branches)


@pytest.mark.parametrize("strategy", ["leafe", "independent"])
def test_failures_end_a_branch_as_in_a_graph(strategy: str, tmp_path: Path) -> None:
    """Of the environment and of the model, at any place; with the same causes and the same costs."""
    given: Any = {"strategy": strategy, "tasks": 5, "model": ScriptedModel(reply=failing_reply), "reflect_every": 3}
    saved = wander(tmp_path / "saved", Failing, checkpointer=InMemorySaver(), **given)
    memory = wander(tmp_path / "memory", Failing, checkpointer="memory", **given)
    assert forest(memory.branches) == forest(saved.branches)
    assert {branch["end"] for branch in memory.branches} >= {"env_error", "model_error"}


def test_divergence_is_met_as_in_a_graph(tmp_path: Path) -> None:
    """It ends the branch, is accepted and marked, or stops the run, as the setting says."""
    for choice in ("end", "accept"):
        forests = []
        for checkpointer in (InMemorySaver(), "memory"):

            class World(Restless):
                pass

            out = tmp_path / f"{choice} {len(forests)}"
            run = wander(out, World, tasks=1, concurrency=1, checkpointer=checkpointer, on_divergence=choice)
            forests.append(forest(run.branches))
        assert forests[0] == forests[1]
        assert any(branch["divergence"] for branch in forests[1])
    with pytest.raises(ReplayDivergence):
        wander(tmp_path / "raise", Restless, tasks=1, checkpointer="memory", on_divergence="raise")


@pytest.mark.parametrize(("strategy", "world"), MIXED)
def test_killed_run_goes_on_from_its_log_alone(strategy: str, world: Any, tmp_path: Path) -> None:
    """What memory held comes back without being spent anew: branches and costs are an undisturbed run's."""
    settings: Any = {"strategy": strategy, "tasks": 4, "concurrency": 3, "budget": Budget(env_steps=25)}
    undisturbed = wander(tmp_path / "whole", world, model=Recorder(wandering_reply).model, **settings)
    lives = 0
    for killed_at in (1, 9, 20, 21, 10_000):
        model = Recorder(wandering_reply, killed_at=killed_at).model
        try:
            wander(tmp_path / "killed", world, model=model, checkpointer="memory", **settings)
            break
        except BaseExceptionGroup as group:
            assert isinstance(group.exceptions[0], Killed)
            lives += 1
    resumed = RunFolder(tmp_path / "killed")
    assert lives >= 3
    assert forest(resumed.branches) == forest(undisturbed.branches)
    totals = [[run.cost[field] for field in FIELDS] for run in (resumed, undisturbed)]  # type: ignore[literal-required]
    assert totals[0] == totals[1]


def test_environment_that_a_cancelled_run_left_in_the_middle_of_a_step_is_closed(tmp_path: Path) -> None:
    """The step ends in its thread after the run has; nobody else would close the instance then."""
    stepping, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(GridWorld):
        def step(self, action: str) -> Any:
            stepping.set()
            go_on.wait(10)
            return super().step(action)

        def close(self) -> None:
            closed.set()

    async def cancelled() -> None:
        model, tasks = ScriptedModel(reply=lambda messages, seed: "down"), grid_tasks(1)  # which ends nothing
        run = asyncio.create_task(aexplore(model, Slow, tasks, out=tmp_path, checkpointer="memory"))
        assert await asyncio.to_thread(stepping.wait, 10)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled() and not closed.is_set()
        go_on.set()

    asyncio.run(cancelled())
    assert closed.is_set()


def test_run_may_go_on_in_memory_but_not_out_of_it(tmp_path: Path) -> None:
    """From checkpoints to memory the log is enough; the other way what has to be given is said."""
    whole = wander(tmp_path / "whole", SnapshotGridWorld, tasks=3)
    for name, cut in (("there", None), ("back", "memory")):
        run = wander(tmp_path / name, SnapshotGridWorld, tasks=3, checkpointer=cut)
        log = run.folder / "branches.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        roots = [line for line, branch in zip(lines, run.branches, strict=True) if branch["parent"] is None]
        log.write_text("".join(roots[:3]))
    again = wander(tmp_path / "there", SnapshotGridWorld, tasks=3, checkpointer="memory")
    assert forest(again.branches) == forest(whole.branches)
    with pytest.raises(RunFolderError, match='go on with checkpointer="memory"'):
        wander(tmp_path / "back", SnapshotGridWorld, tasks=3)


def test_pruning_what_was_in_memory_drops_nothing(tmp_path: Path) -> None:
    """There is no file; while exploring and afterwards."""
    wander(tmp_path, tasks=2, checkpointer="memory", prune=True)
    dropped = prune(tmp_path)
    assert (dropped.threads, dropped.kept, dropped.before) == (0, 0, 0)
    with pytest.raises(ConfigError, match="begins with 'memories'"):
        wander(tmp_path / "other", tasks=1, checkpointer="memories")
