"""Trees that grow in several processes are those of one process, whatever dies on the way."""

import errno
import os
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import (
    NODE,
    Killer,
    PoisonWorld,
    SnapshotWorld,
    World,
    at,
    cluster,
    down,
    forest,
    gone,
    growers,
    play,
    talkative,
)
from langgraph.checkpoint.memory import InMemorySaver
from postgres import Server

from leafe_graph.budget import Budget
from leafe_graph.checkpoint.postgres import PostgresTreeSaver
from leafe_graph.errors import ConfigError, ModelError, RunFolderError, WorkersLost
from leafe_graph.exploration.kit import Kit
from leafe_graph.exploration.pruning import prune
from leafe_graph.phases.config import ExploreConfig
from leafe_graph.settings import Workers
from leafe_graph.tree.run_folder import RunFolder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster that all tests here share."""
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What one process grows, by world."""
    return {world: forest(play(tmp_path_factory.mktemp("alone") / "run", world)) for world in (World, SnapshotWorld)}


@pytest.mark.parametrize(
    ("workers", "world", "batch", "strategy"),
    [
        (1, World, None, "leafe"),
        (2, SnapshotWorld, (1, 0.0), "leafe"),
        (3, World, (1, 0.0), "rewind"),
        (3, SnapshotWorld, None, "refine"),
        (2, World, None, "independent"),
    ],
)
def test_forest_is_that_of_one_process(
    ray: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    world: Any,
    batch: tuple[int, float] | None,
    strategy: str,
) -> None:
    """Every field but the seconds, costs included; a branch a message, or many."""
    if batch is not None:
        packed = Kit.packed
        monkeypatch.setattr(Kit, "packed", lambda kit: packed(replace(kit, batch=batch)))
    expected = forest(play(tmp_path / "alone", world, strategy=strategy))
    run = play(tmp_path / "run", world, strategy=strategy, workers=at(ray, workers))
    assert forest(run) == expected
    assert len(run.all_outlines) == len(expected)
    assert gone(growers)


@pytest.mark.parametrize(("world", "seed"), [(World, 1), (SnapshotWorld, 2)])
def test_workers_that_are_killed_leave_no_trace(
    ray: Any, alone: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Any, seed: int
) -> None:
    """Ten times, at branches that a seed decides; nothing is logged twice."""
    monkeypatch.setattr("leafe_graph.exploration.cluster.DEATHS", 100)  # no task is to blame for these
    killer = Killer(tmp_path / "run/branches.jsonl", kills=10, every=7, seed=seed)
    killer.start()
    play(tmp_path / "run", world, workers=at(ray, 2), delay=0.01)
    assert len(killer.killed) == 10
    run = RunFolder(tmp_path / "run")
    assert forest(run) == alone[world]
    assert len(run.all_outlines) == len(alone[world])
    assert gone(growers)


LIMITS = {
    "env_steps": 150,
    "replayed_steps": 60,
    "model_calls": 160,
    "prompt_tokens": 6000,
    "completion_tokens": 170,
    "reflections": 30,
}


@pytest.mark.parametrize(
    ("fields", "workers", "kills"),
    [
        (["env_steps"], 1, 0),
        (["model_calls"], 4, 0),
        (["reflections", "replayed_steps"], 3, 0),
        (["prompt_tokens", "completion_tokens"], 2, 0),
        (["env_steps"], 2, 2),
        ([*LIMITS], 3, 2),
    ],
)
def test_total_budget_is_spent_as_exactly_as_in_one_process(
    ray: Any, tmp_path: Path, fields: list[str], workers: int, kills: int
) -> None:
    """No limit is passed, also where workers die; and what is left is nothing that one process would play."""
    total = Budget(**{field: LIMITS[field] for field in fields})
    killer = Killer(tmp_path / "run/branches.jsonl", kills=kills, every=2, seed=workers)
    killer.start()
    given: dict[str, Any] = {"total_budget": total, "concurrency": 4}
    run = play(tmp_path / "run", World, 60, workers=at(ray, workers), **given)
    assert len(killer.killed) == kills
    for field in fields:
        assert run.cost[field] <= LIMITS[field]  # type: ignore[literal-required]
    if fields in (["env_steps"], ["model_calls"]):
        assert run.cost[fields[0]] == LIMITS[fields[0]]  # type: ignore[literal-required]
    count = len(run.all_outlines)
    if "reflections" not in fields or len(fields) > 2:  # without reflections alone, roots go on
        assert len(play(tmp_path / "run", World, 60, **given).all_outlines) == count


