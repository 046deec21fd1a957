"""The sandbox runs programs and says how they ended; where it cannot be set up, it refuses."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import needs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import runs

from leafe_graph.envs.sandbox import Limits, Run, Sandbox, default_sandbox
from leafe_graph.envs.sandbox import seccomp as sandbox_seccomp
from leafe_graph.envs.sandbox.inside import decode, encode
from leafe_graph.envs.sandbox.process import with_cpu
from leafe_graph.errors import ConfigError, EnvError, MissingDependency

pytestmark = needs.world("codecontests")


@pytest.fixture(scope="module", params=["strong", "weak"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Both kinds run programs alike."""
    return Sandbox(weak=request.param == "weak")


def test_a_program_reads_and_prints(sandbox: Sandbox) -> None:
    """As ``python main.py`` would, with its own main module."""
    program = "import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())), sys.argv)"
    run = sandbox.run(program, "1 2\n3\n")
    assert (run.verdict, run.stdout, run.stderr, run.exit_code) == ("ok", "6 ['main.py']\n", "", 0)
    assert run.seconds > 0


@pytest.mark.parametrize(
    ("program", "verdict", "code", "last"),
    [
        ("def f(:\n    pass", "compile_error", 120, "SyntaxError: invalid syntax"),
        ("x = '\0'", "compile_error", 120, "ValueError: source code string cannot contain null bytes"),
        ("(" * 300, "compile_error", 120, "SyntaxError: too many nested parentheses"),
        ("'\ud800'", "compile_error", 120, "surrogates not allowed"),
        ("1 / 0", "runtime_error", 1, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "runtime_error", 3, ""),
        ("import sys\nsys.exit('a message')", "runtime_error", 1, "a message"),
        ("raise MemoryError('out')", "memory_limit", 121, "MemoryError: out"),
        ("input()", "runtime_error", 1, "EOFError: EOF when reading a line"),
        ("import numpy", "runtime_error", 1, "ModuleNotFoundError: No module named 'numpy'"),
        ("import os\nos.abort()", "runtime_error", 134, ""),
        ("pass", "ok", 0, ""),
    ],
)
def test_how_a_program_ended(sandbox: Sandbox, program: str, verdict: str, code: int, last: str) -> None:
    """The verdict, the exit code and the last line that it said."""
    run = sandbox.run(program)
    assert (run.verdict, run.exit_code) == (verdict, code), run
    assert last in (run.stderr.strip().splitlines() or [""])[-1]


