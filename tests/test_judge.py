"""Outputs and values are compared as judges of programming contests do."""

import pytest

from leafe_graph.envs.codecontests.compare_outputs import same_output, same_value
from leafe_graph.envs.sandbox.inside import Unreadable


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("1 2\n", "1 2"),
        ("1\n2\n\n", "1 2 "),
        ("\r\n 1\t2", "1\n2"),
        ("0.3333333", "0.33333333333"),
        ("1000000.4", "1000000.0"),  # within one part in a million
        ("3", "3.0"),
        ("1e-9", "0.0"),
        ("YES", "YES"),
        ("", "\n"),
        ("Yes no", "YES\nNo"),
        ("3.0", "3"),
        ("0.33333", "0.333333"),
        ("2.000009", "2"),
        ("1e9", "1000000000"),
        ("1E9", "1e9"),
        ("007 +5 -0", "7 5 0"),
        ("9" * 5000, "+" + "9" * 5000),
    ],
)
def test_outputs_that_are_the_same(actual: str, expected: str) -> None:
    """White space and capitals do not count; numbers may be near, however they are written."""
    assert same_output(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("1 2 3", "1 2"),
        ("1", "1 2"),
        ("12", "1 2"),
        ("yes", "yess"),
        ("2.00002", "2"),
        ("1000001000.0", "1000000000"),  # one in a million, but a whole number is wanted
        ("9007199254740993", "9007199254740992"),  # equal as floating-point numbers
        ("9" * 5000, "9" * 4999 + "8"),
        ("1e400", "1e500"),
        ("infinity", "1e400"),
        ("1000001", "1000000"),
        ("0.334", "0.333"),
        ("nan", "0.0"),
        ("nan", "1e400"),
        ("inf", "1.0"),
        ("1_0.0", "10.0"),
        ("", "0"),
        ("0x1.0", "1.0"),
    ],
)
def test_outputs_that_differ(actual: str, expected: str) -> None:
    """Words and whole numbers must be equal, and nothing may be missing or too much."""
    assert not same_output(actual, expected)


def test_case_counts_where_it_is_asked_for() -> None:
    """As to APPS' tester; numbers are near all the same."""
    assert not same_output("yes", "YES", any_case=False)
    assert same_output("YES 1E1", "YES 10.0", any_case=False)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (1, 1),
        ([1, 2], (1, 2)),
        ((1, [2.0000000001]), [1, [2.0]]),
        (3, 3.0),
        (3.0, 3),
        ({"a": [1]}, {"a": (1,)}),
        ({1, 2}, {2, 1}),
        (None, None),
        ("x", "x"),
    ],
)
def test_values_that_are_the_same(actual: object, expected: object) -> None:
    """A tuple is as good as a list, and floats may be near."""
    assert same_value(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (True, 1),
        (0, False),
        (1, "1"),
        ([1], [1, 2]),
        ([1, 2], {1, 2}),
        ({"a": 1}, {"a": 1, "b": 2}),
        (None, 0),
        (float("nan"), 1.0),
        (10**400, 1.5),
        (2.1, 2),
        (1000000000.9, 1000000000),  # a whole number is wanted
        ("ab", ["a", "b"]),
        (Unreadable("5"), 5),
        ([Unreadable("5")], [5]),
    ],
)
def test_values_that_differ(actual: object, expected: object) -> None:
    """Types count, and what is no plain value equals nothing."""
    assert not same_value(actual, expected)