def test_budgets_of_tasks_and_run_together_admit_the_same_tasks(ray: Any, tmp_path: Path) -> None:
    """Tasks are begun in their order while one fits whole, however many are played at once."""
    given: dict[str, Any] = {"budget": Budget(env_steps=20), "total_budget": Budget(env_steps=150)}
    run = play(tmp_path / "run", SnapshotWorld, workers=at(ray, 3), **given)
    assert forest(run) == forest(play(tmp_path / "alone", SnapshotWorld, **given))


def test_task_that_kills_its_workers_ends_by_name(ray: Any, alone: dict[Any, Any], tmp_path: Path) -> None:
    """Three workers die of it, the last of them alone with it; all others are what they are without it."""
    run = play(tmp_path / "run", PoisonWorld, workers=at(ray, 2))
    (dead,) = [branch for branch in run.branches if branch["end"] == "env_error"]
    assert dead["error"] is not None and "its worker died" in dead["error"] and dead["turns"] == []
    task = dead["task"]["id"]
    left = {name: branch for name, branch in forest(run).items() if name[0] != task}
    assert left == {name: branch for name, branch in alone[World].items() if name[0] != task}
    assert len({name[0] for name in left}) == 23
    assert forest(play(tmp_path / "run", World)) == alone[World]


def test_branch_of_many_bytes_comes_whole(ray: Any, tmp_path: Path) -> None:
    """Beyond what Ray sends in its messages."""
    given: dict[str, Any] = {"tasks": 3, "model": talkative, "max_turns": 3, "strategy": "independent"}
    run = play(tmp_path / "run", World, workers=at(ray, 2), **given)
    assert min(len(line) for line in (tmp_path / "run/branches.jsonl").read_bytes().splitlines()) > 200_000
    assert forest(run) == forest(play(tmp_path / "alone", World, **given))


def test_model_that_is_down_stops_the_run(ray: Any, tmp_path: Path) -> None:
    """Calls that fail in a row are counted over all workers."""
    with pytest.raises(ModelError, match=r"4 model calls in a row have failed, the last with .*nobody is there"):
        play(tmp_path / "run", World, workers=at(ray, 2), model=down, max_failed_calls=4)
    assert gone(growers)


