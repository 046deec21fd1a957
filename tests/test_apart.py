"""What is started apart ends with this process, however that ends, and with all that it started itself."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from leafe_graph.processes.apart import guarded, run_guarded

NESTED = """
import os, subprocess, sys, time
code = "import time; time.sleep(600)"
children = [subprocess.Popen([sys.executable, "-c", code], start_new_session=own) for own in (False, True)]
with open(sys.argv[1] + ".new", "w") as file:
    file.write(" ".join(str(child.pid) for child in children))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
"""Starts a process in its own session and one in another, as `accelerate launch` does with its workers."""


def test_exit_code_is_the_commands() -> None:
    """Of one that ends by itself."""
    assert run_guarded([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_all_that_a_command_started_ends(tmp_path: Path) -> None:
    """When the pipe is closed, as it is when the process that holds it is killed."""
    file = tmp_path / "pids"
    guard = subprocess.Popen(guarded([sys.executable, "-c", NESTED, str(file)]), stdin=subprocess.PIPE)
    assert guard.stdin is not None
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline and guard.poll() is None
            time.sleep(0.02)
        pids = [int(pid) for pid in file.read_text().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    finally:
        guard.stdin.close()
        code = guard.wait(60)
    assert code == 128 + signal.SIGKILL
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
