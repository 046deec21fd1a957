"""Trees of an agent that makes its own prompts and acts by calling tools, written by hand."""

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

from trees import branch, turn

from leafe_graph.types import Branch, Message, Turn

LOOK, BOOK = (
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"To {name} a flight.",
            "parameters": {"type": "object", "properties": properties},
        },
    }
    for name, properties in (
        ("look", {"day": {"type": "string"}}),
        ("book", {"day": {"type": "integer"}, "seats": {"type": "array", "items": {"type": "string"}}}),
    )
)
TOOLS = [LOOK, BOOK]
TOLD = "The second of May is sold out, so look for a flight on the third and book that one."
SYSTEM: Message = {"role": "system", "content": "You book flights."}
USER: Message = {"role": "user", "content": "To Rome in May."}

Call = tuple[str, dict[str, Any] | str]


def decided(
    before: Sequence[Message], *calls: Call, content: str = "", node: str = "model", tools: Any = None, **more: Any
) -> Turn:
    """A decision after these messages; ``more`` goes into the model's message."""
    if calls:
        more["tool_calls"] = [{"name": name, "args": args} for name, args in calls]
    said = turn(str(before[-1]["content"]), content, action=repr(calls), **more)
    return said | {"request": {"messages": list(before), "tools": TOOLS if tools is None else tools}, "node": node}


def followed(before: Sequence[Message], *calls: Call, results: Sequence[str], content: str = "") -> list[Message]:
    """The messages with those of a decision and of the tools' answers, under random ids as providers give them."""
    ids = [f"call_{uuid.uuid4().hex}" for _ in calls]
    said: Message = {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"type": "function", "id": own, "function": {"name": name, "arguments": args}}
            for own, (name, args) in zip(ids, calls, strict=True)
        ],
    }
    answers: list[Message] = [
        {"role": "tool", "content": result, "name": name, "tool_call_id": own}
        for own, (name, _), result in zip(ids, calls, results, strict=True)
    ]
    return [*before, said, *answers]


def flight(day: str = "3 May", *, experience: str = TOLD, content: str = "", result: str = "free") -> list[Branch]:
    """Looks, books a flight that is sold out, fails; rewound to the look, where it looks for two days and books one."""
    start = [SYSTEM, USER]
    first: Call = ("look", {"day": "2 May"})
    failed = followed(start, first, results=["sold out"])
    both: list[Call] = [("look", {"day": day}), ("look", {"day": "4 May"})]
    then = followed(start, *both, results=[result, "free"], content=content)
    return [
        branch(
            "0", [decided(start, first, token_ids=[5]), decided(failed, ("book", {"day": 2, "seats": []}))], "failure"
        ),
        branch(
            "1",
            [
                decided(start, *both, content=content, token_ids=[7, 8]),
                decided(then, ("book", {"day": 3, "seats": ["1A", "1B"]})),
                decided(
                    followed(then, ("book", {"day": 3, "seats": ["1A", "1B"]}), results=["booked"]),
                    content="It is booked.",
                    node="writer",
                    tools=[],
                ),
            ],
            "success",
            parent="0",
            experience=experience,
        ),
    ]


def ids(messages: Sequence[Any]) -> list[str]:
    """All ids in messages, in order."""
    each = ([*(call["id"] for call in m.get("tool_calls", ())), m.get("tool_call_id")] for m in messages)
    return [one for one in itertools.chain.from_iterable(each) if one]
