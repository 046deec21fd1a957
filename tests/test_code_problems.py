"""Rows of programming problems are read, checked and judged."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import needs
import pytest
from code_rows import ECHO, SUM, TWICE, TWO_SUM, written

from leafe_graph.envs.codecontests.judging import judge, reference
from leafe_graph.envs.codecontests.problems import HUMANEVAL, Problem, find_problem, read_problems
from leafe_graph.envs.codecontests.public_tests import Arguments, Case, docstring_tests
from leafe_graph.envs.sandbox import Limits, Sandbox, default_sandbox
from leafe_graph.errors import ConfigError, EnvError

pytestmark = needs.world("codecontests")


def one(tmp_path: Path, row: dict[str, Any]) -> Problem:
    """The row as a problem."""
    return next(read_problems(written(tmp_path / "one.jsonl", row)))


def test_every_solution_of_humaneval_passes() -> None:
    """All 164, on their public examples and on their own check, in the sandbox."""
    problems = list(read_problems(HUMANEVAL))
    with ThreadPoolExecutor(2) as pool:
        judged = list(pool.map(lambda problem: judge(problem, problem.solutions[0], default_sandbox()), problems))
    failed = {problem.id: found.feedback for problem, found in zip(problems, judged, strict=True) if not found.passed}
    assert failed == {} and len(problems) == 164
    assert sum(bool(problem.public) for problem in problems) == 138
    assert all(problem.check and not problem.hidden for problem in problems)


def test_humaneval_refuses_a_wrong_program_for_each_problem() -> None:
    """A function that returns nothing fails every tenth problem, by the hidden check alone too."""
    for problem in list(read_problems(HUMANEVAL))[::10]:
        name = problem.entry_point
        for public in (problem.public, ()):
            stripped = Problem(**{**vars(problem), "public": public})
            assert not judge(stripped, f"def {name}(*args):\n    return ...", default_sandbox()).passed, problem.id


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (">>> f([1, 2], 'a')\n[1]", [([[1, 2], "a"], [1])]),
        ("f(1) == 2\nf(2) => 3 and so on", [([1], 2)]),
        ("f(1) ➞ True\nf(2)==>false\nf(3) -> 'x'\n", [([1], True), ([2], False), ([3], "x")]),
        ("f('a)b') returns (1, 2).", [(["a)b"], (1, 2))]),
        ("f(5) should return [1, 5] # for a reason", [([5], [1, 5])]),
        ("xf(1) == 2, g(f(1)) == 2, f(x) == 3, f(1) + 1, f(2", []),
        (">>> f(1)\n>>> f(2)\n3", [([2], 3)]),
        ("f(n=1) == 2", [({"n": 1}, 2)]),
    ],
)
def test_examples_are_found_in_docstrings(docstring: str, expected: list[Any]) -> None:
    """Doctests, and the many ways in which HumanEval writes them; what is unclear is left out."""
    wanted = [Case(Arguments([], i) if isinstance(i, dict) else Arguments(i, {}), o) for i, o in expected]
    assert list(docstring_tests(docstring, "f")) == wanted


def test_codecontests_rows(tmp_path: Path) -> None:
    """Public, private and generated tests, the time limit, and the Python 3 solutions."""
    problem = one(tmp_path, SUM)
    assert (problem.id, problem.statement, problem.cpu_seconds) == ("1_A. Sum", SUM["description"], 1.5)
    assert problem.public == (("1 2\n", "3\n"),)
    assert problem.hidden == (("5 7\n", "12\n"), ("-1 1\n", "0\n"), ("10 -3\n", "7\n"))
    assert len(problem.solutions) == 2 and problem.entry_point is None
    assert reference(problem, default_sandbox()) == SUM["solutions"]["solution"][2]  # type: ignore[index]


@pytest.mark.parametrize("row", [SUM, TWICE, ECHO, TWO_SUM], ids=["CodeContests", "APPS function", "APPS", "LeetCode"])
def test_a_row_is_judged(tmp_path: Path, row: dict[str, Any]) -> None:
    """Its solution passes; a program for another problem does not."""
    problem = one(tmp_path, row)
    assert problem.public and (problem.hidden or problem.check)
    assert reference(problem, default_sandbox()) is not None
    assert not judge(problem, "def twice(xs):\n    return xs\nprint(9)", default_sandbox()).passed


@pytest.mark.parametrize("row", [SUM, TWICE, TWO_SUM], ids=["output", "values", "check"])
@pytest.mark.parametrize("public", [True, False])
def test_a_solution_that_the_clock_stops_is_not_called_wrong(row: dict[str, Any], public: bool, tmp_path: Path) -> None:
    """It is an error: which problems a file has must not depend on how busy the machine is."""
    problem = one(tmp_path, row)
    problem = replace(problem, cpu_seconds=None, public=problem.public if public else ())
    wait = "import time\ndef twice(*args, **kwargs):\n    time.sleep(600)\nclass Solution:\n    twoSum = twice\n"
    problem = replace(problem, solutions=(f"{wait}if __name__ == '__main__':\n    twice()",))
    with pytest.raises(EnvError, match="by the clock"):
        reference(problem, Sandbox(limits=Limits(wall_seconds=2.0)))


def test_apps_rows_are_read_as_their_authors_have_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Results in lists of one, inputs as lists of lines, numbers as keys, and rows without tests."""
    wrapped = {"fn_name": "first", "inputs": [[{"1": 2}], [{"3": 4}]], "outputs": [[2], [{"5": 6}]]}
    rows = [
        {**TWICE, "input_output": ""},
        {**TWICE, "input_output": json.dumps({"inputs": [], "outputs": []})},
        {**TWICE, "input_output": json.dumps(wrapped)},
        {**ECHO, "input_output": {"inputs": [["a", "b"]], "outputs": [["a", "b", ""]]}},
        {**ECHO, "input_output": None},
    ]
    path = written(tmp_path / "apps.jsonl", *rows)
    function, lines = read_problems(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}, line {number}: left out: the row has no tests" for number in (1, 2, 5)
    ]
    assert find_problem(str(path), 0) is None and find_problem(str(path), 3) == lines
    assert function.public[0].input.args == [{1: 2}] and function.hidden[0].expected == [{5: 6}]
    right = "def first(x):\n    return 2 if x == {1: 2} else {5: 6}"
    for program in (right, f"{right}\nunwrapped = first\nfirst = lambda x: [unwrapped(x)]"):
        assert judge(function, program, default_sandbox()).passed
    assert not judge(function, "def first(x):\n    return 3", default_sandbox()).passed
    assert lines.public == (("a\nb", "a\nb\n"),)


