"""Comparing what a program gave with what was expected, as judges of programming contests do."""

import math
from typing import Any

TOLERANCE = 1e-6
"""Absolute or relative, whichever is more generous."""


def same_output(actual: str, expected: str) -> bool:
    """Whether two outputs agree token by token: white space between them does not count, numbers may be near.

    A token counts as a floating-point number where the expected one is written as such ("0.50", "1e-3"); whole numbers
    and words must be equal.
    """
    found, wanted = actual.split(), expected.split()
    return len(found) == len(wanted) and all(map(_same_token, found, wanted))


def _same_token(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    if not any(sign in expected for sign in ".eE") or not _numeric(expected) or not _numeric(actual):
        return False
    return _near(float(actual), float(expected))


def _numeric(token: str) -> bool:
    """Written as a number; "nan", "inf" and "1_000" are words."""
    if not all(character in "+-.eE0123456789" for character in token):
        return False
    try:
        float(token)
    except ValueError:
        return False
    return True


def _near(actual: float, expected: float) -> bool:
    return math.isclose(actual, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


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
        return _near(float(actual), float(expected))
    except OverflowError:  # an int that no float can hold
        return actual == expected
