"""When a turn or a branch was played and how long that took, in words; empty where the log does not tell."""

import time

from ..types import Branch, Reflection, Time, Turn


def day(moment: float, *, seconds: bool = False) -> str:
    """Date and time, by this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M" + ":%S" * seconds, time.localtime(moment))


def took(span: Time) -> float:
    """Seconds; not less than none where a clock was set back."""
    return max(0.0, span["ended"] - span["started"])


def told_time(record: Branch | Reflection) -> str:
    """Of a branch or a reflection."""
    span = record.get("time")
    return f"{day(span['started'], seconds=True)}, {took(span):.3g} s" if span else ""


def told_turn_time(turn: Turn) -> str:
    """Of a turn: when the model was asked, how long it took, and how long the environment."""
    asked, stepped = turn["message"].get("time"), turn.get("time")
    if asked is None:
        return ""
    told = f"{day(asked['started'], seconds=True)}, the model took {took(asked):.3g} s"
    return told if stepped is None else f"{told}, the environment {took(stepped):.3g} s"
