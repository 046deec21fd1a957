"""A run that is stopped, by its user or by a full disk, keeps what it has and goes on where it was."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from worlds import forest, wandering_reply

from leafe_graph.errors import RunFolderError
from leafe_graph.exploration.explore import explore
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder


def wander(out: Path, reply: Any = wandering_reply, **settings: Any) -> RunFolder:
    """Six tasks, two at once."""
    how: Any = {"limits": Limits(max_branches=3), "max_turns": 4, "concurrency": 2, **settings}
    return explore(ScriptedModel(reply=reply), GridWorld, grid_tasks(6), out=out, **how)


class Signals:
    """A policy that wanders about and does something at its n-th calls."""

    def __init__(self, *at: int, do: Any) -> None:
        self.at, self.do, self.calls = at, do, 0

    def __call__(self, messages: Any, seed: int | None) -> str:
        """Count, act, answer."""
        self.calls += 1
        if self.calls in self.at:
            self.do()
        return wandering_reply(messages, seed)


def kept_in(place: str) -> Any:
    """A new place of that name for decision points."""
    return InMemorySaver() if place == "saver" else place


PLACES = ["memory", "saver"]


def interrupt() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("place", PLACES)
def test_first_ctrl_c_finishes_what_is_being_played(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The two branches that are in flight end and are logged, no other is begun; the next run completes it."""
    saver = kept_in(place)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        wander(tmp_path / "run", Signals(4, do=interrupt), checkpointer=saver)
    assert "Ctrl-C again stops at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler
    stopped = RunFolder(tmp_path / "run")
    assert [b["task"]["id"] for b in stopped.branches] and len(stopped.branches) <= 3
    assert all(b["error"] is None and b["turns"] for b in stopped.branches)
    assert len(stopped.trees) == 2
    wander(tmp_path / "run", checkpointer=saver)
    whole = wander(tmp_path / "whole", checkpointer=InMemorySaver())
    assert forest(RunFolder(tmp_path / "run").branches) == forest(whole.branches)


@pytest.mark.parametrize("place", PLACES)
def test_second_ctrl_c_stops_at_once(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was in flight, and would have gone on for long, is not logged: the next run plays it again."""
    calls, sent, saver = itertools.count(1), [], kept_in(place)

    def up(messages: Any, seed: int | None) -> str:
        call, heard = next(calls), "Ctrl-C again" in caplog.text
        if (not sent and call == 1) or (len(sent) == 1 and heard):  # a system may hear two at once as one
            sent.append(call)
            interrupt()
        return "up"

    how: Any = {"max_turns": 100, "limits": Limits(max_branches=1)}
    with pytest.raises(KeyboardInterrupt):
        wander(tmp_path / "run", up, checkpointer=saver, concurrency=1, **how)
    assert len(sent) == 2 and next(calls) < 100
    assert RunFolder(tmp_path / "run").branches == []
    wander(tmp_path / "run", lambda messages, seed: "up", checkpointer=saver, **how)
    whole = wander(tmp_path / "whole", lambda messages, seed: "up", checkpointer=InMemorySaver(), **how)
    assert forest(RunFolder(tmp_path / "run").branches) == forest(whole.branches)


@pytest.mark.parametrize("place", PLACES)
def test_run_can_be_stopped_from_outside(place: str, tmp_path: Path) -> None:
    """By the event that it was given; then it returns what it has. In another thread too, where no signal is heard."""
    stop, runs = threading.Event(), []
    policy = Signals(1, do=stop.set)
    how: Any = {"stop": stop, "concurrency": 1, "checkpointer": kept_in(place)}
    thread = threading.Thread(target=lambda: runs.append(wander(tmp_path, policy, **how)))
    thread.start()
    thread.join()
    assert [branch["id"] for branch in runs[0].branches] == ["0"]
    assert runs[0].branches[0]["turns"]


@pytest.mark.parametrize("checkpointer", ["memory", "sqlite"])
def test_run_that_was_moved_goes_on(checkpointer: str, tmp_path: Path) -> None:
    """Nothing in a run's folder says where it lies: half a run, moved, ends as the undisturbed one."""
    with pytest.raises(KeyboardInterrupt):
        wander(tmp_path / "here", Signals(4, do=interrupt), checkpointer=checkpointer)
    there = tmp_path / "over there, with blanks and ü"
    (tmp_path / "here").rename(there)
    begun = [branch["id"] for branch in RunFolder(there).branches]
    moved, whole = wander(there), wander(tmp_path / "whole")
    assert 0 < len(begun) < len(moved.branches)
    assert forest(moved.branches) == forest(whole.branches)


# ---- a full disk


def test_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes a part of a line first. The log is then as it was, and takes the line when there is room."""
    run = wander(tmp_path / "whole", checkpointer=InMemorySaver())
    write, room = os.write, 1000

    def narrow(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[:room]
        room -= len(part)
        return write(file, part)

    with RunFolder(tmp_path / "run").open({}) as new:
        new.append(run.branches[0])
        log = (tmp_path / "run/branches.jsonl").read_bytes()
        monkeypatch.setattr(os, "write", narrow)
        with pytest.raises(
            RunFolderError, match=r"No space left on device.*make room, then run the same command again"
        ):
            new.append(run.branches[1])
        monkeypatch.undo()
        assert (tmp_path / "run/branches.jsonl").read_bytes() == log
        assert new.branches == run.branches[:1]
        new.append(run.branches[1])
    assert RunFolder(tmp_path / "run").branches == run.branches[:2]


@pytest.mark.parametrize("place", PLACES)
def test_run_whose_log_outgrows_its_limit_goes_on_with_more(place: str, tmp_path: Path) -> None:
    """A limit of the file size, as quotas and batch systems set it."""
    saver, (soft, hard) = kept_in(place), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))
        with pytest.raises(RunFolderError, match="make room, then run the same command again"):
            wander(tmp_path / "run", checkpointer=saver)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "run/branches.jsonl").read_bytes().endswith(b"\n")
    assert len(RunFolder(tmp_path / "run").branches) > 0
    wander(tmp_path / "run", checkpointer=saver)
    whole = wander(tmp_path / "whole", checkpointer=InMemorySaver())
    assert forest(RunFolder(tmp_path / "run").branches) == forest(whole.branches)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 300 KB; a test makes it another size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a small tmpfs is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(("checkpointer", "size"), [("memory", "24k"), ("sqlite", "300k")])
def test_full_disk_stops_the_run_and_room_lets_it_go_on(
    checkpointer: str, size: str, small_disk: Path, tmp_path: Path
) -> None:
    """Whichever meets it first, the log or the checkpoints: nothing that was logged is lost, and nothing done twice."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    with pytest.raises(RunFolderError, match="make room, then run the same command again"):
        wander(small_disk / "run", checkpointer=checkpointer)
    before = RunFolder(small_disk / "run").branches
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    wander(small_disk / "run")
    after = RunFolder(small_disk / "run").branches
    assert after[: len(before)] == before
    assert forest(after) == forest(wander(tmp_path / "whole", checkpointer=InMemorySaver()).branches)
