"""What a judge says of an agent's attempt."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether an attempt has done what was asked."""

    success: bool | None
    """None is no opinion: the attempt stands as it is."""
    feedback: str = ""
    """What the reflector is told, such as the output of the tests that failed."""
