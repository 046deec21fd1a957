"""The process that hands out tasks to workers and writes the log: killed, interrupted, alone on a machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clusters import SnapshotWorld, World, at, cluster, family, forest, gone, growers, listening, play

from leafe_graph.tree.run_folder import RunFolder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster that all tests here share."""
    with cluster() as made:
        yield made


def start(out: Path, world: str, workers: int, *address: str, delay: float = 0.02) -> "subprocess.Popen[str]":
    """The driver in a process of its own, once it has logged something more."""
    before = logged(out)
    command = [sys.executable, str(Path(__file__).with_name("explored_cluster.py"))]
    driver = subprocess.Popen(
        [*command, str(out), world, str(delay), str(workers), *address], stderr=subprocess.PIPE, text=True
    )
    while logged(out) < before + 4:
        if driver.poll() is not None:
            return driver
        time.sleep(0.01)
    return driver


def logged(out: Path) -> int:
    """Branches in the log."""
    log = out / "branches.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def ended(driver: "subprocess.Popen[str]", *signals: int) -> tuple[int, str]:
    """The driver's exit code and last words after these signals."""
    for each in signals:
        driver.send_signal(each)
        time.sleep(0.3)
    said = driver.communicate(timeout=60)[1]
    return driver.returncode, said


def test_driver_that_is_killed_goes_on_with_any_number_of_workers(ray: Any, tmp_path: Path) -> None:
    """Five kills; its workers end with it, and the forest is that of one process."""
    out = tmp_path / "run"
    for workers in (2, 1, 3, 2, 1):
        assert ended(start(out, "World", workers, ray.address), signal.SIGKILL)[0] == -signal.SIGKILL
        assert gone(growers)
    run = play(out, World, workers=at(ray, 2))
    assert forest(run) == forest(play(tmp_path / "alone", World))
    assert len(run.all_outlines) == len(run.outlines)


def test_ctrl_c_finishes_what_is_played_and_a_second_one_does_not(ray: Any, tmp_path: Path) -> None:
    """Nothing of a worker is left either way, and a run without workers goes on."""
    out = tmp_path / "run"
    driver = start(out, "SnapshotWorld", 2, ray.address)
    code, said = ended(driver, signal.SIGINT)
    assert code == -signal.SIGINT and "Finishing the branches" in said and "Traceback" in said
    assert gone(growers)
    once = logged(out)
    assert once < 80
    code, said = ended(start(out, "SnapshotWorld", 2, ray.address, delay=0.3), signal.SIGINT, signal.SIGINT)
    assert code == -signal.SIGINT
    assert gone(growers)
    assert forest(play(out, SnapshotWorld)) == forest(play(tmp_path / "alone", SnapshotWorld))


def test_reference_that_is_dropped_while_ray_ends_does_not_end_the_driver(ray: Any, tmp_path: Path) -> None:
    """The event loop would drop one between the end of Ray's core and that of ``ray.shutdown``."""
    said = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dropped_reference.py")), str(tmp_path / "run"), ray.address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (said.returncode, said.stdout) == (0, "dropped\nwent on\n"), said.stderr


def test_ray_of_one_machine_listens_on_loopback_alone(tmp_path: Path) -> None:
    """All processes of a run with ``workers=2``; they end with it."""
    pytest.importorskip("ray")
    driver = start(tmp_path / "run", "World", 2, delay=0.05)
    assert driver.poll() is None
    processes = family(driver.pid)
    addresses = listening(processes)
    assert len(addresses) > 5 and addresses == {address for address in addresses if address.startswith("127.0.0.1:")}
    code, said = ended(driver, signal.SIGINT)
    assert code == -signal.SIGINT, said
    assert gone(lambda: _alive(processes))
    assert logged(tmp_path / "run") == len(RunFolder(tmp_path / "run").outlines) > 0


def _alive(processes: Sequence[int]) -> list[int]:
    from processes import runs

    return [pid for pid in processes if runs(pid)]
