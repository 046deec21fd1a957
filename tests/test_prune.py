"""Pruning drops what no later branch can start from, and nothing that one can."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from test_strategies import branch
from worlds import WORLDS, Killed, Recorder, forest, wandering_reply

from leafe_graph.agent.graph import create_leafe_graph
from leafe_graph.checkpoint.sqlite import TreeSaver
from leafe_graph.dataset.export import export
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.exploration.explore import aexplore, explore
from leafe_graph.exploration.pruning import prune, wanted
from leafe_graph.report.page import write_report
from leafe_graph.settings import Limits
from leafe_graph.strategies import STRATEGIES, next_request, waiting
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

LIMITS = Limits(max_branches=8, max_depth=2, branches_per_reflection=2, max_roots=2)


def grow(out: Path, world: Any = GridWorld, *, tasks: int = 4, killed_at: int | None = None, **how: Any) -> RunFolder:
    """A run of a policy that wanders about, perhaps killed at a model call."""
    model = Recorder(wandering_reply, killed_at=killed_at).model
    defaults: dict[str, Any] = {"limits": LIMITS, "max_turns": 6, "reflect_every": 3, "concurrency": 2}
    defaults["checkpointer"] = "sqlite"
    try:
        return explore(model, world, grid_tasks(tasks), out=out, **{**defaults, **how})
    except BaseExceptionGroup as group:
        assert isinstance(group.exceptions[0], Killed)
        return RunFolder(out)


def size(out: Path) -> int:
    """Bytes of a run's checkpoints."""
    return sum(file.stat().st_size for file in out.glob("checkpoints.sqlite*"))


# ---- which decision points are wanted


@settings(max_examples=60)
@given(
    st.sampled_from([STRATEGIES[name] for name in sorted(STRATEGIES)]),
    st.lists(st.sampled_from([None, 0, 1, 2]), max_size=10),
    st.builds(
        Limits,
        max_branches=st.integers(1, 12),
        max_depth=st.integers(0, 3),
        branches_per_reflection=st.integers(1, 3),
        max_roots=st.none() | st.integers(1, 3),
    ),
    st.integers(0, 9),
)
def test_nothing_is_asked_for_that_was_not_waiting(
    strategy: Any, taus: list[int | None], limits: Limits, cut: int
) -> None:
    """However a tree goes on, it forks its present branches only where they waited for it; the next one comes first."""
    branches: list[Branch] = []
    waited: list[Any] | None = None
    for tau in [*taus, None, None, None, None]:
        if len(branches) == cut:
            waited = waiting(strategy, branches, limits)
            assert waited[:1] == [request for request in [next_request(strategy, branches, limits)] if request]
        request = next_request(strategy, branches, limits)
        if request is None:
            break
        if waited is not None and request.parent is not None and int(request.parent) < cut:
            assert request in waited
        depth = 0 if request.parent is None else branches[int(request.parent)]["depth"] + 1
        branches.append(branch(len(branches), request.parent, depth=depth, tau=tau))


# ---- runs that go on


@pytest.mark.parametrize("killed_at", [12, 40])
@pytest.mark.parametrize(("strategy", "world"), [*(("leafe", world) for world in WORLDS), ("refine", GridWorld)])
def test_pruned_run_goes_on_as_if_it_had_not_been(strategy: Any, world: Any, killed_at: int, tmp_path: Path) -> None:
    """Killed, pruned twice, resumed: the branches of an undisturbed run."""
    undisturbed = grow(tmp_path / "whole", world, strategy=strategy)
    grow(tmp_path / "run", world, strategy=strategy, killed_at=killed_at)
    before = size(tmp_path / "run")
    pruned = prune(tmp_path / "run")
    assert pruned.before == before
    again = prune(tmp_path / "run")
    assert (again.threads, again.before, again.after) == (0, pruned.after, pruned.after)
    resumed = grow(tmp_path / "run", world, strategy=strategy)
    assert forest(resumed.branches) == forest(undisturbed.branches)


def test_wanted_decision_points_stay_and_the_others_go(tmp_path: Path) -> None:
    """In a tree that is not finished each waiting fork's checkpoint is whole; what was played after it is gone."""
    run = grow(tmp_path, killed_at=67, concurrency=1)
    trees = run.trees
    decisions = {task: wanted(STRATEGIES["leafe"], tree, LIMITS) for task, tree in trees.items()}
    assert any(decisions.values())
    pruned = prune(tmp_path)
    assert pruned.kept == sum(len(ids) for threads in decisions.values() for ids in threads.values()) > 0
    assert 0 < pruned.finished < pruned.trees
    gone = 0
    with TreeSaver(tmp_path / "checkpoints.sqlite") as saver:
        agent = create_leafe_graph(ScriptedModel(reply=["up"]), env=GridWorld).compile(checkpointer=saver)
        kept = {thread for threads in decisions.values() for thread in threads}
        assert set(saver.threads()) == kept
        for task, tree in trees.items():
            for each in tree.values():
                for t, turn in enumerate(each["turns"], each["decision_point"]):
                    place = {"thread_id": each["thread_id"], "checkpoint_id": turn["checkpoint_id"]}
                    state = agent.get_state({"configurable": place})
                    if turn["checkpoint_id"] in decisions[task].get(str(each["thread_id"]), ()):
                        assert (state.next, len(state.values["turns"])) == (("act",), t)
                    gone += not state.values
    assert gone > 5


