"""Trees that grow in several processes are those of one process, whatever dies on the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import Killer, SnapshotWorld, World, at, cluster, forest, gone, growers, play

from leafe_graph.exploration.kit import Kit
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
    ray: Any, alone: dict[Any, Any], tmp_path: Path, world: Any, seed: int
) -> None:
    """Ten times, at branches that a seed decides; nothing is logged twice."""
    killer = Killer(tmp_path / "run/branches.jsonl", kills=10, every=7, seed=seed)
    killer.start()
    play(tmp_path / "run", world, workers=at(ray, 2), delay=0.01)
    assert len(killer.killed) == 10
    run = RunFolder(tmp_path / "run")
    assert forest(run) == alone[world]
    assert len(run.all_outlines) == len(alone[world])
    assert gone(growers)