def test_outputs_are_compared_as_the_data_sets_own_testers_do(tmp_path: Path) -> None:
    """CodeContests' ignores case and minds no way of writing a number, in public and hidden tests; APPS' minds case."""
    tests = {"input": ["1", "2"], "output": ["YES 2\n", "NO 0.333333\n"]}
    row: dict[str, Any] = {**SUM, "public_tests": tests, "private_tests": tests, "generated_tests": None}
    row["solutions"] = {"language": [3], "solution": ["print(['yes 2.0', 'no 0.33333'][int(input()) - 1])"]}
    assert reference(one(tmp_path, row), default_sandbox()) is not None
    apps = {**ECHO, "input_output": {"inputs": ["1"], "outputs": ["YES 2"]}}
    assert judge(one(tmp_path, apps), "print('YES 2.0')", default_sandbox()).passed
    said = judge(one(tmp_path, apps), "print('yes 2.0')", default_sandbox()).feedback
    assert said.startswith("Wrong answer")


def test_inputs_have_the_line_ends_of_the_machine(tmp_path: Path) -> None:
    """A program that compares whole lines is not wrong because a row was written on Windows."""
    program = "print(len(input()), len(input()))"
    tests = {"input": ["ab\r\nc\r\n"], "output": ["2 1\r\n"]}
    row: dict[str, Any] = {**SUM, "public_tests": tests, "private_tests": tests, "generated_tests": None}
    assert judge(one(tmp_path, row), program, default_sandbox()).passed
    for inputs in (tests["input"], [["ab\r", "c\r\n"]]):
        row = {**ECHO, "input_output": {"inputs": inputs, "outputs": tests["output"]}}
        assert judge(one(tmp_path, row), program, default_sandbox()).passed


BIG = 10**5000
HUGE = f"1{'0' * 5000}"


