"""Programs that try to do harm meet a wall, each in its way, and the machine is well afterwards."""

import ctypes
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hostile
import needs
import pytest
import spoofs

from leafe_graph.envs.catalog import ENVS
from leafe_graph.envs.codecontests.judging import judge
from leafe_graph.envs.codecontests.problems import HUMANEVAL, Problem, read_problems
from leafe_graph.envs.codecontests.public_tests import Arguments, Case
from leafe_graph.envs.sandbox import Sandbox

pytestmark = needs.world("codecontests")

MISSING = ENVS["codecontests"].missing()
SECRET = "leafe-secret-" + os.urandom(8).hex()


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """With the ordinary limits."""
    return Sandbox()


def adopt_orphans(yes: bool) -> None:
    """Become the parent of whatever outlives its own, so that nothing can hide (PR_SET_CHILD_SUBREAPER)."""
    assert ctypes.CDLL(None).prctl(36, int(yes), 0, 0, 0) == 0


def descendants(others: frozenset[int] = frozenset(), *, bury: bool = True) -> set[int]:
    """The processes that descend from this one, without those of ``others``; the orphans that died are buried."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has just ended
                continue
            if bury and state == "Z" and int(parent) == os.getpid() and int(entry.name) not in others:
                os.waitpid(int(entry.name), 0)
            else:
                parents[int(entry.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found | others}:
        found |= more
    return found - {os.getpid()}


def left_behind() -> set[str]:
    """What a program could leave behind: a sandbox's mounts, and segments of shared memory of its user or of ours."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {mount for mount in mounts if re.search("leafe|newroot|oldroot|bwrap", mount)} | {
        f"segment {segment[1]}" for segment in segments if int(segment[7]) in (os.getuid(), 65534)
    }


class World:
    """What a hostile program could reach if the sandbox let it."""

    def __init__(self, folder: Path) -> None:
        self.secret_file = folder / "secret.txt"
        self.secret_file.write_text(SECRET)
        self.reached: list[str] = []
        self.weak = folder / "weak"
        self.weak.mkdir()
        self.weak.chmod(0o755)
        self.others = frozenset(descendants(bury=False))
        adopt_orphans(True)
        self.before = left_behind()
        self.canary = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix_name = f"leafe-{os.getpid()}"
        self.unix.bind("\0" + self.unix_name)
        self.unix.listen()
        for name, listener in (("TCP", self.tcp), ("UDP", self.udp), ("Unix", self.unix)):
            threading.Thread(target=self._listen, args=(name, listener), daemon=True).start()

    def _listen(self, name: str, listener: socket.socket) -> None:
        try:
            if name == "UDP":
                listener.recv(1)
            else:
                listener.accept()[0].close()
        except OSError:
            return
        self.reached.append(name)

    def close(self) -> None:
        adopt_orphans(False)
        self.canary.kill()
        self.canary.wait()
        for listener in (self.tcp, self.udp, self.unix):
            listener.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Listeners, a secret that everybody may read, and a canary."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        world = World(Path(folder))
        os.environ["LEAFE_SECRET"] = SECRET
        try:
            yield world
        finally:
            del os.environ["LEAFE_SECRET"]
            world.close()


def fill_in(text: str, world: World) -> str:
    """The program, aimed at what is there."""
    import pyseccomp

    calls = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in hostile.CALLS}
    for name, value in {
        "SECRET_FILE": world.secret_file,
        "SECRET": SECRET,
        "REPOSITORY": Path(__file__).parents[1],
        "TCP": world.tcp.getsockname()[1],
        "UDP": world.udp.getsockname()[1],
        "UNIX": world.unix_name,
        "CANARY": world.canary.pid,
        "ROOT": sorted(
            ("dev", "etc", "tmp", "usr", *(name for name in ("lib", "lib64", "lib32") if os.path.exists("/" + name)))
        ),
    }.items():
        text = text.replace(f"@{name}@", str(value))
    return text.replace("CALLS[", f"{calls!r}[")


def program(name: str, world: World) -> str:
    """A hostile program as it is run."""
    return fill_in(hostile.BEGIN + hostile.PROGRAMS[name].program, world)


@pytest.mark.parametrize("name", hostile.PROGRAMS)
def test_a_hostile_program_is_contained(name: str, sandbox: Sandbox, world: World) -> None:
    """It tried, it met what it was to meet, and reached nothing."""
    expected = hostile.PROGRAMS[name]
    limits = sandbox.limits
    if name.startswith("memory"):
        limits = replace(limits, memory_bytes=128 << 20)
    if expected.exit_code:
        waits = expected.exit_code == 137 and "SIGXCPU" not in name
        limits = replace(limits, cpu_seconds=1, wall_seconds=2.0 if waits else 120.0)
    run = sandbox.run(program(name, world), limits=limits)
    assert run.verdict == expected.verdict, run
    assert expected.exit_code in (0, run.exit_code), run
    assert "REACHED" not in run.stdout and SECRET not in run.stdout + run.stderr
    if run.verdict == "output_limit":
        assert len(run.stdout) + len(run.stderr) <= sandbox.limits.output_bytes
    else:
        assert run.stdout == fill_in(expected.says, world), run.stderr
    assert world.canary.poll() is None and world.reached == []


