"""What a reflector is asked about an agent that makes its own prompts: its messages as numbered steps."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage

from ..models.requests import model_message
from ..prompts import Prompts, call_text
from ..types import Message
from .points import Progress, undoable

SHOWN = 4000
"""Characters of a message that the reflector sees, half of them its end."""


def reflect_messages(
    prompts: Prompts, messages: Sequence[AnyMessage], progress: Progress, *, ended: bool, feedback: str
) -> list[Message]:
    """The reflector's prompt: the start, every step with what came of it, what is seen now, what can be undone."""
    points = progress["points"]
    steps = []
    for place, point in enumerate(points):
        until = points[place + 1]["n"] if place + 1 < len(points) else len(messages)
        own = messages[point["n"] : until]
        said = [_said(message) for message in own if isinstance(message, AIMessage)]
        seen = [cut(message.text) for message in own if not isinstance(message, AIMessage)]
        if own:
            steps.append(
                prompts.step.format(number=point["t"], action="\n".join(said), feedback="\n".join(seen) or "(its end)")
            )
    start = messages[: points[0]["n"]] if points else messages
    told = [cut(start[0].text)] if len(start) == 1 else [f"{message.type}: {cut(message.text)}" for message in start]
    status = prompts.failed if ended else prompts.unfinished
    can = [point["t"] for point in undoable(progress)]
    if can and can[0] > 0:
        status += f" Only steps from {can[0]} on can still be undone."
    text = prompts.reflect.format(
        start="\n".join(told),
        steps="\n".join(steps),
        observation=feedback or cut(messages[-1].text if messages else ""),
        status=status,
    )
    return [Message(role="user", content=text)]


def _said(answer: AIMessage) -> str:
    message = model_message(answer)
    calls = [call_text(call) for call in message.get("tool_calls", [])]
    return "\n".join([cut(message["content"])] * bool(message["content"] or not calls) + [cut(c) for c in calls])


def cut(text: str) -> str:
    """The text as a reflector is shown it: of a long one beginning and end."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
