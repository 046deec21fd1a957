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


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("strategy", "world"), MIXED)
def test_saver_that_is_given_the_last_state_finds_the_same(
    strategy: str, world: Any, settings: str, tmp_path: Path
) -> None:
    """All fields but those ids and seconds; each branch has a thread, in it one checkpoint, and its turns name that."""
    given = {"strategy": strategy, "tasks": 3, **SETTINGS[settings]}
    memory = wander(tmp_path / "memory", world, checkpointer="memory", **given)
    kept = wander(tmp_path / "kept", world, checkpointer=(saver := InMemorySaver()), durability="exit", **given)
    assert forest(kept.branches) == forest(memory.branches)
    ids = {each.config["configurable"]["thread_id"]: each.checkpoint["id"] for each in saver.list(None)}
    assert len(ids) == len(list(saver.list(None))) == len(kept.branches)
    named = [(branch["thread_id"], turn["checkpoint_id"]) for branch in kept.branches for turn in branch["turns"]]
    assert set(named) <= set(ids.items())


class Counted(GridWorld):
    """Counts the steps of all its instances."""

    steps = 0

    def step(self, action: str) -> Any:
        """Count."""
        type(self).steps += 1
        return super().step(action)


class SnapshotCounted(Counted, SnapshotGridWorld):
    """With snapshots."""


@pytest.mark.parametrize("durability", ["async", "exit"])
def test_what_is_forked_after_a_kill_is_not_played_again(durability: str, tmp_path: Path) -> None:
    """From a saver comes the environment's state too: no step is taken that an undisturbed run does not take."""
    steps = []
    for name, log in (("whole", None), ("cut", tmp_path / "cut/branches.jsonl")):
        SnapshotCounted.steps = 0
        run = wander(tmp_path / name, SnapshotCounted, tasks=3, durability=durability)
        if log is not None:
            known = list(run.branches)
            log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
            SnapshotCounted.steps = 0
            run = wander(tmp_path / name, SnapshotCounted, tasks=3, durability=durability)
            steps.append(sum(branch["cost"]["env_steps"] for branch in run.branches[4:]))
            assert forest(run.branches) == forest(known)
        steps.append(SnapshotCounted.steps)
    assert steps[1] == steps[2] < steps[0]


def test_pruning_keeps_the_last_states_that_are_still_wanted(tmp_path: Path) -> None:
    """Of a run that is not finished; a finished one keeps nothing."""
    run = wander(tmp_path, SnapshotGridWorld, tasks=2, durability="exit")
    log = tmp_path / "branches.jsonl"
    whole, lines = list(run.branches), log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:3]))
    assert (dropped := prune(tmp_path)).threads == len(lines) - dropped.kept and dropped.kept > 0
    again = wander(tmp_path, SnapshotGridWorld, tasks=2, durability="exit")
    assert forest(again.branches) == forest(whole)
    assert prune(tmp_path).kept == 0


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


def test_run_may_go_on_with_a_state_a_branch_but_not_from_there_with_one_a_turn(tmp_path: Path) -> None:
    """As with memory: what is not in the saver comes from the log; a turn's own checkpoint cannot."""
    for first, then in (("async", "exit"), ("exit", "async")):
        run = wander(tmp_path / first, SnapshotGridWorld, tasks=3, durability=first)
        whole, log = forest(run.branches), run.folder / "branches.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
        if first == "async":
            again = wander(tmp_path / first, SnapshotGridWorld, tasks=3, durability=then)
            assert forest(again.branches) == whole
        else:
            with pytest.raises(RunFolderError, match="started with another checkpointer or durability"):
                wander(tmp_path / first, SnapshotGridWorld, tasks=3, durability=then)


def test_pruning_what_was_in_memory_drops_nothing(tmp_path: Path) -> None:
    """There is no file; while exploring and afterwards."""
    wander(tmp_path, tasks=2, checkpointer="memory", prune=True)
    dropped = prune(tmp_path)
    assert (dropped.threads, dropped.kept, dropped.before) == (0, 0, 0)
    with pytest.raises(ConfigError, match="begins with 'memories'"):
        wander(tmp_path / "other", tasks=1, checkpointer="memories")