ADD = next(problem for problem in read_problems(HUMANEVAL) if problem.id == "HumanEval/53") if not MISSING else None


def as_judged(problem: Problem) -> list[Problem]:
    """The problem with its public tests, with its hidden ``check`` only, and with a hidden test that is data."""
    return [
        problem,
        replace(problem, public=()),
        replace(problem, public=(), check="", hidden=(Case(Arguments([7, 5], {}), 12),)),
    ]


@pytest.mark.parametrize("name", spoofs.SPOOFS)
def test_a_program_cannot_pretend_to_pass(name: str, sandbox: Sandbox) -> None:
    """Its judge is another process in another sandbox, which believes plain values only."""
    assert ADD is not None
    for problem in as_judged(ADD):
        assert not judge(problem, spoofs.SPOOFS[name], sandbox).passed


def test_an_honest_program_passes(sandbox: Sandbox) -> None:
    """The control of the above."""
    assert ADD is not None
    for problem in as_judged(ADD):
        assert judge(problem, "def add(x, y):\n    return x + y", sandbox).passed


def test_hidden_tests_are_nowhere_to_be_found(sandbox: Sandbox) -> None:
    """Not in the objects, frames and files that a program can reach; its own exception tells us what it found."""
    assert ADD is not None
    judgement = judge(ADD, spoofs.SPY, sandbox)
    assert "looked at True, found []" in judgement.feedback, judgement
    assert "add(2, 3)" in judgement.feedback  # the public test it failed


def test_a_spy_tells_nothing_of_a_hidden_test(sandbox: Sandbox) -> None:
    """What a program says while a hidden test runs is not passed on."""
    assert ADD is not None
    program = "def add(x, y):\n    if (x, y) in ((2, 3), (5, 7)):\n        return x + y\n    raise ValueError(x, y)"
    judgement = judge(ADD, program, sandbox)
    assert judgement[:4] == (False, "Passed the public tests, failed a hidden test.", True, True)
    problem = Problem(id="x", row=0, digest="", statement="", public=(), hidden=(Case("secret", "1"),))
    judgement = judge(problem, "print(input())\nraise ValueError(input())", sandbox)
    assert judgement.feedback == "Passed the public tests, failed a hidden test."


def test_what_is_said_is_fit_to_be_shown(sandbox: Sandbox) -> None:
    """Binary output, terminal codes, addresses and long outputs: bounded, printable, the same every time."""
    problem = Problem(id="x", row=0, digest="", statement="", public=(Case("", "1"),), hidden=())
    binary = "import os\nos.write(1, bytes(range(256)) * 20)"
    screen = "print('\\x1b[2J\\x1b]0;title\\x07', object())"
    trace = "def f(x):\n    raise ValueError(x, object())\nf('y' * 10**5)"
    for program in (binary, screen, trace):
        first, second = (judge(problem, program, sandbox).feedback for _ in range(2))
        assert first == second and len(first) < 5000
        assert all(character.isprintable() or character in "\n\ufffd" for character in first.replace("\t", ""))
    assert "\\x1b[2J" in judge(problem, screen, sandbox).feedback
    assert "object at 0x…" in judge(problem, screen, sandbox).feedback


def test_without_the_sandbox_the_same_attempts_succeed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: in a weak sandbox the harmless ones among these programs reach what they are after."""
    monkeypatch.setattr(tempfile, "tempdir", str(world.weak))
    weak = Sandbox(weak=True)
    for name in ("reading: a file that everybody may read", "network: TCP to this machine", "escapes: bpf"):
        run = weak.run(program(name, world))
        assert run.stdout != fill_in(hostile.PROGRAMS[name].says, world), (name, run)
    assert SECRET in weak.run(program("reading: a file that everybody may read", world)).stdout
    deadline = time.monotonic() + 60
    while not world.reached and time.monotonic() < deadline:  # the listener is a thread
        time.sleep(0.05)
    assert world.reached == ["TCP"] and os.listdir(world.weak) == []
    assert "reading every file" in weak.lacks[0] and Sandbox().lacks == ()


def test_one_program_neither_sees_nor_stops_another(sandbox: Sandbox) -> None:
    """Two at a time: each alone with its /tmp and its processes."""
    stay = "import time\nopen('/tmp/mine', 'w').close()\ntime.sleep(1)\nprint('undisturbed')"
    look = """
import os, signal
print(os.listdir("/tmp"))
for pid in range(1, 5000):
    try:
        os.kill(pid, signal.SIGCONT)
        print(pid)
    except ProcessLookupError:
        pass
"""
    pair = Sandbox(parallel=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pair.run, stay)
        second = pool.submit(pair.run, look)
        assert first.result().stdout == "undisturbed\n" and second.result().stdout == "[]\n1\n2\n"


def test_the_machine_is_well_afterwards(world: World) -> None:
    """No process is left of all those above, nor a mount, a file in memory or a thread; the canary sings."""
    deadline = time.monotonic() + 20
    while (left := descendants(world.others) - {world.canary.pid}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == set(), [Path(f"/proc/{pid}/cmdline").read_bytes()[:200] for pid in left]
    assert world.canary.poll() is None
    assert left_behind() <= world.before
    free = {name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)}
    assert free["MemAvailable"] > free["MemTotal"] // 50
    with tempfile.TemporaryFile() as file:  # the disk takes more
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
