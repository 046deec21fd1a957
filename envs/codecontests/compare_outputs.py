"""Comparing what a program gave with what was expected, as the data sets' own testers and the contests' judges do."""

import math
import re
from decimal import Decimal
from typing import Any

TOLERANCE = 1e-6
"""Of values that a function returns, and of outputs that are expected as a decimal: relative to what is expected."""
OUTPUT_TOLERANCE = 1e-5
"""Of numbers in outputs, absolute: that of CodeContests' tester (google-deepmind/code_contests, execution/)."""

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)


def same_output(actual: str, expected: str, *, any_case: bool = True) -> bool:
    """Whether two outputs agree token by token; white space between them does not count.

    Two tokens agree if they are the same text, or two whole numbers of the same value, or if one is written with a
    point or an exponent and they are less than 1e-5 apart; one part in a million will do where that is the expected
    one, as the contests' own judges allow. "nan" and "inf" are words.

    Args:
        actual: what the program printed.
        expected: what it should have.
        any_case: take capital and small letters for the same, as CodeContests' tester does; APPS' minds them
            (hendrycks/apps, eval/testing_util.py; it also takes lines and words in another order, which here differ).
    """
    if any_case:
        actual, expected = actual.lower(), expected.lower()
    found, wanted = actual.split(), expected.split()
    return len(found) == len(wanted) and all(map(_same_token, found, wanted))


def _same_token(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    whole = _WHOLE.fullmatch(expected) is not None
    if whole and _WHOLE.fullmatch(actual):
        return Decimal(actual) == Decimal(expected)  # exact, and of any length
    if not _DECIMAL.fullmatch(actual) or not _DECIMAL.fullmatch(expected):
        return False
    wanted = float(expected)
    return abs(float(actual) - wanted) < max(OUTPUT_TOLERANCE, 0 if whole else TOLERANCE * abs(wanted))


def same_value(actual: Any, expected: Any) -> bool:
    """Whether two plain values agree: where a float is expected it may be near; a tuple is as good as a list."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(actual, list | tuple) and len(actual) == len(expected) and all(map(same_value, actual, expected))
        )
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and actual.keys() == expected.keys()
            and all(same_value(actual[key], value) for key, value in expected.items())
        )
    if isinstance(actual, bool) or isinstance(expected, bool):
        return isinstance(actual, bool) and isinstance(expected, bool) and actual == expected
    if isinstance(expected, float):
        return isinstance(actual, int | float) and _close(actual, expected)
    if isinstance(actual, float):
        return isinstance(expected, int) and actual == expected
    return type(actual) is type(expected) and bool(actual == expected)


def _close(actual: float, expected: float) -> bool:
    try:
        return math.isclose(float(actual), float(expected), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except OverflowError:  # an int that no float can hold
        return actual == expected
