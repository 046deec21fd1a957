"""Environments in processes of their own: the same answers, and a hang or a death costs a branch, not the run."""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import WORDS, Faulty, Saved, Slow, failing
from langgraph.checkpoint.memory import InMemorySaver
from processes import runs
from worlds import forest, is_reflection

from leafe_graph.env import EnvPool, SnapshotEnv
from leafe_graph.env.subprocess_env import SubprocessEnv
from leafe_graph.errors import ConfigError, EnvError, EnvLost, MissingDependency
from leafe_graph.exploration.explore import explore
from leafe_graph.settings import Limits
from leafe_graph.testing import ScriptedModel, check_env, grid_tasks

WALK: Any = {"id": "walk", "instruction": "Walk.", "seed": 3}


@contextlib.contextmanager
def faulty(timeout: float = 60.0) -> Iterator[SubprocessEnv]:
    """One, closed in the end."""
    env = SubprocessEnv(Faulty, timeout=timeout)
    try:
        env.reset(seed=0)
        yield env
    finally:
        env.close()


def gone(pid: int) -> bool:
    """Whether the process ends within a minute."""
    deadline = time.monotonic() + 60
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not runs(pid)


@pytest.mark.parametrize("world", [Faulty, Saved])
def test_environment_keeps_its_contract_in_a_process(world: Any) -> None:
    """Answers, snapshots, bad actions and closing twice are those of the environment itself."""
    check_env(lambda: SubprocessEnv(world), seeds=[1], steps=4)
    with contextlib.closing(SubprocessEnv(world)) as env:
        assert isinstance(env, SnapshotEnv) == (world is Saved)


def test_run_is_the_same_in_processes(tmp_path: Path) -> None:
    """The very trees and costs of the environment in this process, replays included."""

    def reply(messages: Any, seed: int | None) -> str:
        draw = random.Random(f"{seed} {messages[-1].text}")
        return '{"step": 1, "experience": "turn"}' if is_reflection(messages) else draw.choice(WORDS[:3])

    settings: Any = {"limits": Limits(max_branches=3), "max_turns": 4, "concurrency": 2}
    runs = [
        explore(
            ScriptedModel(reply=reply),
            make,
            grid_tasks(3),
            out=tmp_path / str(number),
            checkpointer=InMemorySaver(),
            **settings,
        )
        for number, make in enumerate([Faulty, functools.partial(SubprocessEnv, Faulty)])
    ]
    assert forest(runs[0].branches) == forest(runs[1].branches)
    assert runs[0].cost["replayed_steps"] > 0


def test_hang_is_ended_and_a_new_process_started() -> None:
    """The error says which call took how long; the process is gone; after a reset all is well."""
    with faulty(timeout=3.0) as env:
        before = int(env.step("who")[0])
        with pytest.raises(EnvLost, match=r"step\(\) took longer than 3 s") as lost:
            env.step("hang")
        assert lost.value.exitcode is None
        assert not runs(before)
        with pytest.raises(EnvError, match=r"reset\(\) starts a new one"):
            env.step("up")
        env.reset(seed=0)
        assert int(env.step("who")[0]) != before


@pytest.mark.parametrize(("action", "exitcode"), [("die", -signal.SIGKILL), ("leave", 3)])
def test_death_is_told(action: str, exitcode: int) -> None:
    """With its exit code; after a reset all is well."""
    with faulty() as env:
        with pytest.raises(EnvLost, match=rf"died in step\(\) \(exit code {exitcode}\)") as lost:
            env.step(action)
        assert lost.value.exitcode == exitcode
        assert env.reset(seed=0)[0].startswith("at the start")


def test_errors_come_through() -> None:
    """As themselves where they can be sent, with the worker's traceback; the process lives on."""
    with faulty() as env:
        with pytest.raises(KeyError, match="the floor is gone") as raised:
            env.step("raise")
        assert "in step" in "".join(raised.value.__notes__)
        with pytest.raises(MissingDependency, match=r"not installed: pip install .*\[sokoban\]"):
            env.step("lack")
        with pytest.raises(EnvError, match="Odd: odd 1 2"):
            env.step("odd")
        with pytest.raises(Exception, match="pickle"):
            env.step("secret")
        assert env.step("up")[4]["valid"]


def test_environment_that_cannot_be_made() -> None:
    """Its own error, a hang by name; what cannot be sent is refused with what to give instead."""
    with pytest.raises(OSError, match="no display"):
        SubprocessEnv(failing)
    with pytest.raises(EnvLost, match=r"__init__\(\) took longer than 2 s"):
        SubprocessEnv(Slow, start_timeout=2.0)
    with pytest.raises(ConfigError, match="not a lambda"):
        SubprocessEnv(lambda: Faulty())
    with pytest.raises(ConfigError, match="timeout=0"):
        SubprocessEnv(Faulty, timeout=0)


def test_closing_ends_the_process() -> None:
    """Also twice, and when the environment is dead already."""
    with faulty() as env:
        pid = int(env.step("who")[0])
        env.close()
        assert gone(pid)
        env.close()
    with faulty() as env, pytest.raises(EnvLost):
        env.step("die")


def test_process_ends_with_its_parent() -> None:
    """Also when that is killed while the environment is busy."""
    code = (
        "import os, signal, threading, time\n"
        "from leafe_graph.env.subprocess_env import SubprocessEnv\n"
        "from faulty import Faulty\n"
        "if __name__ == '__main__':\n"
        "    env = SubprocessEnv(Faulty)\n"
        "    env.reset(seed=0)\n"
        "    print(env.step('who')[0], flush=True)\n"
        "    threading.Thread(target=env.step, args=['hang'], daemon=True).start()\n"
        "    time.sleep(0.2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    where = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


@pytest.mark.parametrize("fault", ["hang", "die"])
def test_lost_process_ends_its_branch_and_the_run_goes_on(fault: str, tmp_path: Path) -> None:
    """One branch ends as env_error with what happened; the next ones are played in a new process."""
    turns = 0

    def reply(messages: Any, seed: int | None) -> str:
        nonlocal turns
        turns += 1
        return fault if turns == 2 else "up" if turns == 1 else "win"

    make = functools.partial(SubprocessEnv, Faulty, timeout=3.0)
    run = explore(ScriptedModel(reply=reply), make, [WALK], out=tmp_path, checkpointer=InMemorySaver())
    assert [branch["end"] for branch in run.branches] == ["env_error", "success"]
    assert str(run.branches[0]["error"]).startswith("EnvLost: ")
    assert run.branches[0]["cost"]["env_steps"] == 2
    assert [turn["action"] for turn in run.branches[0]["turns"]] == ["up"]


def test_interrupted_call_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that is under way belongs to no other call."""
    with faulty() as env:
        pid = int(env.step("who")[0])

        def interrupt(seconds: float) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(env._pipe, "poll", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            env.step("up")
        assert gone(pid)


def test_pool_replaces_what_was_lost() -> None:
    """Never more processes than the pool has room for."""
    with EnvPool(functools.partial(SubprocessEnv, Faulty, timeout=3.0), size=1) as pool:
        for _ in range(2):
            env, _, _ = pool.reset(WALK)
            with pytest.raises(EnvLost):
                env.step("die")
            pool.discard(env)
        env, _, _ = pool.reset(WALK)
        pid = int(env.step("who")[0])
        pool.put_back(env)
    assert gone(pid)