def test_a_traceback_shows_the_program_and_nothing_around_it(sandbox: Sandbox) -> None:
    """The lines of the program, under the name main.py, as the interpreter shows them."""
    assert sandbox.run("def f(x):\n    return 1 / x\n\nf(0)").stderr == (
        "Traceback (most recent call last):\n"
        '  File "main.py", line 4, in <module>\n    f(0)\n'
        '  File "main.py", line 2, in f\n    return 1 / x\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )


def test_chance_and_order_are_the_same_every_time(sandbox: Sandbox) -> None:
    """Hashes of texts and unseeded random numbers do not differ from run to run."""
    program = "import random\nprint({'a', 'b', 'c', 'd', 'e', 'f'}, random.random())"
    assert sandbox.run(program).stdout == sandbox.run(program).stdout != ""


def test_functions_are_called_with_plain_values(sandbox: Sandbox) -> None:
    """Arguments and results keep their types; an exception does not end the session."""
    program = """
seen = []
def f(*args, **kwargs):
    seen.append(args)
    print("this goes nowhere")
    if args == ("boom",):
        raise KeyError("boom")
    return args, kwargs, len(seen)
if __name__ == "__main__":
    raise SystemExit("not when its function is called")
"""
    values: list[Any] = [None, True, -1, 2.5, "ü\n🙂\ud800", b"\x00\xff", [1, (2,)], {1: {2}, (3,): frozenset([4])}, 2j]
    with sandbox.serve(program, "f") as session:
        assert session.ready
        assert session.call(values, {"key": 1}) == ((tuple(values), {"key": 1}, 1), None)
        value, error = session.call(["boom"])
        assert value is None and error is not None and error.endswith("KeyError: 'boom'\n")
        assert "inside" not in error
        (args, _, count), _ = session.call([float("inf"), float("nan")])
        assert args[0] == float("inf") and args[1] != args[1] and count == 3
        assert session.finish().verdict == "ok"


def test_a_function_may_be_a_method_of_a_solution(sandbox: Sandbox) -> None:
    """As LeetCode has it; a prelude's names are there."""
    program = "class Solution:\n    def twice(self, x: List[int]):\n        return [helper(y) for y in x]"
    prelude = "from typing import List\ndef helper(y):\n    return 2 * y"
    for entry_point in ("twice", "Solution().twice"):
        with sandbox.serve(program, entry_point, prelude=prelude) as session:
            assert session.call([[1, 2]]) == ([2, 4], None)
            assert sandbox.check("def check(f):\n    assert f(x=[3]) == [6]", entry_point, session)
            assert not sandbox.check("def check(f):\n    assert f([3]) == [7]", entry_point, session)
            assert not sandbox.check("def check(f):\n    f(3)", entry_point, session)  # it raises
            assert not sandbox.check("no python", entry_point, session)


@pytest.mark.parametrize(
    ("check", "how"),
    [
        ("import os\ndef check(f):\n    os._exit(3)", "runtime_error, exit code 3"),
        ("def check(f):\n    raise MemoryError", "memory_limit"),
    ],
)
def test_a_check_that_ends_says_nothing_of_the_program(sandbox: Sandbox, check: str, how: str) -> None:
    """It is an error of the environment, not a wrong program."""
    with sandbox.serve("def f(x):\n    return x", "f") as session, pytest.raises(EnvError, match=f"the check .*{how}"):
        sandbox.check(check, "f", session)


def test_a_program_that_ends_while_it_is_checked_has_failed(sandbox: Sandbox) -> None:
    """Its end is its own."""
    with sandbox.serve("import os\ndef f(x):\n    os._exit(0)", "f") as session:
        assert not sandbox.check("def check(f):\n    assert f(1) == 1", "f", session)


@pytest.mark.parametrize(
    ("program", "verdict", "said"),
    [
        ("x = 1", "runtime_error", "NameError: the program defines no 'f'"),
        ("def f(:", "compile_error", "SyntaxError"),
        ("raise SystemExit", "runtime_error", "SystemExit"),
        ("while True: pass", "time_limit", ""),
    ],
)
def test_a_program_that_defines_no_function(sandbox: Sandbox, program: str, verdict: str, said: str) -> None:
    """It is not ready, and the end says why."""
    with sandbox.serve(program, "f", limits=Limits(cpu_seconds=1, wall_seconds=60)) as session:
        assert not session.ready
        run = session.finish()
    assert run.verdict == verdict and said in run.stderr


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(PLAIN)
@settings(max_examples=50)
def test_plain_values_survive_the_wire(value: Any) -> None:
    """Written and read again, a value is the same, types included."""
    again = decode(json.loads(encode(value)))
    assert again == value and repr(again) == repr(value)


def test_integers_of_thousands_of_digits_survive_the_wire(sandbox: Sandbox) -> None:
    """To a function and back, within other values, and as text."""
    big = 10**5000
    with sandbox.serve("def f(x):\n    return x, str(x[0]), {-x[0]: [x[0] + 1]}", "f") as session:
        value, error = session.call([[big]])
    assert error is None and value == ([big], "1" + "0" * 5000, {-big: [big + 1]})


@pytest.mark.parametrize(
    "text",
    ['{"set": [[]]}', '{"a": 1, "b": 2}', "{}", '{"bytes": "x"}', '{"complex": 1}', f'{{"complex": [{10**400}, 0]}}'],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    """A line that a program made up."""
    with pytest.raises(ValueError, match="not a value"):
        decode(json.loads(text))


def test_a_set_is_read_in_linear_time() -> None:
    """Many items are taken; many of the same hash are refused."""
    many = list(range(200_000))
    assert decode({"set": many}) == set(many) and len(decode({"dict": [[key, 0] for key in many]})) == len(many)
    same = [key * (2**61 - 1) for key in range(2000)]
    for kind, items in (("set", same), ("frozenset", same), ("dict", [[key, 0] for key in same])):
        with pytest.raises(ValueError, match="not a value"):
            decode({kind: items})


def test_no_more_run_at_once_than_allowed() -> None:
    """One processor's worth of programs: the second starts when the first has ended."""
    single = Sandbox(parallel=1)
    clock = "import time\nprint(time.monotonic())\ntime.sleep(0.3)\nprint(time.monotonic())"
    with ThreadPoolExecutor(3) as pool:
        spans = sorted([float(x) for x in run.stdout.split()] for run in pool.map(single.run, [clock] * 3))
    assert all(later[0] >= earlier[1] for earlier, later in itertools.pairwise(spans))
    assert default_sandbox() is default_sandbox()
    with pytest.raises(ConfigError, match="parallel=0"):
        Sandbox(parallel=0)


def test_many_threads_share_it() -> None:
    """Eight threads, each with its own input and output."""
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda i: default_sandbox().run("print(input())", f"{i}"), range(24)))
    assert [run.stdout for run in runs] == [f"{i}\n" for i in range(24)]


