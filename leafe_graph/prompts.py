"""What the models are told, and how their answers are read.

A policy's prompt is the history and nothing else, as chat messages: byte-identical up to any decision point, so that a
server's prefix cache serves all branches that share it. An experience is appended to the *last* message, at call time.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .types import EndReason, Message, ModelMessage, Task, Turn

_BLOCK = "\0"  # stands for a fenced block
_ANNOUNCED = re.compile(r"^[ \t]*action[ \t]*:\s*(.+)$", flags=re.IGNORECASE | re.MULTILINE)
_FENCED = re.compile(r"^```.*?(^```|\Z)", re.DOTALL | re.MULTILINE)
THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
"""What a reasoning model thinks aloud."""


def text_action(message: ModelMessage) -> str:
    """The action in a model's message: its first tool call as JSON, else its text.

    Of a text, what a reasoning model thinks aloud (``<think>…</think>``) is left out, and where the model announces its
    action (``Action: …``), the last announcement's line counts; a line of a fenced code block announces nothing.
    """
    calls = message.get("tool_calls")
    if calls:
        return json.dumps({"name": calls[0]["name"], "args": calls[0]["args"]}, ensure_ascii=False, sort_keys=True)
    text = THOUGHT.sub("", message["content"])
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
    """A model's message as text for a chat history: its content, then its tool calls as JSON lines."""
    calls = message.get("tool_calls") or []
    return "\n".join([message["content"]] * bool(message["content"] or not calls) + [json.dumps(c) for c in calls])
