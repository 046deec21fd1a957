"""Branches as their lines have them: what a prompt repeats of the one before it is not written again.

With whole prompts a line would grow with the square of its turns. A turn that begins as the turn before it says so:
``prompt_ids_after`` and ``request_after`` hold how much of that one comes ``first``, and what is ``then`` there. Lines
in which a turn does have format version 2, so that a release which does not know of it refuses them; other lines, and
all branches in memory, have version 1. Nothing is lost: `unpacked` gives back what `packed` was given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import FORMAT_VERSION, Branch

PACKED_VERSION = 2
"""Format version of a line that refers to earlier turns of its own."""


def packed(branch: Branch) -> Mapping[str, Any]:
    """The branch in as many bytes as its turns add."""
    turns: list[dict[str, Any]] = []
    version, ids, asked, shown = branch["version"], list[int](), dict[str, Any](), list[str]()
    told: Any = branch["turns"]
    for turn in told:
        line, message, request = dict(turn), turn["message"], turn.get("request")
        if (prompt := message.get("prompt_token_ids")) is not None:
            if first := _shared(ids, prompt):
                after = {"first": first, "then": prompt[first:]}
                line["message"] = {**message, "prompt_ids_after": after}
                del line["message"]["prompt_token_ids"]
                version = PACKED_VERSION
            ids = [*prompt, *message.get("token_ids", ())]
        if request is not None:
            messages = [repr(each) for each in request["messages"]]  # 1 is not True there
            if (first := _shared(shown, messages)) and asked.keys() == request.keys():
                same = ["messages", *(name for name in asked if repr(asked[name]) == repr(request[name]))]
                rest = {name: value for name, value in request.items() if name not in same}
                line["request_after"] = {"first": first, "then": request["messages"][first:], **rest}
                del line["request"]
                version = PACKED_VERSION
            asked, shown = request, messages
        turns.append(line)
    return {**branch, "version": version, "turns": turns}


def unpacked(line: dict[str, Any]) -> Branch:
    """The branch of a line, which is changed to it."""
    branch: Any = line
    if line.get("version") == PACKED_VERSION:
        ids: list[int] = []
        asked: dict[str, Any] = {}
        for turn in line["turns"]:
            message = turn["message"]
            if (after := message.pop("prompt_ids_after", None)) is not None:
                message["prompt_token_ids"] = ids[: after["first"]] + after["then"]
            if "prompt_token_ids" in message:
                ids = [*message["prompt_token_ids"], *message.get("token_ids", ())]
            if (after := turn.pop("request_after", None)) is not None:
                messages = asked["messages"][: after.pop("first")] + after.pop("then")
                turn["request"] = asked | after | {"messages": messages}
            asked = turn.get("request", asked)
        line["version"] = FORMAT_VERSION
    return branch  # type: ignore[no-any-return]


def _shared(before: Sequence[Any], now: Sequence[Any]) -> int:
    """How many of the first ones are the same."""
    most = min(len(before), len(now))
    if before[:most] == now[:most]:
        return most
    return next(place for place in range(most) if before[place] != now[place])