def test_a_program_ends_with_the_one_who_started_it() -> None:
    """Where the host's process is killed, what it ran is gone too."""
    script = (
        "from leafe_graph.envs.sandbox import Sandbox, Limits\nbox = Sandbox(limits=Limits(wall_seconds=300.0))\n"
        "print('ready', flush=True)\nbox.run('import time\\ntime.sleep(300)')"
    )
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert host.stdout is not None and host.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 60
    while len(children := _descendants(host.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    host.kill()
    host.wait()
    host.stdout.close()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) >= 3 and not any(Path(f"/proc/{pid}").exists() for pid in children)


def _descendants(parent: int) -> list[int]:
    """What a process has started, and what that has started: bubblewrap, its process 1, the program."""
    children = [
        int(pid) for file in Path(f"/proc/{parent}/task").glob("*/children") for pid in file.read_text().split()
    ]
    return children + [pid for child in children for pid in _descendants(child)]


@pytest.mark.parametrize("closed", [False, True])
def test_a_weak_sandbox_leaves_no_process_behind(closed: bool) -> None:
    """A child that goes on when its parent has ended, with the outputs or without, ends with it."""
    program = f"""
import os, time
pid = os.fork()
if pid == 0:
    if {closed}:
        os.close(1)
        os.close(2)
    time.sleep(600)
    os._exit(0)
print(pid, flush=True)
os._exit(0)
"""
    run = Sandbox(weak=True).run(program, limits=Limits(wall_seconds=300.0 if closed else 15.0))
    child = int(run.stdout)
    deadline = time.monotonic() + 60
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def test_without_bubblewrap_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed: the error names the package. No user namespaces: it says so, and names the weak mode."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("PATH", folder)
        with pytest.raises(MissingDependency, match=r"bwrap.*apt-get install bubblewrap"):
            Sandbox()
        fake = Path(folder, "bwrap")
        fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        fake.chmod(0o755)
        with pytest.raises(EnvError, match=r"No permissions to create new namespace.*weak=True"):
            Sandbox()


def test_without_the_filter_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library is not there: the error names both packages."""
    sandbox_seccomp.program.cache_clear()
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    try:
        with pytest.raises(MissingDependency, match="pip install pyseccomp, and apt-get install libseccomp2"):
            sandbox_seccomp.program()
    finally:
        sandbox_seccomp.program.cache_clear()


def test_an_interpreter_that_does_not_run_is_refused() -> None:
    """The error names it."""
    with pytest.raises(EnvError, match="/bin/false"):
        Sandbox(python="/bin/false")


def test_limits_are_checked_and_widened() -> None:
    """More than nothing; the kernel counts whole seconds."""
    with pytest.raises(ConfigError, match="cpu_seconds=0"):
        Limits(cpu_seconds=0)
    assert with_cpu(Limits(), 0.1).cpu_seconds == 1 and with_cpu(Limits(), 2.01).cpu_seconds == 3
    assert with_cpu(Limits(), 100).wall_seconds == 1000


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize(
    ("program", "printed", "said", "code"),
    [
        ("print(1)\nexit()\nprint(2)", "1\n", "", 0),
        ("print(1)\nquit(0)\nprint(2)", "1\n", "", 0),
        ("print(1)\nexit('no luck')", "1\n", "no luck\n", 1),
        ("quit(3)", "", "", 3),
        ("import sys\nsys.exit('gone')", "", "gone\n", 1),
        ("print(callable(help), copyright is not None, credits is not None, license is not None)", "True " * 4, "", 0),
        ("x = 10 ** 5000\nprint(int(str(x)) == x)", "True", "", 0),
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 * 1024 * 1024)\n"
            "def f(n):\n    return max([n - 1], key=f) + 1 if n else 0\n"
            "t = threading.Thread(target=lambda: print(f(20_000)))\nt.start()\nt.join()",
            "20000",
            "",
            0,
        ),
        ("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (2**28, -1))\nprint(1)", "1", "", 0),
    ],
)
def test_programs_find_what_judges_give_them(weak: bool, program: str, printed: str, said: str, code: int) -> None:
    """Names of Python's ``site``, integers of any length, large stacks: as where contests are judged."""
    run = default_sandbox(weak=weak).run(program)
    assert (run.stdout.split(), run.stderr, run.exit_code) == (printed.split(), said, code)
    assert run.verdict == ("ok" if code == 0 else "runtime_error")


@pytest.mark.parametrize(
    ("program", "given", "printed"),
    [
        ("try:\n    while True:\n        print(input())\nexcept EOFError:\n    pass", "a\nb", "a\nb\n"),
        ("import sys\nprint([*map(int, sys.stdin.buffer.read().split())])", "1\n2", "[1, 2]\n"),
        ("import os\nprint(os.read(0, 100).decode())", "a", "a\n"),
        ("print(open(0).read())", "a", "a\n"),
        ("with open('/dev/stdin') as given:\n    print(given.read())\nimport sys\nsys.stdin.read()", "a", "a\n"),
        ("import pathlib\nprint(pathlib.Path('/dev/stdin').read_text())", "a", "a\n"),
        ("open('/dev/stdout', 'w').write('a')", "", "a"),
        ("import sys\nfor line in sys.stdin:\n    print(line, end='')", "a\nb\n", "a\nb\n"),
        ("import os\nos.write(1, b'caf\\xe9')", "", "caf\ufffd"),
        (
            "import atexit, io, sys\nout, sys.stdout = sys.stdout, io.StringIO()\n"
            "atexit.register(lambda: out.write(sys.stdout.getvalue()))\nprint(1)",
            "",
            "1\n",
        ),
        ("import threading\nt = threading.Thread(target=lambda: print(input()))\nt.start()", "late", "late\n"),
        ("import sys\nprint('a', end='')\nsys.stdout.flush()\nimport os\nos._exit(0)", "", "a"),
    ],
)
def test_a_program_reads_prints_and_ends_as_it_likes(sandbox: Sandbox, program: str, given: str, printed: str) -> None:
    """By lines or bytes, by descriptor or name, in a thread or at the very end."""
    run = sandbox.run(program, given)
    assert (run.verdict, run.stdout) == ("ok", printed)


def test_a_weak_sandbox_has_room_for_threads_whatever_its_user_runs() -> None:
    """The kernel counts threads by user: other processes of the same one must not make a right program fail."""
    nobody: Any = {"user": 65534, "group": 65534} if os.getuid() == 0 else {}
    others = [subprocess.Popen(["sleep", "60"], **nobody) for _ in range(40)]
    program = "import threading\nt = threading.Thread(target=lambda: print(1))\nt.start()\nt.join()"
    try:
        run = default_sandbox(weak=True).run(program)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert (run.verdict, run.stdout) == ("ok", "1\n")


def test_memory_is_limited_as_asked() -> None:
    """The same program under two limits."""
    program = "x = bytearray(100 << 20)\nprint(len(x))"
    verdicts = [default_sandbox().run(program, limits=Limits(memory_bytes=size << 20)).verdict for size in (64, 256)]
    assert verdicts == ["memory_limit", "ok"]


def test_the_host_is_left_as_it_was() -> None:
    """No descriptor and no thread more than before, whatever happened inside."""
    box = default_sandbox()
    box.run("pass")
    before = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    programs = ["1 / 0", "while True: print('a' * 10**6)", "import os\nos._exit(9)", "(", "import time\ntime.sleep(99)"]
    waits = Limits(wall_seconds=2.0)
    runs: list[Run] = [box.run(program, limits=waits if "sleep" in program else None) for program in programs]
    with box.serve("def f(): pass", "f") as session:
        session.call([])
    assert [run.verdict for run in runs] == [
        "runtime_error",
        "output_limit",
        "runtime_error",
        "compile_error",
        "time_limit",
    ]
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before
