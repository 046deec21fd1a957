"""Jobs in processes of their own: some at once, failures told, none left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import runs

from leafe_graph.errors import LeafeError
from leafe_graph.processes.side_by_side import Job, side_by_side


def work(done: Path) -> None:
    """Leave a file, with what the environment says."""
    print("began")
    done.write_text(os.environ["LEAFE_NUMBER"])


def fails(done: Path) -> None:
    """Say why."""
    raise LeafeError(f"no room for {done.name}")


def is_killed(done: Path) -> None:
    """As by the system's out-of-memory killer."""
    print("all is well", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def waits(done: Path) -> None:
    """Tell who it is, and never end."""
    done.write_text(str(os.getpid()))
    time.sleep(600)


def test_jobs_run_until_none_is_ready_and_failures_are_told(tmp_path: Path) -> None:
    """One that failed is not tried again, one that was killed is not told by what it said before."""
    functions = {"a": work, "b": fails, "c": is_killed, "d": work}

    def ready() -> Iterator[Job]:
        for name, function in functions.items():
            if (name != "d" or (tmp_path / "a").exists()) and not (tmp_path / name).exists():
                yield Job(name, function, (tmp_path / name,), tmp_path / f"{name}.log", {"LEAFE_NUMBER": name})

    failed = side_by_side(ready, 2)
    assert failed == {"b": "LeafeError: no room for b", "c": "it died (exit code -9)"}
    assert [(tmp_path / name).read_text() for name in "ad"] == ["a", "d"] and "LEAFE_NUMBER" not in os.environ
    assert (tmp_path / "a.log").read_text() == "began\n" and "Traceback" in (tmp_path / "b.log").read_text()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_jobs_end_with_the_process_that_started_them(sent: signal.Signals, tmp_path: Path) -> None:
    """Killed or interrupted: none is left that could write to the folder."""
    done = tmp_path / "done"
    parent = subprocess.Popen([sys.executable, __file__, str(done)], stderr=subprocess.DEVNULL)
    until(lambda: done.exists() and bool(done.read_text()))
    job = int(done.read_text())
    assert runs(job)
    parent.send_signal(sent)
    parent.wait(60)
    until(lambda: not runs(job))


def until(what: Callable[[], bool]) -> None:
    """Wait for it, a minute at most."""
    for _ in range(6000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


if __name__ == "__main__":
    side_by_side(lambda: [Job("waits", waits, (Path(sys.argv[1]),), Path(f"{sys.argv[1]}.log"))], 1)
