"""Decision points in memory: a branch as one superstep is the branch that a graph with checkpoints plays."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from test_explore import FIELDS, LIMITS, MIXED, wander
from worlds import WORLDS, Killed, Recorder, Restless, ScriptedLimited, forest, wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.errors import ConfigError, ReplayDivergence, RunFolderError
from leafe_graph.exploration.explore import aexplore
from leafe_graph.exploration.growing import MEMORY, SQLITE
from leafe_graph.exploration.pruning import prune
from leafe_graph.strategies import STRATEGIES
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

SETTINGS: dict[str, dict[str, Any]] = {
    "all along": {"reflect_every": 2, "experience_turns": 1, "history": 1, "budget": Budget(replayed_steps=4)},
    "tokens": {"budget": Budget(prompt_tokens=3000), "model": ScriptedLimited(reply=wandering_reply, max_tokens=3)},
}
METERED = ScriptedLimited(reply=wandering_reply, max_tokens=6)


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


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_place_of_decision_points_gives_the_same_forest(
    strategy: str, world: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All fields but ids and seconds, costs too; undisturbed, and killed again and again."""
    budget = Budget(env_steps=25, model_calls=30, reflections=3)
    how: Any = {"strategy": strategy, "tasks": 2, "concurrency": 2, "budget": budget}
    lines = None
    places = [(place, "async") for place in (MEMORY, SQLITE, "PostgreSQL", InMemorySaver())]
    for number, (place, durability) in enumerate([*places, (SQLITE, "exit")]):
        kept_in = request.getfixturevalue("postgres_server").new_database() if place == "PostgreSQL" else place
        how |= {"checkpointer": kept_in, "durability": durability}
        out = tmp_path / str(number)
        whole = wander(out / "whole", world, model=Recorder(wandering_reply).model, **how)
        lives = 0
        for killed_at in (1, 9, 20, 10_000):
            model = Recorder(wandering_reply, killed_at=killed_at).model
            try:
                killed = wander(out / "killed", world, model=model, **how)
                break
            except BaseExceptionGroup as group:
                assert isinstance(group.exceptions[0], Killed)
                lives += 1
        assert lives >= 2
        lines = lines or log_of(whole)
        assert log_of(whole) == log_of(killed) == lines
        assert {branch["thread_id"] is None for branch in whole.branches} == {place == MEMORY}
        totals = [[run.cost[field] for field in FIELDS] for run in (killed, whole)]  # type: ignore[literal-required]
        assert totals[0] == totals[1]


def log_of(run: RunFolder) -> list[Any]:
    """What the run's log says, as it is there, whatever its order."""
    records = map(json.loads, (run.folder / "branches.jsonl").read_text().splitlines())
    return forest([*records])


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_total_budget_is_spent_alike(limits: dict[str, int], tmp_path: Path) -> None:
    """Each field to the same unit, by the same branches, in memory and in a saver; none is passed."""
    how: Any = {"tasks": 5, "concurrency": 1, "reflect_every": 3, "model": METERED}
    budget = Budget(**{field: 3 * limit for field, limit in limits.items()})
    runs = [
        wander(tmp_path / str(number), total_budget=budget, checkpointer=place, **how)
        for number, place in enumerate((MEMORY, InMemorySaver()))
    ]
    assert forest(runs[0].branches) == forest(runs[1].branches)
    for field, limit in limits.items():
        assert runs[0].cost[field] == runs[1].cost[field] <= 3 * limit  # type: ignore[literal-required]


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
        run = wander(tmp_path / name, SnapshotCounted, tasks=3, checkpointer=SQLITE, durability=durability)
        if log is not None:
            known = list(run.branches)
            log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
            SnapshotCounted.steps = 0
            run = wander(tmp_path / name, SnapshotCounted, tasks=3, checkpointer=SQLITE, durability=durability)
            steps.append(sum(branch["cost"]["env_steps"] for branch in run.branches[4:]))
            assert forest(run.branches) == forest(known)
        steps.append(SnapshotCounted.steps)
    assert steps[1] == steps[2] < steps[0]


