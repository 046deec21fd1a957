"""Messages of agents that make their own prompts, as rows hold them: with tool calls, in TRL's form."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from ..prompts import Prompts, call_text, said
from ..text import without_thoughts
from ..types import MESSAGES, CalledFunction, Example, Message, ToolCall, Turn


class NoRow(ValueError):
    """What was asked or said is nothing that a row can hold."""


def numbered(messages: Iterable[Message]) -> list[Message]:
    """The messages with their calls numbered in order, and what answers a call by that number.

    Raises:
        NoRow: a content is more than text, or a call's arguments are no object.
    """
    found: list[Message] = []
    ids: dict[str, str] = {}
    numbers = itertools.count()
    for message in messages:
        held = Message(role=message["role"], content=_text(message["content"]))
        if calls := message.get("tool_calls"):
            held["tool_calls"] = []
            for call in calls:
                arguments = call["function"]["arguments"]
                if not isinstance(arguments, dict):
                    raise NoRow(f"arguments {arguments!r} that are no JSON object")
                own = f"call{next(numbers):05d}"  # nine letters and digits, as some templates ask
                if given := call.get("id"):
                    ids[given] = own
                function = CalledFunction(name=call["function"]["name"], arguments=arguments)
                held["tool_calls"].append(ToolCall(type="function", id=own, function=function))
        if name := message.get("name"):
            held["name"] = name
        if given := message.get("tool_call_id"):
            if given not in ids:  # its call is in the prompt no more
                ids[given] = f"call{next(numbers):05d}"
            held["tool_call_id"] = ids[given]
        found.append(held)
    return found


def _text(content: Any) -> str:
    """A content as text; blocks of text follow each other."""
    texts = _texts(content)
    if None in texts:
        raise NoRow("a message with more than text")
    return "".join(text or "" for text in texts)


def _texts(content: Any) -> list[str | None]:
    """Of each block of a content its text; None where it has none."""
    if isinstance(content, str | None):
        return [content or ""]
    return [block if isinstance(block, str) else block.get("text") for block in content]


def answered(turn: Turn) -> Message:
    """What the model said, with all its calls."""
    message = Message(role="assistant", content=turn["message"]["content"])
    if calls := turn["message"].get("tool_calls"):
        message["tool_calls"] = [
            ToolCall(type="function", function=CalledFunction(name=call["name"], arguments=call["args"]))
            for call in calls
        ]
    return message


def told(prompt: list[Message], experience: str | None, prompts: Prompts) -> list[Message]:
    """The prompt as it was played, with the experience, if there is one, at the end of its last message.

    That is a person's or a tool's; behind any other the experience is a message of its own.
    """
    if experience is None:
        return prompt
    *before, last = prompt
    text = prompts.experience.format(experience=experience)
    if last["role"] not in ("user", "tool"):
        return [*prompt, Message(role="user", content=text)]
    return [*before, {**last, "content": f"{last['content']}\n\n{text}" if last["content"] else text}]


def with_tools(row: Example) -> bool:
    """Whether there is more in it than texts: tools, or messages of more than role and content."""
    held: Mapping[str, Any] = row
    return bool(held.get("tools")) or any(len(each) > 2 for name in MESSAGES for each in held.get(name) or ())


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says, calls included, for whoever reads words."""
    return "\n".join([*(text or "" for text in _texts(message["content"])), *_calls(message)]).strip()


def said_text(turn: Turn) -> str:
    """What the model said at a turn, as rows have it."""
    return text_of(answered(turn)) if "request" in turn else said(turn["message"])


def action_of(turn: Turn) -> str:
    """What was carried out of it."""
    if "request" not in turn:
        return turn["action"]
    message = answered(turn)
    return "\n".join(_calls(message)) or without_thoughts(message["content"]).strip()


def _calls(message: Mapping[str, Any]) -> list[str]:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return [call_text({"name": each["name"], "args": each["arguments"]}) for each in functions]