@pytest.mark.parametrize("killed_at", [12, 40])
def test_langgraphs_file_is_pruned_too(killed_at: int, tmp_path: Path) -> None:
    """Its tables, wherever the file is: smaller, and the run goes on in it."""

    def life(out: Path, file: Path, killed_at: int | None = None) -> list[Branch]:
        async def run() -> None:
            async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
                model = Recorder(wandering_reply, killed_at=killed_at).model
                how: Any = {"limits": LIMITS, "max_turns": 6, "reflect_every": 3, "concurrency": 2}
                await aexplore(model, GridWorld, grid_tasks(4), out=out, checkpointer=saver, **how)

        try:
            asyncio.run(run())
        except BaseExceptionGroup as group:
            assert isinstance(group.exceptions[0], Killed)
        return RunFolder(out).branches

    undisturbed = life(tmp_path / "whole", tmp_path / "other.sqlite")
    life(tmp_path / "run", tmp_path / "killed.sqlite", killed_at)
    # A process that is really killed leaves its files and no open connection.
    file = tmp_path / "langgraph.sqlite"
    for part in tmp_path.glob("killed.sqlite*"):
        if not part.name.endswith("-shm"):
            shutil.copy(part, str(part).replace("killed", "langgraph"))
    with pytest.raises(ConfigError, match=r"checkpoints.sqlite does not exist"):
        prune(tmp_path / "run")
    pruned = prune(tmp_path / "run", checkpoints=file)
    assert pruned.after < pruned.before
    assert forest(life(tmp_path / "run", file)) == forest(undisturbed)


def test_any_saver_drops_whole_threads(tmp_path: Path) -> None:
    """A saver that can delete threads is enough; the run goes on in it."""
    saver = InMemorySaver()
    undisturbed = grow(tmp_path / "whole")
    grow(tmp_path / "run", killed_at=40, checkpointer=saver)
    before = len(saver.storage)
    pruned = prune(tmp_path / "run", checkpoints=saver)
    assert len(saver.storage) == before - pruned.threads < before
    assert forest(grow(tmp_path / "run", checkpointer=saver).branches) == forest(undisturbed.branches)


# ---- runs that are finished


def test_finished_run_keeps_its_log_alone(tmp_path: Path) -> None:
    """Next to nothing is left of the checkpoints; resuming, exporting and reporting give what they gave."""
    run = grow(tmp_path / "run")
    first = export(run.folder).rows()
    pruned = prune(run.folder)
    assert (pruned.finished, pruned.kept) == (4, 0)
    assert pruned.after < 40_000 < pruned.before
    assert grow(run.folder, world=lambda: pytest.fail("an environment was made")).branches == run.branches
    assert export(run.folder).rows() == first
    assert write_report(run.folder).exists()


def test_a_file_that_runs_share_loses_only_what_the_pruned_one_logged(tmp_path: Path) -> None:
    """Another run's threads, and those of an agent, stay."""
    shared = tmp_path / "shared.sqlite"
    with TreeSaver(shared) as saver:
        one, other = (grow(tmp_path / name, tasks=1, checkpointer=saver) for name in ("one", "other"))
        saver.put({"configurable": {"thread_id": "agent", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    prune(one.folder, checkpoints=shared)
    with TreeSaver(shared) as saver:
        left = set(saver.threads())
    assert left == {"agent", *(branch["thread_id"] for branch in other.branches)}


@pytest.mark.parametrize("checkpointer", ["sqlite", InMemorySaver()])
def test_trees_may_be_pruned_as_they_are_finished(checkpointer: Any, tmp_path: Path) -> None:
    """The same branches as without, and no checkpoints in the end; a kill in between changes nothing."""
    undisturbed = grow(tmp_path / "whole")
    grow(tmp_path / "run", killed_at=40, prune=True, checkpointer=checkpointer)
    run = grow(tmp_path / "run", prune=True, checkpointer=checkpointer)
    assert forest(run.branches) == forest(undisturbed.branches)
    if checkpointer != "sqlite":
        left = {branch["thread_id"] for branch in run.branches} & set(checkpointer.storage)
        assert not left
    else:
        assert size(tmp_path / "run") < size(tmp_path / "whole") / 4


def test_what_cannot_be_pruned_says_why(tmp_path: Path) -> None:
    """A folder of something else, and a run that is being written."""
    with pytest.raises(ConfigError, match="is no run folder that explore made"):
        prune(tmp_path / "nowhere")
    run = grow(tmp_path / "run", tasks=1)
    config = {name: value for name, value in run.config.items() if name != "version"}
    with RunFolder(run.folder).open(config), pytest.raises(RunFolderError, match="is being written by process"):
        prune(run.folder)
    sampled = grow(tmp_path / "sampled", tasks=1, strategy="independent", checkpointer=None)
    assert (prune(sampled.folder).threads, prune(sampled.folder).before) == (0, 0)
