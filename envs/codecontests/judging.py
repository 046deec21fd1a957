"""Judging a program on a problem: the public tests up to the first that fails, then the hidden ones.

Hidden tests never leave the process that judges: into the sandbox go inputs and arguments one at a time, out of it come
outputs and plain values, and these are compared outside. HumanEval's tests are code (``check``); they run in a sandbox
of their own and call the program's function by message (`leafe_graph.envs.sandbox.Sandbox.check`).
"""

import re
from typing import Any, NamedTuple

from leafe_graph.errors import EnvError

from ..sandbox import Limits, Run, Sandbox, Session
from ..sandbox.inside import encode
from ..sandbox.process import shown, with_cpu, with_output
from .compare_outputs import same_output, same_value
from .problems import Problem


class Judgement(NamedTuple):
    """What became of a program."""

    passed: bool
    feedback: str
    """For the agent; says of a hidden test only that it failed."""
    ran: bool
    """Whether it gave an answer at all: it compiled and did not crash."""
    hidden_failed: bool = False
    """Whether it passed the public tests and failed a hidden one."""
    by_clock: bool = False
    """Whether it was stopped by the clock, which on a busy machine may say nothing of the program."""


def judge(problem: Problem, program: str, sandbox: Sandbox, *, time_factor: float = 5.0) -> Judgement:
    """Run the public tests up to the first that fails, then the hidden ones.

    ``time_factor``: a Python program may take so many times the problem's own limit, which is meant for compiled ones.
    """
    limits = with_output(sandbox.limits, _longest_answer(problem))
    if problem.cpu_seconds is not None:
        limits = with_cpu(limits, problem.cpu_seconds * time_factor)
    if problem.entry_point is None:
        return _judge_output(problem, program, sandbox, limits)
    with sandbox.serve(program, problem.entry_point, prelude=problem.prelude, limits=limits) as session:
        return _judge_function(problem, problem.entry_point, session, sandbox)


def _longest_answer(problem: Problem) -> int:
    """Bytes that the longest answer takes which the tests expect."""
    expected = [test.expected for test in (*problem.public, *problem.hidden)]
    if problem.entry_point is not None:
        return max((len(encode(value)) for value in expected), default=0)
    return max((len(text.encode(errors="replace")) for text in expected), default=0)


_HIDDEN_FAILED = Judgement(False, "Passed the public tests, failed a hidden test.", True, hidden_failed=True)
ALL_PASSED = "All tests passed."
_ENDED = {
    "compile_error": "Compile error",
    "runtime_error": "Runtime error",
    "time_limit": "Time limit exceeded",
    "memory_limit": "Memory limit exceeded",
    "output_limit": "Output limit exceeded",
}


def _judge_output(problem: Problem, program: str, sandbox: Sandbox, limits: Limits) -> Judgement:
    for number, test in enumerate(problem.public, start=1):
        run = sandbox.run(program, test.input, limits=limits)
        if run.verdict == "compile_error":
            return _ended(run, "")
        where = _where(number, problem)
        told = _shown(test.input, test.expected)
        if run.verdict != "ok":
            return _ended(run, where, told)
        if not same_output(run.stdout, test.expected, any_case=problem.any_case):
            return Judgement(False, f"Wrong answer{where}.\n{told}\nActual output:\n{clip(run.stdout)}", True)
    for number, test in enumerate(problem.hidden):
        run = sandbox.run(program, test.input, limits=limits)
        if run.verdict == "compile_error" and number == 0 and not problem.public:
            return _ended(run, "")
        if run.by_clock:
            return _HIDDEN_FAILED._replace(by_clock=True)
        if run.verdict != "ok" or not same_output(run.stdout, test.expected, any_case=problem.any_case):
            return _HIDDEN_FAILED
    return Judgement(True, ALL_PASSED, True)


def _judge_function(problem: Problem, entry_point: str, session: Session, sandbox: Sandbox) -> Judgement:
    if not session.ready:
        return _ended(session.finish(), "")
    try:
        for number, test in enumerate(problem.public, start=1):
            where = _where(number, problem)
            told = _shown(f"{entry_point}({test.input})", shown(test.expected))
            try:
                value, error = session.call(*test.input)
            except EOFError:
                return _ended(session.finish(), where, told)
            if error is not None:
                return Judgement(False, f"Runtime error{where}.\n{told}\n{clip(error)}", False)
            if not _agrees(problem, value, test.expected):
                return Judgement(False, f"Wrong answer{where}.\n{told}\nActual output:\n{clip(shown(value))}", True)
        for test in problem.hidden:
            value, error = session.call(*test.input)
            if error is not None or not _agrees(problem, value, test.expected):
                return _HIDDEN_FAILED
    except EOFError:
        return _HIDDEN_FAILED._replace(by_clock=session.process.by_clock)
    if problem.check and not sandbox.check(problem.check, entry_point, session, prelude=problem.prelude):
        return _HIDDEN_FAILED._replace(by_clock=session.process.by_clock)
    return Judgement(True, ALL_PASSED, True)


def _agrees(problem: Problem, value: Any, expected: Any) -> bool:
    if same_value(value, expected):
        return True
    return problem.wrapped and isinstance(expected, list) and len(expected) == 1 and same_value(value, expected[0])


def _where(number: int, problem: Problem) -> str:
    return f" on public test {number} of {len(problem.public)}"


def _shown(given: str, expected: str) -> str:
    return f"Input:\n{clip(given)}\nExpected output:\n{clip(expected)}"


def _ended(run: Run, where: str, told: str = "") -> Judgement:
    """A program that did not come to its end."""
    verdict = "runtime_error" if run.verdict == "ok" else run.verdict  # it ended where it should have served
    said = clip(run.stderr) if verdict in ("compile_error", "runtime_error", "memory_limit") else ""
    if not said and verdict == "runtime_error":
        said = f"The program ended with exit code {run.exit_code}."
    parts = [f"{_ENDED[verdict]}{where}.", told, said]
    return Judgement(
        False, "\n".join(filter(None, parts)), verdict not in ("compile_error", "runtime_error"), by_clock=run.by_clock
    )


_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,16}\b")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clip(text: str, limit: int = 2000) -> str:
    """The text for an observation.

    Addresses, which differ from run to run, are blanked; control characters, which a terminal would obey, are written
    as escapes; the middle of a long text is left out.
    """
    text = _ADDRESS.sub(" at 0x…", text.replace("\r\n", "\n").rstrip("\n"))
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[len(text) - limit // 2 :]}"


def reference(problem: Problem, sandbox: Sandbox, *, tries: int = 3) -> str | None:
    """The first of the problem's own solutions that passes; None where none of the first ``tries`` does.

    Raises:
        EnvError: none passes, and the clock stopped one: which problems there are must not depend on a machine's load.
    """
    by_clock = False
    for solution in problem.solutions[:tries]:
        judgement = judge(problem, solution, sandbox)
        if judgement.passed:
            return solution
        by_clock = by_clock or judgement.by_clock
    if by_clock:
        raise EnvError(
            f"problem {problem.id!r}: its own solution met the limit by the clock (wall_seconds), not one on processor "
            "time: it waits, or the machine is too busy to tell. Try again when it is less busy, or pass verify=False"
        )
    return None
