"""The examples in a problem's own words, as test cases that an agent may see."""

import ast
import re
from typing import Any, NamedTuple

from ..sandbox.process import shown


class Arguments(NamedTuple):
    """What a function is called with: plain values."""

    args: list[Any]
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join([*map(shown, self.args), *(f"{name}={shown(value)}" for name, value in self.kwargs.items())])


class Case(NamedTuple):
    """An input and what is expected for it: two texts, or `Arguments` and a plain value."""

    input: Any
    expected: Any


_ANSWER = re.compile(r"[ \t]*(?:#[ \t]*)?(?:==>|=>|==|->|➞|should return|returns|=)[ \t]*(.*)")
_DOCTEST = re.compile(r"[ \t]*\n[ \t]*(.*)")
_SPELLED = {"true": True, "false": False}


def docstring_tests(docstring: str, entry_point: str) -> tuple[Case, ...]:
    """The examples in a docstring: calls on literal arguments whose literal value follows.

    As doctests or in the ways in which HumanEval writes them (``f(1) == 2``, ``=>``, ``➞``, "should return", …). What
    is written otherwise is left out.
    """
    found = []
    for match in re.finditer(rf"(?<![\w(]){re.escape(entry_point)}\(", docstring):
        call, end = _call(docstring, match.start(), match.end())
        if call is None:
            continue
        answer = _ANSWER.match(docstring, end)
        if answer is None and docstring[: match.start()].endswith(">>> "):
            answer = _DOCTEST.match(docstring, end)
        if answer is None:
            continue
        text = answer[1].strip()
        for literal in (text, text.removesuffix("."), text.partition("#")[0].strip()):
            try:
                found.append(Case(_arguments(call), _literal(literal)))
                break
            except (ValueError, SyntaxError, TypeError):
                continue
    return tuple(found)


def _call(text: str, start: int, opened: int) -> tuple[ast.Call | None, int]:
    """The call that begins here, and where it ends."""
    for end in (match.end() for match in re.finditer(r"\)", text[opened : opened + 1000])):
        try:
            call = ast.parse(text[start : opened + end], mode="eval").body
        except (SyntaxError, ValueError):
            continue
        if isinstance(call, ast.Call):
            return call, opened + end
    return None, 0


def _arguments(call: ast.Call) -> Arguments:
    """The literal arguments of a call; ValueError where one is not."""
    kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return Arguments([ast.literal_eval(arg) for arg in call.args], kwargs)


def described_test(row: dict[str, Any]) -> tuple[Case, ...]:
    """The first of LeetCodeDataset's examples: {"input": "nums = [3, 3], target = 6", "output": "[0, 1]"}."""
    try:
        example = row["input_output"][0]
        call = ast.parse(f"f({example['input']})", mode="eval").body
        if not isinstance(call, ast.Call):
            return ()
        return (Case(_arguments(call), ast.literal_eval(example["output"])),)
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
        return ()


def _literal(text: str) -> Any:
    return _SPELLED[text] if text in _SPELLED else ast.literal_eval(text)