def test_disk_that_is_full_stops_the_run_and_room_lets_it_go_on(
    ray: Any, alone: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is as it was before the line that did not fit, and no worker is left."""
    out, write = tmp_path / "run", os.write

    def full(file: int, data: bytes) -> int:
        if os.fstat(file).st_size > 40_000 and os.path.samefile(f"/proc/self/fd/{file}", out / "branches.jsonl"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunFolderError, match="make room"):
        play(out, World, workers=at(ray, 2))
    monkeypatch.undo()
    assert gone(growers)
    assert 0 < len(RunFolder(out).outlines) < len(alone[World])
    assert forest(play(out, World, workers=at(ray, 1))) == alone[World]


def test_decision_points_may_be_in_a_database(
    ray: Any, alone: dict[Any, Any], tmp_path: Path, postgres_server: Server
) -> None:
    """Each worker writes its own threads there; the driver drops those of trees that are finished."""
    kept, dropped = postgres_server.new_database(), postgres_server.new_database()
    run = play(tmp_path / "kept", SnapshotWorld, workers=at(ray, 2), checkpointer=kept)
    assert forest(run) == alone[SnapshotWorld]
    threads = {branch["thread_id"] for branch in run.branches}
    assert None not in threads and prune(run.folder, checkpoints=kept).threads == len(threads)
    run = play(tmp_path / "dropped", SnapshotWorld, workers=at(ray, 2), checkpointer=dropped, prune=True)
    assert forest(run) == alone[SnapshotWorld]
    with PostgresTreeSaver(dropped) as saver:
        assert not [*saver.list(None)]


def test_place_that_workers_cannot_write_to_is_refused(tmp_path: Path) -> None:
    """A file of the run folder, and a saver that is open in this process; nothing is started for it."""
    for place, seen in (("sqlite", "a file of the run folder"), (InMemorySaver(), "InMemorySaver, an object")):
        with pytest.raises(ConfigError, match=f"checkpointer is {seen}, which workers cannot write to"):
            play(tmp_path / "run", World, workers=2, checkpointer=place)
    assert not (tmp_path / "run").exists()


def test_cluster_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    """With what to give instead; and a cluster without workers is a slip."""
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"nothing answers at '127\.0\.0\.1:1', where a Ray cluster was expected"):
        play(tmp_path / "run", World, workers=Workers(1, address="127.0.0.1:1"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"ray='auto' and no workers: say how many"):
        ExploreConfig(model="local:m", out=tmp_path / "run", ray="auto").many  # noqa: B018


def test_cluster_without_room_is_told(ray: Any, tmp_path: Path) -> None:
    """Nothing was begun, and no folder was made."""
    with pytest.raises(WorkersLost, match=r"no worker came up within 2 seconds; each needs 0\.1 CPUs and .*'rare'"):
        play(tmp_path / "run", World, workers=at(ray, 1, resources={"rare": 1}, timeout=2.0))
    assert not (tmp_path / "run").exists()


def test_what_a_worker_cannot_import_is_told(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the folder is made, with what to do."""
    ghost = types.ModuleType("ghost")
    exec("def make(): ...", vars(ghost))
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    with pytest.raises(ConfigError, match=r"a worker cannot import .*ghost.*install it on every node"):
        play(tmp_path / "run", ghost.make, workers=at(ray, 1))
    assert not (tmp_path / "run").exists()
    assert gone(growers)


def test_node_that_goes_and_comes_back_leaves_no_trace(
    ray: Any, alone: dict[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of two workers has a node of its own; one node dies in the middle, and another one takes its place."""
    spot = NODE | {"resources": {"spot": 1}}
    out, nodes = tmp_path / "run", [ray.add_node(**spot) for _ in range(2)]

    def wait(branches: int) -> None:
        while not playing.done() and (
            not (out / "branches.jsonl").exists() or (out / "branches.jsonl").read_bytes().count(b"\n") < branches
        ):
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as aside:
        playing = aside.submit(
            play, out, SnapshotWorld, workers=at(ray, 2, resources={"spot": 1}), delay=0.05, concurrency=4
        )
        wait(10)
        ray.remove_node(nodes.pop(), allow_graceful=False)
        wait(30)
        nodes.append(ray.add_node(**spot))
        assert forest(playing.result()) == alone[SnapshotWorld]
    for node in nodes:
        ray.remove_node(node)
    assert "a worker died, and its" in caplog.text


def test_run_whose_last_worker_is_lost_ends_and_goes_on(ray: Any, alone: dict[Any, Any], tmp_path: Path) -> None:
    """After the seconds that it waits for another one; what was logged is safe."""
    out, node = tmp_path / "run", ray.add_node(**NODE | {"resources": {"only": 1}})
    with ThreadPoolExecutor(1) as aside:
        where = at(ray, 1, resources={"only": 1}, timeout=2.0)
        playing = aside.submit(play, out, World, workers=where, delay=0.05, concurrency=4)
        while not playing.done() and not (out / "branches.jsonl").exists():
            time.sleep(0.01)
        ray.remove_node(node, allow_graceful=False)
        with pytest.raises(WorkersLost, match=r"no worker has been there for 2 seconds.*run the same again"):
            playing.result()
    assert gone(growers)
    assert forest(play(out, World)) == alone[World]
