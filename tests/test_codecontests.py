"""Interactive coding: programs, feedback, hidden tests, splits, and tasks from files."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import needs
import pytest
from code_rows import ECHO, SUM, TWICE, written

from leafe_graph.envs.codecontests import CodeContestsEnv, expert, program_of, split_of, tasks
from leafe_graph.envs.codecontests.problems import HUMANEVAL, read_problems
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import check_env

pytestmark = needs.world("codecontests")

RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
PUBLIC_ONLY = "```python\nprint(3)\n```"


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """A file of three problems, one of which no solution solves."""
    unsolved = {**SUM, "name": "unsolved", "solutions": {"language": [3], "solution": ["print(1)"]}}
    return written(tmp_path / "problems.jsonl", SUM, unsolved, TWICE, ECHO)


def start(path: Path, **options: Any) -> tuple[CodeContestsEnv, str]:
    """An environment at the first problem of a file."""
    env = CodeContestsEnv(**options)
    (task,) = tasks("test", 1, source=path, whole=True)
    return env, env.reset(options=task["options"])[0]


@pytest.mark.parametrize(
    ("action", "program"),
    [
        ("print(1)", "print(1)"),
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```\nfirst\n```\nbetter:\n```py\nsecond\n```", "second\n"),
        ("```python\nprint(1)\n", "print(1)\n"),
        ("  ```python\nprint('```')\n  ```", "print('```')\n"),
        ("", ""),
        ("<think>\n```python\nprint(0)\n```\nNo.</think>\nprint(1)", "\nprint(1)"),
        ("```python\nprint(0)\n```\nNo.\n</think>\n\n```python\nprint(1)\n```", "print(1)\n"),
        ("<think>\n```python\nprint(0)\n```\nNo, bet", ""),
        ("```python\nprint(1)\n```\nIt prints:\n```\n1\n```", "print(1)\n"),
        ("```Python3\nprint(1)\n```\n```text\n1\n```\n```pytb\nx\n```", "print(1)\n"),
        ("```cpp\nint\n```\n``` py\nprint(1)\n```\n```\n1\n```", "print(1)\n"),
    ],
)
def test_the_program_in_a_message(action: str, program: str) -> None:
    """The last fenced block, closed or not, in Python before others; else the whole text."""
    assert program_of(action) == program


def test_an_example_after_the_function_is_not_the_program() -> None:
    """Where a function is asked for, the last block that defines it counts."""
    draft, better, use = (
        "def f(x):\n    pass\n",
        "class Solution:\n    def f(self, x):\n        return x\n",
        "print(f(2))\n",
    )
    said = "".join(f"```python\n{code}```\n" for code in (draft, better, use))
    assert program_of(said, "Solution().f") == program_of(said, "f") == better
    assert program_of(said, "g") == program_of(said) == use


def test_an_episode_goes_on_until_all_tests_pass(problems: Path) -> None:
    """Wrong, then broken, then right; feedback each time, reward at the end."""
    env, statement = start(problems)
    assert statement == SUM["description"]
    feedback, reward, terminated, truncated, info = env.step("```python\nprint(4)\n```")
    assert feedback.startswith("Wrong answer on public test 1 of 1.")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"valid": True}
    feedback, *_, info = env.step("I do not know.")
    assert feedback.startswith("Compile error.") and info == {"valid": False}
    feedback, reward, terminated, truncated, info = env.step(RIGHT)
    assert (feedback, reward, terminated, truncated) == ("All tests passed.", 1.0, True, False)
    assert info == {"valid": True, "success": True}
    assert env.step(RIGHT)[0] == "The episode is over."


def test_a_hidden_test_ends_the_episode_unless_told_otherwise(problems: Path) -> None:
    """In both cases nothing is told of it."""
    env, _ = start(problems)
    assert env.step(PUBLIC_ONLY) == (
        "Passed the public tests, failed a hidden test.",
        0.0,
        True,
        False,
        {"valid": True, "success": False},
    )
    env, _ = start(problems, end_on_hidden=False, max_steps=2)
    assert env.step(PUBLIC_ONLY)[2:4] == (False, False)
    assert env.step(PUBLIC_ONLY)[2:4] == (False, True)


def test_tasks_come_from_files_whose_solutions_pass(problems: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The problem that its own solution does not solve is left out, and the log says which and why."""
    with caplog.at_level(logging.WARNING):
        found = tasks("train", 3, source=problems, whole=True)
    assert [task["options"]["id"] for task in found] == ["1_A. Sum", "7", "8"]  # type: ignore[index]
    assert f"{problems}, line 2: problem 'unsolved' is left out: none of its solutions passes" in caplog.text
    assert tasks("train", 1, source=problems, whole=True, start=2) == found[2:]
    every = tasks("train", 4, source=problems, whole=True, verify=False)
    assert len({task["id"] for task in every}) == 4
    assert "12" not in json.dumps([(task["instruction"], task["options"]) for task in every]).replace(str(problems), "")
    for task in found:
        assert CodeContestsEnv().reset(options=task["options"])[0]
        (action,) = expert(task)
        env = CodeContestsEnv()
        env.reset(options=task["options"])
        assert env.step(action)[4]["success"]
    with pytest.raises(ConfigError, match="has 3 problems in train from start=0 on, asked for 9"):
        tasks("train", 9, source=problems, whole=True)
    unsolved = next(task for task in every if task["options"]["id"] == "unsolved")  # type: ignore[index]
    with pytest.raises(ConfigError, match="no solution of 'unsolved' passes"):
        expert(unsolved)


