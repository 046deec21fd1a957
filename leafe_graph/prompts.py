"""What the models are told, and how their answers are read.

A policy's prompt is the history and nothing else, as chat messages: byte-identical up to any decision point, so that a
server's prefix cache serves all branches that share it. An experience is appended to the *last* message, at call time.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .text import utf8, without_thoughts
from .types import EndReason, Message, ModelMessage, Task, Turn

_BLOCK = "\0"  # stands for a fenced block
_ANNOUNCED = re.compile(
    # The mark of a list or a heading, but not a single "#": that is a comment, where the whole text is a program.
    r"^[ \t]*(?:(?:[-*+]|\d{1,3}[.)]|#{2,6})[ \t]+)?(?P<mark>[*_`]{0,3})action(?:[ \t]+#?\d{1,4})?[ \t]*"
    r"(?:(?P<closed>(?P=mark)[ \t]*[:\uff1a]|[:\uff1a][ \t]*(?P=mark))|[:\uff1a])\s*(?P<action>.+)$",
    flags=re.IGNORECASE | re.MULTILINE,
)
_WRAPPED = re.compile(r"(?P<mark>\*{1,3}|`{1,2}|[\"'])(?P<inside>(?:(?!(?P=mark)).)+)(?P=mark)")
_FENCED = re.compile(r"^```.*?(^```|\Z)", re.DOTALL | re.MULTILINE)


def text_action(message: ModelMessage) -> str:
    """The action in a model's message: its tool call as JSON, else its text.

    Of a text, what a reasoning model thinks aloud is left out (`leafe_graph.text.without_thoughts`), and where the
    model announces its action (``Action: …``, also numbered or in Markdown), the last announcement's line counts,
    without emphasis or quotes around it; a line of a fenced code block announces nothing.
    """
    calls = message.get("tool_calls")
    if calls:
        return call_text(calls[0])
    text = without_thoughts(message["content"])
    announced = [*_ANNOUNCED.finditer(_FENCED.sub(_block, text))]
    if not announced or announced[-1]["action"] == _BLOCK:
        return text.strip()
    action, mark = announced[-1]["action"].strip(), announced[-1]["mark"]
    if announced[-1]["closed"] is None:  # the emphasis goes on to the action's end
        action = action.removesuffix(mark).rstrip()
    while wrapped := _WRAPPED.fullmatch(action):
        action = wrapped["inside"].strip()
    return action


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

    def __post_init__(self) -> None:
        for name, text in self.texts.items():
            object.__setattr__(self, name, utf8(text))

    @property
    def texts(self) -> dict[str, str]:
        """The texts by their names, as a run keeps them: ``Prompts(**texts)`` has them again."""
        return {name: text for name, text in vars(self).items() if isinstance(text, str)}

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
it after the step's words. Sokoban's warm start was taught others, without ``{start}``:
`leafe_graph.envs.sokoban.warm_start.PROMPTS`."""


def said(message: ModelMessage) -> str:
    """A model's message as text for a chat history: its content, then the tool call that was carried out.

    The call is written as `text_action` gives it to the environment, so that who says this text acts the same.
    """
    calls = (message.get("tool_calls") or [])[:1]  # older records also hold those that were not
    return "\n".join([message["content"]] * bool(message["content"] or not calls) + [call_text(c) for c in calls])


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as JSON, the same for equal calls; arguments that are no JSON stand there as the model wrote them."""
    if isinstance(call["args"], str):
        return f'{{"args": {call["args"]}, "name": {json.dumps(call["name"], ensure_ascii=False)}}}'
    return json.dumps({"name": call["name"], "args": call["args"]}, ensure_ascii=False, sort_keys=True)