def test_pruning_keeps_the_last_states_that_are_still_wanted(tmp_path: Path) -> None:
    """Of a run that is not finished; a finished one keeps nothing."""
    run = wander(tmp_path, SnapshotGridWorld, tasks=2, checkpointer=SQLITE, durability="exit")
    log = tmp_path / "branches.jsonl"
    whole, lines = list(run.branches), log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:3]))
    assert (dropped := prune(tmp_path)).threads == len(lines) - dropped.kept and dropped.kept > 0
    again = wander(tmp_path, SnapshotGridWorld, tasks=2, checkpointer=SQLITE, durability="exit")
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


def test_run_goes_on_where_it_was_begun(tmp_path: Path) -> None:
    """In the file that its folder has, or in memory; from the file to memory if told to, the other way it is said."""
    whole = wander(tmp_path / "whole", SnapshotGridWorld, tasks=3)

    def begun(name: str, checkpointer: str | None) -> Path:
        run = wander(tmp_path / name, SnapshotGridWorld, tasks=3, checkpointer=checkpointer)
        log = run.folder / "branches.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        roots = [line for line, branch in zip(lines, run.branches, strict=True) if branch["parent"] is None]
        log.write_text("".join(roots[:3]))
        return run.folder

    for name, checkpointer, then, kept in (
        ("file", "sqlite", None, True),
        ("memory", None, None, False),
        ("file to memory", "sqlite", "memory", False),
    ):
        again = wander(begun(name, checkpointer), SnapshotGridWorld, tasks=3, checkpointer=then)
        assert forest(again.branches) == forest(whole.branches)
        assert {branch["thread_id"] is not None for branch in again.branches[3:]} == {kept}
    for name, begun_in, then, says in (
        ("to a file", None, "sqlite", "checkpoints.sqlite does not exist: .*"),
        ("to a saver", None, InMemorySaver(), "branch 0 of task '.*' has no checkpoints: .*"),
    ):
        folder = begun(name, begun_in)
        with pytest.raises(RunFolderError, match=says + 'go on with checkpointer="memory"'):
            wander(folder, SnapshotGridWorld, tasks=3, checkpointer=then)
        assert not (folder / "checkpoints.sqlite").exists()
        assert forest(wander(folder, SnapshotGridWorld, tasks=3).branches) == forest(whole.branches)
    assert wander(tmp_path / "memory", SnapshotGridWorld, tasks=3, checkpointer="sqlite").branches[0]["turns"]


def test_run_that_went_on_in_memory_stays_there(tmp_path: Path) -> None:
    """As with workers for a while: what was played then has no checkpoints in the folder's file, so that is left."""
    whole = wander(tmp_path, SnapshotGridWorld, tasks=3, checkpointer="sqlite")
    expected, log = forest(whole.branches), tmp_path / "branches.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:1]))
    again = wander(tmp_path, SnapshotGridWorld, tasks=3, checkpointer="memory")
    lines = log.read_text().splitlines(keepends=True)
    roots = [line for line, branch in zip(lines, again.branches, strict=True) if branch["parent"] is None]
    log.write_text("".join(roots[:3]))
    last = wander(tmp_path, SnapshotGridWorld, tasks=3)
    assert forest(last.branches) == expected
    assert {branch["thread_id"] for branch in last.branches[1:]} == {None}


def test_run_may_go_on_with_a_state_a_branch_but_not_from_there_with_one_a_turn(tmp_path: Path) -> None:
    """As with memory: what is not in the saver comes from the log; a turn's own checkpoint cannot."""
    for first, then in (("async", "exit"), ("exit", "async")):
        run = wander(tmp_path / first, SnapshotGridWorld, tasks=3, checkpointer=SQLITE, durability=first)
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
