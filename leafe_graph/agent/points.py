"""Where an agent in `create_agent` can go back to: what its state keeps of each decision, as plain JSON.

The text of the experience is not in it as it is: what shows a state, as ``stream_mode="values"`` does, would show it.
"""

import base64
import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from typing_extensions import TypedDict

from ..text import utf8

RAN = "leafe"
"""In the metadata of a tool's answer: which tool has run, with which arguments (a person may have edited them), and
whether that cannot be undone. Another process may not know the tools yet."""


class Point(TypedDict):
    """The moment before a decision."""

    t: int
    """Number of the decision in this user's turn, from 0."""
    n: int
    """Messages behind it."""
    ids: str
    """Digest of their ids: other ones were summarised or removed since."""
    refs: list[str]
    """A snapshot of each world."""
    process: str
    """The process that took them."""
    kept: dict[str, Any]
    """Values of the channels that are to be restored."""
    seen: dict[str, str]
    """Digests of the public channels that are not."""


class Undo(TypedDict):
    """A tool call that is to be compensated."""

    name: str
    args: dict[str, Any]
    content: Any
    tool_call_id: str


class Pending(TypedDict):
    """A rewind whose messages are gone already, and whose world is not yet back."""

    t: int
    refs: list[str]
    process: str
    undo: list[Undo]
    """Oldest first."""
    left: list[Point]
    """Points that were left behind."""


class Progress(TypedDict):
    """What the middleware keeps in the state of one user's turn."""

    run: str
    """Name of the turn, and of who has its worlds."""
    points: list[Point]
    first: int
    """The first decision that can be undone: an irreversible tool has run before it."""
    next: int
    """Number of the next decision."""
    since: int
    """The decision at which the present attempt began."""
    rewinds: int
    out_of_range: int
    """Reflections that asked for a decision that cannot be undone."""
    experience: str | None
    """`hidden`."""
    pending: Pending | None


def fresh_turn(run: str) -> Progress:
    """A user's turn begins."""
    return Progress(
        run=run, points=[], first=0, next=0, since=0, rewinds=0, out_of_range=0, experience=None, pending=None
    )


def prefixes(messages: Sequence[AnyMessage], upto: int) -> list[str]:
    """Digests of the ids of the first 0, 1, … ``upto`` messages."""
    running, found = hashlib.sha256(), [""]
    for message in messages[:upto]:
        running.update(f"{message.id}\0".encode())
        found.append(running.hexdigest()[:16])
    return found


def living(progress: Progress, messages: Sequence[AnyMessage]) -> tuple[list[Point], list[Point]]:
    """Points whose messages are still the history's beginning, and those whose are not."""
    digests = prefixes(messages, len(messages))
    kept = [point for point in progress["points"] if point["n"] < len(digests) and digests[point["n"]] == point["ids"]]
    return kept, [point for point in progress["points"] if point not in kept]


def undoable(progress: Progress) -> list[Point]:
    """Points that can be gone back to."""
    return [point for point in progress["points"] if point["t"] >= progress["first"]]


def ran(messages: Sequence[AnyMessage]) -> list[tuple[ToolMessage, dict[str, Any]]]:
    """The answers of tools, each with its call's arguments, in the order of the history."""
    calls = {call["id"]: call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    return [
        (message, calls[message.tool_call_id]["args"])
        for message in messages
        if isinstance(message, ToolMessage) and message.tool_call_id in calls
    ]


def tool_name(message: ToolMessage, messages: Sequence[AnyMessage]) -> str:
    """Which tool answered."""
    calls = {call["id"]: call["name"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    return message.name or calls.get(message.tool_call_id, "")


def undo_of(
    messages: Sequence[AnyMessage], compensated: Mapping[str, Any], asked_about: Collection[str] = ()
) -> list[Undo]:
    """The calls among these messages that succeeded and are to be compensated, oldest first.

    Args:
        messages: the history that is taken back.
        compensated: by tool, what undoes it.
        asked_about: tools that a person may answer for: such an answer has no mark of a tool that has run.
    """
    found = []
    for message, args in ran(messages):
        name = tool_name(message, messages)
        did = message.response_metadata.get(RAN) or ({} if name in asked_about else {"name": name, "args": args})
        if message.status != "error" and did.get("name") in compensated:
            called = {"name": did["name"], "args": did["args"]}
            found.append(Undo(**called, content=message.content, tool_call_id=message.tool_call_id))  # type: ignore[typeddict-item]
    return found


def was_rejected(message: ToolMessage, name: str) -> bool:
    """Whether it is what LangChain answers for a person who said no: the tool has not run."""
    return message.status == "error" and message.text.startswith(f"User rejected the tool call for `{name}`")


def hidden(experience: str) -> str:
    """A text as a state holds it: not to be read by whoever sees the state, and whole in another process."""
    return base64.urlsafe_b64encode(zlib.compress(utf8(experience).encode())).decode()


def shown(experience: str) -> str:
    """The text again."""
    return zlib.decompress(base64.urlsafe_b64decode(experience)).decode()
