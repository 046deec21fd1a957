"""A program's end: threads that compute, and a Ctrl-C that is meant for others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leafe_graph import RunFolder

HERE = Path(__file__).parent


def python(code: str, *args: object, **how: Any) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **how)


STOPPED = """
import pathlib, sys, threading, time
from leafe_graph.processes import daemon
asked = threading.Event()
def work():
    asked.wait()
    pathlib.Path(sys.argv[1]).touch()
daemon.start(work, name="test", stop=asked.set, patience=60)
sys.exit(7)
"""
HANGING = """
import sys, threading
from leafe_graph.processes import daemon
daemon.start(threading.Event().wait, name="test", patience=0.2)
sys.exit(7)
"""
COMPUTING = """
import sys, threading
from leafe_graph.models.local.chat_model import LocalChatModel
from leafe_graph.models.local.sampling import Sampling
engine = LocalChatModel(path=sys.argv[1])._shared()
for i in range(24):
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=200, stop=(), seed=i)
    engine.submit((5, 9 + i % 8, 10), sampling)
while not engine.stats["decode_tokens"]:
    pass
sys.exit(7)
"""


def test_the_end_waits_for_a_thread_that_is_asked_to_stop(tmp_path: Path) -> None:
    """It is not torn apart in the middle of what it does, and the exit code is the program's."""
    assert python(STOPPED, tmp_path / "ended").returncode == 7
    assert (tmp_path / "ended").exists()


def test_the_end_does_not_wait_for_ever() -> None:
    """For a thread that hangs, only as long as was said."""
    assert python(HANGING).returncode == 7


def test_a_program_may_end_while_a_local_model_computes(tiny_model_path: Path) -> None:
    """With its own exit code: torch is not torn apart, which would abort the process."""
    done = python(COMPUTING, tiny_model_path)
    assert done.returncode == 7, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_job_in_the_background_ignores_ctrl_c_and_is_stopped_by_sigterm(tmp_path: Path) -> None:
    """As shells start it, with SIGINT ignored: the Ctrl-C was for the foreground. SIGTERM ends it, and it goes on."""
    from test_cli import LEVELS

    (tmp_path / "levels.txt").write_text(LEVELS)
    command = [sys.executable, "-m", "leafe_graph", "explore", "--model", "python:test_cli:sleepy", "--out", "run"]
    command += ["--levels", "levels.txt", "--max-branches", "9", "--no-stop-on-success", "--env-options", "max_steps=6"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    run = tmp_path / "run"

    def branches(at_least: int) -> int:
        while (n := len(RunFolder(run).branches)) < at_least and process.poll() is None:
            time.sleep(0.02)
        return n

    before = branches(1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert branches(before + 3) >= before + 3, "it goes on beyond what was in flight"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGTERM, "")
