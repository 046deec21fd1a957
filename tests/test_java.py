"""Simulators in a JVM: started when needed, shared, bounded, gone with the process, their death typed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import needs
import pytest

from leafe_graph.envs import java
from leafe_graph.envs import textworld_express as express
from leafe_graph.errors import ConfigError, EnvError, EnvLost

pytestmark = needs.world("textworld-express")

TASK = express.tasks("train", 1, game="simonsays")[0]


def start() -> tuple[express.TextWorldExpressEnv, java.Jvm]:
    """An instance in a game, and its JVM."""
    env = express.TextWorldExpressEnv()
    env.reset(seed=TASK["seed"], options=TASK["options"])
    return env, env._jvm


def gone(pid: int) -> bool:
    """Whether a process ends within a while: all its threads, for until then it cannot be waited for."""
    for _ in range(200):
        with contextlib.suppress(OSError):  # it ends
            ended = "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
            if ended and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1:
                return True
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


def test_instances_share_one_jvm_and_leave_the_environment_alone() -> None:
    """Same options, same JVM; another heap, another; no variable of this process is changed."""
    before = dict(os.environ)
    env, jvm = start()
    other, same = start()
    assert same is jvm and same.pid == jvm.pid is not None
    assert express.TextWorldExpressEnv(heap_mb=300)._jvm is not jvm
    assert "-Xmx512m" in Path(f"/proc/{jvm.pid}/cmdline").read_text()
    assert dict(os.environ) == before
    env.close()
    assert other.step("jump")[0]


def test_a_jvm_that_dies_is_typed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """Every instance in it is lost, each goes on after its next reset, and nothing is logged."""
    env, jvm = start()
    other, _ = start()
    assert jvm.pid is not None
    os.kill(jvm.pid, signal.SIGKILL)
    with pytest.raises(EnvLost, match="died while acting") as caught:
        env.step("jump")
    assert caught.value.exitcode == -signal.SIGKILL
    with pytest.raises(EnvLost, match="reset to go on"):
        other.step("jump")
    expected, _ = env.reset(seed=TASK["seed"], options=TASK["options"])
    with pytest.raises(EnvLost, match="reset to go on"):
        other.step("jump")
    assert other.reset(seed=TASK["seed"], options=TASK["options"])[0] == expected
    env.close()
    other.close()
    assert caplog.records == []


def test_a_death_between_episodes_is_not_noticed() -> None:
    """A reset finds the JVM dead and starts another."""
    env, jvm = start()
    pid = jvm.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    env.close()  # what it held is gone already
    assert env.reset(seed=TASK["seed"], options=TASK["options"])[0]
    assert jvm.pid not in (None, pid)


def test_a_jvm_that_does_not_start_says_why() -> None:
    """Its own words are in the error."""
    jvm = java.shared("Nonsense", express._jvm()._jar, "-XX:NoSuchOption")
    with pytest.raises(EnvLost, match=r"died while starting \(exit code 1\).*NoSuchOption"):
        jvm.ensure()


def test_what_java_raises_is_an_error_and_no_death() -> None:
    """The JVM goes on."""
    _, jvm = start()
    pid = jvm.pid
    with pytest.raises(EnvError, match=r"raised while dividing: [^\t]*ArithmeticException: [^\t]*zero$") as caught:
        jvm.call(
            lambda: jvm.classes.java.math.BigInteger("1").divide(jvm.classes.java.math.BigInteger("0")), "dividing"
        )
    assert not isinstance(caught.value, EnvLost) and jvm.pid == pid


def test_a_bug_is_an_error_and_no_death() -> None:
    """The other instances play on."""
    env, jvm = start()
    pid = jvm.pid
    with pytest.raises(EnvError, match="failed while reading: JSONDecodeError"):
        jvm.call(lambda: json.loads("{"), "reading")
    assert jvm.pid == pid and env.step("jump")[0]


def test_a_call_that_is_interrupted_does_not_disturb_the_next() -> None:
    """What may still be going on in the JVM ends with it."""
    env, jvm = start()
    pid = jvm.pid

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jvm.call(interrupted, "waiting")
    assert pid is not None and gone(pid)
    assert env.reset(seed=TASK["seed"], options=TASK["options"])[0]


def test_an_unusable_heap_is_refused() -> None:
    """Before a JVM is started."""
    for megabytes in (0, 63, "1g"):
        with pytest.raises(ConfigError, match="heap_mb"):
            express.TextWorldExpressEnv(heap_mb=megabytes)  # type: ignore[arg-type]


CHILD = """
import os, sys
from leafe_graph.envs.textworld_express import TextWorldExpressEnv, tasks
env = TextWorldExpressEnv()
task = tasks("train", 1)[0]
env.reset(seed=task["seed"], options=task["options"])
print(env._jvm.pid, env._jvm._folder, flush=True)
{end}
"""


WORKER = f"""
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=exec, args=({CHILD.format(end="")!r}, {{}}))
worker.start()
worker.join()
"""
ENDS = ["", "sys.exit(3)", "os._exit(0)", "os.kill(os.getpid(), 9)"]


@pytest.mark.parametrize("program", [*(CHILD.format(end=end) for end in ENDS), WORKER], ids=[*ENDS, "worker"])
def test_no_jvm_is_left_behind(program: str) -> None:
    """It ends with its process, however that ends, and neither writes to its output; so does its folder, if late."""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    pid, folder = child.stdout.split()
    assert child.stderr == "" and gone(int(pid))
    if "os." in program.splitlines()[-1]:
        java._sweep()
    assert not Path(folder).exists()


def test_a_folder_in_use_is_not_swept() -> None:
    """It belongs to a JVM until that ends."""
    env, jvm = start()
    java._sweep()
    assert jvm._folder.exists() and env.step("jump")[0]


FORK = """
import os
from leafe_graph.envs.textworld_express import TextWorldExpressEnv, tasks
from leafe_graph.errors import EnvLost
env, task = TextWorldExpressEnv(), tasks("train", 1)[0]
start = lambda: env.reset(seed=task["seed"], options=task["options"])
start()
parent = env._jvm.pid
child = os.fork()
if child == 0:
    try:
        env.step("look around")
    except EnvLost:
        start()
        print(env._jvm.pid not in (None, parent), flush=True)
else:
    print(os.waitpid(child, 0)[1], env._jvm.pid == parent, env.step("look around")[4]["valid"])
"""


def test_a_forked_child_starts_its_own() -> None:
    """It neither uses nor ends its parent's."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == ["True", "0", "True", "True"] and done.stderr == ""


def test_threads_take_turns_and_see_their_own_games() -> None:
    """Eight instances stepped from eight threads answer as one alone does."""
    games = express.tasks("train", 8)
    plays = [(task, express.expert(task)[:30]) for task in games]
    told: dict[int, list[str]] = {}

    def walk(number: int) -> None:
        env, (task, actions) = express.TextWorldExpressEnv(), plays[number]
        env.reset(seed=task["seed"], options=task["options"])
        told[number] = [env.step(action)[0] for action in actions]
        env.close()

    threads = [threading.Thread(target=walk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(told)
    for number in range(8):
        walk(number)
    assert told == together and len(set(map(tuple, told.values()))) == 8
