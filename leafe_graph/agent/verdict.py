"""What a judge says of an agent's attempt."""

from typing import Any, NamedTuple

from ..errors import ConfigError


class Verdict(NamedTuple):
    """Whether an attempt has done what was asked."""

    success: bool | None
    """None is no opinion: the attempt stands as it is."""
    feedback: str = ""
    """What the reflector is told, such as the output of the tests that failed."""


def verdict_of(said: Any) -> Verdict:
    """What a judge said, which may be the ``success`` alone.

    Raises:
        ConfigError: it is no verdict.
    """
    if isinstance(said, Verdict):
        return said
    if said is None or isinstance(said, bool):
        return Verdict(said)
    raise ConfigError(f"the judge said {said!r:.80}; expected a Verdict(success, feedback)")
