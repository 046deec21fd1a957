"""What the models are told, and how their answers are read.

A policy's prompt is the history and nothing else, as chat messages: byte-identical up to any decision point, so that a
server's prefix cache serves all branches that share it. An experience is appended to the *last* message, at call time.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .text import utf8
from .types import EndReason, Message, ModelMessage, Task, Turn, Verdict

_BLOCK = "\0"  # stands for a fenced block
_ANNOUNCED = re.compile(r"^[ \t]*action[ \t]*:\s*(.+)$", flags=re.IGNORECASE | re.MULTILINE)
_FENCED = re.compile(r"^```.*?(^```|\Z)", re.DOTALL | re.MULTILINE)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


def text_action(message: ModelMessage) -> str:
    """The action in a model's message: its first tool call as JSON, else its text.

    Of a text, what a reasoning model thinks aloud (``<think>…</think>``) is left out, and where the model announces its
    action (``Action: …``), the last announcement's line counts; a line of a fenced code block announces nothing.
    """
    calls = message.get("tool_calls")
    if calls:
        return json.dumps({"name": calls[0]["name"], "args": calls[0]["args"]}, ensure_ascii=False, sort_keys=True)
    text = _THOUGHT.sub("", message["content"])
    announced = _ANNOUNCED.findall(_FENCED.sub(_block, text))
    return str(announced[-1] if announced and announced[-1] != _BLOCK else text).strip()


def _block(fenced: re.Match[str]) -> str:
    """What stands for a fenced block: the announcement that it is nothing but, else a mark."""
    inside = "\n".join(line for line in fenced[0].splitlines() if not line.startswith("```"))
    return inside if "\n" not in inside and _ANNOUNCED.match(inside) else _BLOCK


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The texts, with ``str.format`` fields; and how an action is read from a message."""

    experience: str = "Experience from an earlier attempt: {experience}"
    """Follows the last observation of a branch's prompts. Fields: experience."""
    reflect: str = (
        "Start:\n{start}\n\nSteps:\n{steps}\n\nNow:\n{observation}\n\n{status} Which step was the mistake, and what "
        'should be done there instead? Answer with JSON: {{"step": number, "experience": "why, and what to do '
        'instead"}}, or {{"step": null}} if all is on track.'
    )
    """What the reflector is asked. Fields: start, steps, observation, status."""
    step: str = "{number}. {action} -> {feedback}"
    """One line of ``steps``. Fields: number (0-based), action, feedback."""
    unfinished: str = "The task is not finished."
    failed: str = "The task failed."
    """``status`` of an attempt that goes on, and of one that ended without success."""
    action: Callable[[ModelMessage], str] = text_action
    """From a model's message to the text at the environment's door."""

    def act_messages(
        self,
        task: Task,
        turns: Sequence[Turn],
        observation: str,
        *,
        experience: str | None = None,
        history: int | None = None,
    ) -> list[Message]:
        """The policy's prompt; without ``experience`` it is also the prompt of a training row.

        ``history``: how many of the earlier turns are shown, the latest ones; None is all, 0 none. With all of them a
        prompt begins with the whole prompt of the turn before; a window of turns moves, and keeps the instruction only.
        """
        messages = [Message(role="system", content=task["instruction"])] if task["instruction"] else []
        for turn in turns if history is None else turns[len(turns) - min(history, len(turns)) :]:
            messages.append(Message(role="user", content=turn["observation"]))
            messages.append(Message(role="assistant", content=said(turn["message"])))
        if experience is not None:
            observation += "\n\n" + self.experience.format(experience=experience)
        messages.append(Message(role="user", content=observation))
        return messages

    def reflect_messages(
        self, task: Task, turns: Sequence[Turn], observation: str, end: EndReason | None
    ) -> list[Message]:
        """The reflector's prompt: the start, every step with the environment's answer, and what is seen now."""
        steps = "\n".join(
            self.step.format(number=t, action=turn["action"], feedback=turn["feedback"]) for t, turn in enumerate(turns)
        )
        text = self.reflect.format(
            start=turns[0]["observation"] if turns else observation,
            steps=steps,
            observation=observation,
            status=self.unfinished if end is None else self.failed,
        )
        messages = [Message(role="system", content=task["instruction"])] if task["instruction"] else []
        return [*messages, Message(role="user", content=text)]


BRIEF = Prompts(
    reflect="{start}\n{steps}\n{status} What was the mistake? Answer with JSON.",
    step="{action} -> {feedback} (step {number})",
)
"""For small models that were taught these texts: short, and with a step's number where one that copies forward finds
it after the step's words."""


def said(message: ModelMessage) -> str:
    """A model's message as text for a chat history: its content, then its tool calls as JSON lines."""
    calls = message.get("tool_calls") or []
    return "\n".join([message["content"]] * bool(message["content"] or not calls) + [json.dumps(c) for c in calls])


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
    text = _THOUGHT.sub("", text).strip()
    found = _json_object(text)
    if found is not None:
        return _judge(*found, turns)
    named = {int(n) for n in _STEP.findall(text)}
    on_track = _ON_TRACK.search(text) is not None
    if on_track and not named:
        return "on_track", None, None
    if on_track or len(named) != 1:
        named = {int(n) for n in _TARGET.findall(text)}
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
