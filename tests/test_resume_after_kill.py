"""`explore` killed with SIGKILL at sixty random moments has in the end exactly what an undisturbed run has."""

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killed_explore
import pytest
from lives import Lives, kill
from worlds import forest

from leafe_graph.tree.run_folder import RunFolder


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    """Of the program."""
    with Lives([sys.executable, str(Path(killed_explore.__file__))]) as lives:
        yield lives


@pytest.mark.parametrize(
    ("world", "kept_in", "durability", "times"),
    [
        ("GridWorld", "memory", "async", 15),
        ("SnapshotGridWorld", "memory", "async", 12),
        ("GridWorld", "sqlite", "async", 12),
        ("SnapshotGridWorld", "sqlite", "exit", 12),
        ("SnapshotGridWorld", "PostgreSQL", "async", 10),
    ],
)
def test_killed_run_ends_as_the_undisturbed_one(
    world: str, kept_in: str, durability: str, times: int, lives: Lives, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """No branch is lost, none is there twice, and the totals of the budget are equal: with replays or snapshots."""
    out, moments = tmp_path / "killed", random.Random(f"moments of {world} in {kept_in}")
    undisturbed = killed_explore.run(str(tmp_path / "whole"), world, 0)
    where = request.getfixturevalue("postgres_server").new_database() if kept_in == "PostgreSQL" else kept_in
    kills, logged = 0, []
    while kills < times:
        before, life = size(out), lives.start(f"{out} {world} 0.02 {where} {durability}")
        if kills % 4:  # in the middle of its work, with something done; every fourth perhaps before it has begun
            wait_for(lambda before=before: size(out) > before)
        time.sleep(moments.uniform(0, 0.12))
        kill(life)
        assert lives.end() == -signal.SIGKILL, "the run came to its end before it was killed often enough"
        kills += 1
        logged.append(len(RunFolder(out).branches))
    assert (out / "checkpoints.sqlite").exists() == (kept_in == "sqlite")
    print(logged, len(undisturbed.branches))
    assert logged == sorted(logged)
    assert logged[-1] < len(undisturbed.branches)
    lives.start(f"{out} {world} 0 {where} {durability}")
    assert lives.end() == 0
    run = RunFolder(out)
    names = Counter((branch["task"]["id"], branch["id"]) for branch in run.branches)
    assert set(names.values()) == {1}
    assert forest(run.branches) == forest(undisturbed.branches)
    assert totals(run) == totals(undisturbed)
    assert (run.cost["replayed_steps"] > 0) == (world == "GridWorld")


def size(out: Path) -> int:
    """How much has been logged."""
    log = out / "branches.jsonl"
    return log.stat().st_size if log.exists() else 0


def wait_for(happened: Callable[[], bool]) -> None:
    """Look every two milliseconds."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.002)


def totals(run: RunFolder) -> dict[str, Any]:
    """What the run has spent, but for the time it took."""
    return {field: amount for field, amount in run.cost.items() if field != "seconds"}