def test_integers_of_thousands_of_digits_are_read_and_judged(tmp_path: Path) -> None:
    """In tests of functions, as JSON in a text or not, and the rows around are read as well; in feedback, too."""
    path = tmp_path / "apps.jsonl"
    held = f'{{"fn_name": "f", "inputs": [[{HUGE}], [-{HUGE}]], "outputs": [[{HUGE}], [-{HUGE}]]}}'
    rows = [json.dumps(row) for row in (ECHO, {**TWICE, "id": "text", "input_output": held}, ECHO)]
    rows.insert(2, f'{{"id": {HUGE}, "question": "f", "input_output": {held}}}')
    path.write_text("\n".join(rows), encoding="utf-8")
    found = list(read_problems(path))
    assert len(found) == 4 and len({problem.digest for problem in found}) == 3
    for problem in found[1:3]:
        assert problem.public[0] == (([BIG], {}), [BIG])
        assert judge(problem, "def f(x):\n    return int(str(x))", default_sandbox()).passed
        said = judge(problem, "def f(x):\n    return [x, x + 1]", default_sandbox()).feedback
        assert said.startswith(f"Wrong answer on public test 1 of 1.\nInput:\nf({hex(BIG)[:100]}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[" * 100 + "]" * 100, "values nested at most 90 deep"),
        ("[" * 100_000 + "]" * 100_000, "expected JSON (nested too deep)"),
        ("NaN", "a list of arguments for each input"),
    ],
)
def test_a_row_with_values_that_no_program_can_be_given_is_named(tmp_path: Path, given: str, said: str) -> None:
    """File, line and field; not a RecursionError while a program is judged."""
    held = f'{{"fn_name": "f", "inputs": [{given}], "outputs": [1]}}'
    with pytest.raises(ConfigError, match=re.escape(said)):
        one(tmp_path, {**TWICE, "input_output": held})
    path = tmp_path / "nested.jsonl"
    path.write_text(f'{{"input_output": {"[" * 100_000}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"nested\.jsonl, line 1: not JSON: nested too deep"):
        list(read_problems(path))


def test_a_program_may_answer_as_much_as_is_expected(tmp_path: Path) -> None:
    """Whatever the limit on output is; what many calls of a function answer is not counted together."""
    small = Sandbox(limits=Limits(output_bytes=100_000))
    tests = {"input": ["100000\n"], "output": ["1\n" * 100_000]}
    program = "print('1\\n' * int(input()))"
    for public in (tests, {"input": [], "output": []}):
        row = {**SUM, "public_tests": public, "private_tests": tests, "generated_tests": None}
        assert judge(one(tmp_path, row), program, small).passed
    assert judge(one(tmp_path, row), "while True: print(1)", small).feedback.startswith("Passed")
    assert judge(one(tmp_path, {**row, "public_tests": tests}), "while True: print(1)", small).feedback.startswith(
        "Out"
    )
    for counts in ([20_000] * 12, [1, 90_000]):
        lists = [list(range(count)) for count in counts]
        row = {**TWICE, "input_output": {"fn_name": "up", "inputs": [[count] for count in counts], "outputs": lists}}
        assert judge(one(tmp_path, row), "def up(n):\n    return list(range(n))", small).passed


def test_feedback_shows_the_first_public_test_that_fails(tmp_path: Path) -> None:
    """Input, expected and actual output; the traceback; or what limit was met."""
    problem, box = one(tmp_path, SUM), default_sandbox()
    shown = "on public test 1 of 1.\nInput:\n1 2\nExpected output:\n3\n"
    assert judge(problem, "print(4)", box).feedback == f"Wrong answer {shown}Actual output:\n4"
    crash = judge(problem, "x = input()\nprint(x / 2)", box).feedback
    assert crash.startswith(f'Runtime error {shown}Traceback (most recent call last):\n  File "main.py", line 2')
    assert judge(problem, "while True: pass", box, time_factor=0.5).feedback == f"Time limit exceeded {shown}".strip()
    assert judge(problem, "x = 'a' * 10**9", box).feedback.startswith(f"Memory limit exceeded {shown}Traceback")
    assert judge(problem, "while True: print(1)", box).feedback == f"Output limit exceeded {shown}".strip()
    broken = judge(problem, "print(", box)
    assert broken.feedback.startswith('Compile error.\n  File "main.py", line 1') and not broken.ran
    hidden = judge(problem, "print(3)", box)
    assert hidden[:4] == (False, "Passed the public tests, failed a hidden test.", True, True)
    left = judge(problem, "import os\nprint(3, flush=True)\nos._exit(1)", box).feedback
    assert left == f"Runtime error {shown}The program ended with exit code 1."


def test_feedback_on_functions(tmp_path: Path) -> None:
    """The call, the value that was expected and the one that came, or what was raised."""
    problem, box = one(tmp_path, TWICE), default_sandbox()
    assert judge(problem, "def twice(xs):\n    return xs", box).feedback == (
        "Wrong answer on public test 1 of 1.\nInput:\ntwice([1, 2])\nExpected output:\n[2, 4]\nActual output:\n[1, 2]"
    )
    assert judge(problem, "def twice(xs):\n    return object()", box).feedback.endswith("<object object at 0x…>")
    assert judge(problem, "def twice(xs):\n    raise KeyError(xs[0])", box).feedback.endswith("KeyError: 1")
    assert judge(problem, "def other(xs):\n    pass", box).feedback == (
        "Runtime error.\nNameError: the program defines no 'twice'"
    )
    assert judge(problem, "def twice(xs):\n    return [2 * x for x in xs[:2]] if xs else None", box).hidden_failed
    long = judge(problem, "def twice(xs):\n    return [7] * 10**5", box).feedback
    assert len(long) < 3000 and "characters left out" in long


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    """JSONL, compressed and Parquet; from any row."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='pip install ".[codecontests]"')
    import pyarrow

    rows = [{**SUM, "name": f"sum {i}"} for i in range(5)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    files = [tmp_path / "a.parquet", written(tmp_path / "a.jsonl", *rows), written(tmp_path / "a.jsonl.gz", *rows)]
    for path in files:
        assert [(problem.id, problem.row) for problem in read_problems(path)] == [(f"sum {i}", i) for i in range(5)]
        for row in range(5):
            found = find_problem(str(path), row)
            assert found is not None and (found.id, found.row) == (f"sum {row}", row)
        assert find_problem(str(path), 5) is None
        assert len({problem.digest for problem in read_problems(path)}) == 5


def without(row: dict[str, Any], field: str) -> dict[str, Any]:
    """The row without a field."""
    return {key: value for key, value in row.items() if key != field}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "line 2: expected an object, found"),
        ({"name": "x"}, "line 2, field 'public_tests': expected it, or test, or input_output, found"),
        ({**SUM, "public_tests": {"input": [1], "output": ["1"]}}, "line 2, field 'public_tests': expected"),
        ({**SUM, "private_tests": {"input": ["1"], "output": []}}, "field 'private_tests': expected as many outputs"),
        ({**SUM, "solutions": {"language": [3], "solution": []}}, "field 'solutions': expected as many languages"),
        ({**SUM, "time_limit": "fast"}, "field 'time_limit': expected seconds, found 'fast'"),
        ({**SUM, "time_limit": float("nan")}, "field 'time_limit': expected seconds, found nan"),
        (
            {**SUM, "time_limit": {"seconds": float("inf")}},
            "field 'time_limit': expected seconds, found {'seconds': inf}",
        ),
        ({**SUM, "time_limit": {"seconds": "2"}}, "field 'time_limit': expected numbers of seconds and nanos, found"),
        (
            {**SUM, "time_limit": {"seconds": 10**400}},
            "field 'time_limit': expected numbers of seconds and nanos, found",
        ),
        ({**SUM, "description": 3.5}, "field 'description': expected a text, found 3.5"),
        (without(SUM, "name"), "field 'name': expected a text, found None"),
        ({**TWICE, "input_output": "{"}, "field 'input_output': expected JSON"),
        ({**TWICE, "input_output": {"inputs": [1], "outputs": [1]}}, "field 'input_output': expected texts in inputs"),
        ({**TWICE, "input_output": {"inputs": [], "outputs": [1]}}, "field 'input_output': expected as many outputs"),
        ({**TWICE, "input_output": {"fn_name": "f", "inputs": [1], "outputs": [1]}}, "a list of arguments for each"),
        ({**TWO_SUM, "prompt": "def ("}, "field 'prompt': expected Python"),
        (without(TWO_SUM, "entry_point"), "field 'entry_point': expected a text, found None"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    """File, line and field, what was expected and what was found."""
    path = written(tmp_path / "bad.jsonl", ECHO, row)
    with pytest.raises(ConfigError) as caught:
        list(read_problems(path))
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    """Not there, of an unknown kind, or not what its name says."""
    for name, content, message in (
        ("a.csv", b"", "expected 'humaneval', or a file"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl.gz", b"plain", "cannot be read"),
        ("a.parquet", b"plain", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            list(read_problems(tmp_path / name))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_problems(tmp_path / "none.jsonl"))
