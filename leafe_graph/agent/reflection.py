"""How a reflection is read."""

import json
import re
from typing import Any

from ..text import utf8, without_thoughts
from ..types import Verdict

_STEP_KEYS = ("step", "decision_point", "decision_step", "tau", "turn")


_EXPERIENCE_KEYS = ("experience", "lesson", "advice", "hint")


_STEP = re.compile(  # not of a range or list ("step 2-4", "step 2 or 3"), not a part of a number
    r"\b(?:step|turn|decision(?:\s{1,3}point)?)\s{0,3}(?:number\s{0,3})?[#:]?\s{0,3}(\d{1,15})\b"
    r"(?!\.\d|\s{0,3}(?:[-\u2013\u2014/,&]|to|through|or|and)\s{0,3}\d)",
    re.IGNORECASE,
)


_TARGET = re.compile(
    r"\b(?:rewind|back|return|revert|mistake|wrong|error|redo)\b[^.\n]{0,60}?" + _STEP.pattern, re.IGNORECASE
)


_ON_TRACK = re.compile(r"(?<!not )(?<!n't )(?<!back )\bon track\b", re.IGNORECASE)


def parse_reflection(text: str, turns: int) -> tuple[Verdict, int | None, str | None]:
    """Read a reflection: the verdict, the 0-based decision point and the experience.

    Accepted: JSON (also fenced or inside prose) with a step and an experience; prose that names exactly one step, or
    one step to go back to; "on track". A decision point must be one of the ``turns`` that were played, else the verdict
    is ``out_of_range``; what cannot be understood without guessing is ``unparsed``. Never raises.
    """
    text = without_thoughts(text).strip()
    found = _json_object(text)
    if found is not None:
        return _judge(*found, turns)
    plain = re.sub("[*`]", "", text)  # without Markdown's marks: "**Step:** 4"
    named = {int(n) for n in _STEP.findall(plain)}
    on_track = _ON_TRACK.search(plain) is not None
    if on_track and not named:
        return "on_track", None, None
    if on_track or len(named) != 1:
        named = {int(n) for n in _TARGET.findall(plain)}
    return _judge(named.pop(), text, turns) if len(named) == 1 else ("unparsed", None, None)


def _judge(step: int | None, experience: str | None, turns: int) -> tuple[Verdict, int | None, str | None]:
    if step is None:
        return "on_track", None, None
    if step == _NOT_A_STEP or not experience:
        return "unparsed", None, experience
    if not 0 <= step < turns:
        return "out_of_range", step if abs(step) < 2**53 else None, experience  # what JSON and checkpoints can hold
    return "rewind", step, experience


_NOT_A_STEP = -(10**9)


def _json_object(text: str) -> tuple[int | None, str | None] | None:
    """Step and experience of the last JSON object in the text that has a step; None where there is none."""
    decoder = json.JSONDecoder()
    found: tuple[int | None, str | None] | None = None
    position = text.find("{")
    while position != -1:
        try:
            value, end = decoder.raw_decode(text, position)
        except RecursionError:  # nested too deep to mean anything
            break
        except ValueError:
            position = text.find("{", position + 1)
            continue
        fields: dict[str, Any] = {k.strip().lower(): v for k, v in value.items()}
        step_key = next((k for k in _STEP_KEYS if k in fields), None)
        texts = (utf8(fields[k]).strip() for k in _EXPERIENCE_KEYS if isinstance(fields.get(k), str))
        if str(fields.get("on_track")).strip().lower() in ("true", "yes"):
            found = (None, None)
        elif step_key is not None:
            found = (_step_number(fields[step_key]), next(filter(None, texts), None))
        else:  # perhaps an object around the one that counts
            end = position + 1
        position = text.find("{", end)
    return found


def _step_number(value: Any) -> int | None:
    """A JSON value as a step: None for null, `_NOT_A_STEP` for what is no whole number."""
    if value is None:
        return None
    if isinstance(value, bool):
        return _NOT_A_STEP
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        if value.strip().lower() in ("none", "null", "on track", "on_track"):
            return None
        match = re.fullmatch(r"\s*(?:(?:step|turn|decision point)\s*#?)?\s*(-?\d{1,15})\s*", value, re.IGNORECASE)
        if match:
            return int(match[1])
    return _NOT_A_STEP
