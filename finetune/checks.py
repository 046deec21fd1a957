"""What a row is: a record that is none as the exporter writes it is an error that names the field.

Nothing is converted but a branch's number into its text.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leafe_graph.types import FORMAT_VERSION, Example

ROLES = ("system", "user", "assistant", "tool")
"""Roles of a prompt's messages. Templates write a role as it stands: any other text could open a message of its own."""

_EXAMPLE: TypeAdapter[Example] = TypeAdapter(Example)
_SHOWN = 10  # wrong fields in an error message


def short(value: Any) -> str:
    """The value as it stands in an error message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list ...
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:77] + "..."


def checked(raw: Any) -> Example:
    """The record itself if it is a row; ValueError with the field's name otherwise."""
    if not isinstance(raw, dict):
        raise ValueError(f"expected a JSON object, got {type(raw).__name__}")
    if "version" not in raw:
        raise ValueError(
            f"not a row of this trainer's: it has the columns {short(', '.join(map(str, raw)))}; expected "
            f"{', '.join(Example.__annotations__)}, as docs/training_rows.md tells and leafe export writes them"
        )
    version = raw.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"version is {short(version)}, this trainer reads {FORMAT_VERSION}: export the run anew")
    if type(raw.get("branch_id")) is int:  # readers of tables make numbers of texts: "1" is 1 again
        raw["branch_id"] = str(raw["branch_id"])
    for name in Example.__optional_keys__:  # tables have every column: null is what a row does not have
        if raw.get(name, ...) is None:
            del raw[name]
    try:
        _EXAMPLE.validate_python(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        shown = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {short(e['input'])})" for e in found[:_SHOWN]]
        raise ValueError("; ".join(shown)) from None
    example: Example = raw  # type: ignore[assignment]  # validation drops keys it does not know
    _check_messages("prompt", example["prompt"])
    _check_answer("completion", example["completion"])
    _check_text("task_id", example["task_id"])
    _check_text("branch_id", example["branch_id"])
    _check_what_its_kind_has(example)
    if not (math.isfinite(example["weight"]) and example["weight"] >= 0):
        raise ValueError(f"weight is {example['weight']}: expected a finite number that is not negative")
    if example["decision_point"] < 0:
        raise ValueError(f"decision_point is {short(example['decision_point'])}: expected 0 or more")
    for field, ids in (
        ("prompt_token_ids", example["prompt_token_ids"]),
        ("completion_token_ids", example["completion_token_ids"]),
        ("rejected_token_ids", example.get("rejected_token_ids")),
    ):
        if ids and not 0 <= min(ids) <= max(ids) < 2**31:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(f"{field} holds {short(wrong)}: expected token ids, from 0 to 2**31 - 1")
    return example


_OF_A_KIND = {"preference": "rejected", "rollout": "advantage"}
"""What makes rows of a kind what they are: those have it, and no others."""


def _check_what_its_kind_has(example: Example) -> None:
    kind = example["kind"]
    for owner, field in (*_OF_A_KIND.items(), ("preference", "rejected_token_ids"), ("rollout", "logprobs")):
        if kind != owner and field in example:
            raise ValueError(f"{field} in a row of the kind {kind}: expected it in those of the kind {owner} alone")
    if (needed := _OF_A_KIND.get(kind)) and needed not in example:
        raise ValueError(f"{needed} is missing: a row of the kind {kind} needs it")
    if "rejected" in example:
        _check_answer("rejected", example["rejected"])
        worse, better = (
            {**m[0], "content": m[0]["content"].strip()} for m in (example["rejected"], example["completion"])
        )
        if worse == better:
            raise ValueError("rejected says what completion says: there is nothing to prefer")
    if "teacher_prompt" in example:
        if kind not in ("counterfactual", "on_policy"):
            raise ValueError(
                f"teacher_prompt in a row of the kind {kind}: expected it in counterfactual and on_policy rows alone"
            )
        _check_messages("teacher_prompt", example["teacher_prompt"])
    if not math.isfinite(example.get("advantage", 0.0)):
        raise ValueError(f"advantage is {example['advantage']}: expected a finite number")
    if (logprobs := example.get("logprobs")) is not None:
        ids = example["completion_token_ids"]
        if ids is None or len(ids) != len(logprobs):
            raise ValueError(
                f"logprobs has {len(logprobs)} numbers, completion_token_ids {'null' if ids is None else len(ids)}: "
                "expected one for each id"
            )
        if wrong := [each for each in logprobs if not (math.isfinite(each) and each <= 0)]:
            raise ValueError(f"logprobs holds {wrong[0]}: expected finite numbers that are not above 0")


def _check_messages(field: str, messages: Sequence[Any]) -> None:
    if not messages:
        raise ValueError(f"{field} is empty: expected at least one message")
    for i, message in enumerate(messages):
        _check_message(f"{field}.{i}", message)


def _check_answer(field: str, messages: Sequence[Any]) -> None:
    roles = [m["role"] for m in messages]
    if roles != ["assistant"]:
        raise ValueError(f"{field} has the roles {short(roles)}: expected exactly one assistant message")
    _check_message(f"{field}.0", messages[0])
    if not messages[0]["content"].strip() and not messages[0].get("tool_calls"):
        raise ValueError(f"{field}.0.content is empty, so all labels are masked: expected a non-empty action")


_KEYS = {"assistant": {"tool_calls", "name"}, "tool": {"name", "tool_call_id"}}
"""What messages have beside role and content; others have a name alone."""


def _check_message(field: str, message: Any) -> None:
    if message["role"] not in ROLES:
        raise ValueError(f"{field}.role is {short(message['role'])}: expected one of {', '.join(ROLES)}")
    known = {"role", "content"} | _KEYS.get(message["role"], {"name"})
    if unknown := sorted(message.keys() - known):
        raise ValueError(f"{field}: unknown keys {short(unknown)}: expected {', '.join(sorted(known))} alone")
    _check_text(f"{field}.content", message["content"])
    _check_text(field, json.dumps(message, ensure_ascii=False))
    if "tool_calls" in message and not message["tool_calls"]:
        raise ValueError(f"{field}.tool_calls is empty: expected calls, or no such key")
    for i, call in enumerate(message.get("tool_calls", ())):
        name = f"{field}.tool_calls.{i}"
        for held, keys in ((call, {"type", "function", "id"}), (call["function"], {"name", "arguments"})):
            if unknown := sorted(held.keys() - keys):
                raise ValueError(f"{name}: unknown keys {short(unknown)}: expected {', '.join(sorted(keys))} alone")
        if not isinstance(arguments := call["function"]["arguments"], dict):
            raise ValueError(
                f"{name}.function.arguments is {short(arguments)}: expected an object, not its JSON as a text"
            )


def _check_text(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field}: half a surrogate pair at character {error.start}, which is no text") from None