def test_splits_hold_every_problem_once() -> None:
    """HumanEval in three, by the statement; hidden tests are in no task."""
    sizes = Counter(map(split_of, read_problems(HUMANEVAL)))
    assert sizes == {"train": 125, "validation": 23, "test": 16}
    found = [task for split, size in sizes.items() for task in tasks(split, size)]
    assert len({task["id"] for task in found}) == 164
    assert "assert" not in json.dumps(found)


def test_the_contract_holds(problems: Path) -> None:
    """Same story again, snapshots, bad actions, on a problem of standard input."""
    found = tasks("test", 1, source=problems, whole=True)
    check_env(lambda: CodeContestsEnv(max_steps=3), tasks=found, actions=["print(4)", RIGHT])


def test_a_snapshot_is_exact(problems: Path) -> None:
    """The number of steps and the end come back, in another instance."""
    env, _ = start(problems, max_steps=2)
    env.step(PUBLIC_ONLY.replace("3", "4"))
    saved = env.snapshot()
    story = [env.step("print(5)"), env.step("print(5)")]
    other, _ = start(problems, max_steps=2)
    for instance in (env, other):
        instance.restore(saved)
        assert [instance.step("print(5)"), instance.step("print(5)")] == story
    assert story[0][3] and story[1][0] == "The episode is over."
    for bad in (b"", b"sokoban1", b"{}", b'{"codecontests": 2, "steps": 0, "end": "-"}'):
        with pytest.raises(EnvError, match="not a CodeContests snapshot"):
            env.restore(bad)


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    """Tasks that are made after the change are played; older ones, once they are not remembered, are refused."""
    for text in ("first", "second"):
        env, statement = start(written(tmp_path / "problems.jsonl", {**SUM, "description": text}))
        assert statement == text and env.step(RIGHT)[4]["success"]


def test_wrong_options_are_named(problems: Path) -> None:
    """What was seen, what was expected, what to do."""
    (task,) = tasks("test", 1, source=problems, whole=True)
    env = CodeContestsEnv()
    with pytest.raises(ConfigError, match="expected source, row, id, digest"):
        env.reset(options={"problem": 1})
    written(problems, ECHO)
    with pytest.raises(ConfigError, match="the file has changed since the tasks were made; make them again"):
        env.reset(options={**task["options"], "row": 0, "digest": "other"})  # type: ignore[dict-item]
    with pytest.raises(EnvError, match="call reset first"):
        env.step("x")
    for wrong in ({"max_steps": 0}, {"time_factor": 0}):
        with pytest.raises(ConfigError, match="expected"):
            CodeContestsEnv(**wrong)  # type: ignore[arg-type]
    assert CodeContestsEnv().reset(seed=3) == CodeContestsEnv().reset(seed=3)
