"""A tree as spans, named by OpenTelemetry's conventions for generative AI: task, branches, and in them what they did.

Plain data, made of the log alone, so a span has the same id and the same moments however often it is made.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..models.spec import called
from ..prompts import Prompts
from ..redaction import redacted
from ..text import utf8_all
from ..tree.branches import FAILED, owner, path
from ..tree.run_settings import RunSettings
from ..types import Branch, Message, ModelMessage, Reflection, Request, Time, Turn

Attributes = dict[str, Any]
Key = tuple[Any, ...]
"""What tells a span from all others of its run."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that took its time."""

    key: Key
    parent: Key | None
    """None for a task."""
    name: str
    time: Time
    attributes: Attributes
    calls: bool = False
    """Whether it is a call of something that runs elsewhere: a model."""
    error: str | None = None
    links: list[Key] = field(default_factory=list)
    events: list[tuple[str, float, Attributes]] = field(default_factory=list)
    """Each with its moment."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run's spans are told of it."""

    settings: RunSettings
    prompts: Prompts
    """The texts that were played."""

    def asked(self, model: Any) -> Attributes:
        """Of a call: who was asked, and for what."""
        more = self.settings.model_extra or {}
        provider, name = called(model)
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": name,
            "gen_ai.request.temperature": more.get("temperature"),
            "gen_ai.request.top_p": more.get("top_p"),
        }


def ident(run: str, key: Key, size: int) -> int:
    """The id of a span or trace: as many bytes as OpenTelemetry has."""
    return int.from_bytes(hashlib.sha256(json.dumps([run, *key]).encode()).digest()[:size], "big")


def spans_of(entries: Sequence[tuple[int, Branch]], known: int, told: Told) -> Iterator[list[Span]]:
    """The spans of each logged branch of a task that has its times; the task's own is with those of the first of them.

    Args:
        entries: all that is logged of the task, with the places in the log.
        known: how many of them are sent already.
        told: of the run.
    """
    timed = [branch["time"] for _, branch in entries if "time" in branch]
    first = next((number for number, (_, branch) in enumerate(entries) if "time" in branch), None)
    tree, places = dict[str, Branch](), dict[str, int]()
    root: Key = ("task", entries[0][1]["task"]["id"])
    for number, (place, logged) in enumerate(entries):
        branch: Branch = redacted(utf8_all(logged))
        tree[branch["id"]], places[branch["id"]] = branch, place
        if number < known:
            continue
        found = [*_branch(branch, tree, places, root, told)] if "time" in branch else []
        if number == first:
            solved = any(each["end"] == "success" for _, each in entries)
            found.insert(0, _task(branch, root, timed, solved, told))
        yield found


def _task(branch: Branch, root: Key, timed: Sequence[Time], solved: bool, told: Told) -> Span:
    task = branch["task"]
    return Span(
        key=root,
        parent=None,
        name=f"task {task['id']}",
        time=Time(started=min(each["started"] for each in timed), ended=max(each["ended"] for each in timed)),
        attributes={
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": told.settings.strategy,
            "gen_ai.input.messages": _json([_message(Message(role="user", content=task["instruction"]))]),
            "leafe.task": task["id"],
            "leafe.solved": solved,
            "leafe.branches": len(timed),
        },
    )


def _branch(
    branch: Branch, tree: Mapping[str, Branch], places: Mapping[str, int], root: Key, told: Told
) -> Iterator[Span]:
    """A branch's span, and those of its turns and reflections in their order."""
    name, t, failed = branch["id"], branch["decision_point"], branch["end"] in FAILED
    key: Key = ("branch", places[name])
    events: list[tuple[str, float, Attributes]] = []
    links: list[Key] = []
    if (parent := branch["parent"]) is not None:
        rewind = {"leafe.parent": parent, "leafe.decision_point": t, "leafe.experience": branch["experience"]}
        events.append(("leafe.rewind", branch["time"]["started"], rewind))
        left = owner(tree, parent, t)
        if t - left["decision_point"] < len(left["turns"]):
            links.append(("turn", places[left["id"]], t))
    scored = {"name": "return", "score.value": float(branch["return_"]), "score.label": branch["end"]}
    scores = {f"gen_ai.evaluation.{field}": value for field, value in scored.items()}
    events.append(("gen_ai.evaluation.result", branch["time"]["ended"], scores))
    yield Span(
        key=key,
        parent=root,
        name=f"branch {name}",
        time=branch["time"],
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": str((told.settings.model_extra or {}).get("agent") or told.settings.strategy),
            "gen_ai.conversation.id": f"{branch['task']['id']}/{name}",
            "leafe.branch": name,
            "leafe.parent": parent,
            "leafe.depth": branch["depth"],
            "leafe.decision_point": t,
            "leafe.experience": branch["experience"],
            "leafe.end": branch["end"],
            "leafe.return": float(branch["return_"]),
            "error.type": branch["end"] if failed else None,
            **{f"leafe.cost.{kind}": spent for kind, spent in branch["cost"].items()},
        },
        error=branch["error"] or branch["end"] if failed else None,
        links=links,
        events=events,
    )
    turns = path(tree, name)
    for at in range(t, len(turns)):
        yield from _turn(branch, turns, at, key, told)
    for number, reflection in enumerate(branch["reflections"]):
        if "time" in reflection:
            yield _reflection(reflection, reflection["time"], ("reflection", key[1], number), key, told)


def _turn(branch: Branch, turns: Sequence[Turn], t: int, key: Key, told: Told) -> Iterator[Span]:
    """The model's call and the environment's step."""
    turn = turns[t]
    message, where = turn["message"], {"leafe.branch": branch["id"], "leafe.turn": t}
    request = turn.get("request") or Request(messages=_prompt(branch, turns, t, told), tools=[])
    if "time" in message:
        yield Span(
            key=("turn", key[1], t),
            parent=key,
            name=_named("chat", asked := told.asked(told.settings.model)),
            time=message["time"],
            attributes=asked
            | {
                "gen_ai.request.max_tokens": told.settings.max_tokens,
                "gen_ai.agent.name": turn.get("node"),
                "gen_ai.input.messages": _json([_message(each) for each in request["messages"]]),
                "gen_ai.output.messages": _json([_answer(message)]),
                "gen_ai.tool.definitions": _json(request["tools"]) if request["tools"] else None,
                **_usage(message),
                **where,
            },
            calls=True,
        )
    if "time" in turn:
        call = next(iter(message.get("tool_calls", ())), {"name": "step", "args": turn["action"]})
        yield Span(
            key=("step", key[1], t),
            parent=key,
            name=f"execute_tool {call['name']}",
            time=turn["time"],
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call["name"],
                "gen_ai.tool.call.arguments": _json(call["args"]),
                "gen_ai.tool.call.result": _json(turn["feedback"]),
                "leafe.reward": float(turn["reward"]),
                "leafe.valid": turn["valid"],
                **where,
            },
        )


def _reflection(reflection: Reflection, time: Time, key: Key, parent: Key, told: Told) -> Span:
    asked = told.asked(told.settings.reflector or told.settings.model)
    said: ModelMessage = {"content": reflection["raw"]}
    return Span(
        key=key,
        parent=parent,
        name=_named("reflect", asked),
        time=time,
        attributes=asked
        | {
            "gen_ai.request.max_tokens": told.settings.reflect_max_tokens,
            "gen_ai.output.messages": _json([_answer(said)]),
            "leafe.turn": reflection["turn"],
            "leafe.verdict": reflection["verdict"],
            "leafe.decision_point": reflection["decision_point"],
            "leafe.experience": reflection["experience"],
            **_usage(reflection),
        },
        calls=True,
    )


def _prompt(branch: Branch, turns: Sequence[Turn], t: int, told: Told) -> list[Message]:
    """What the model was asked, the experience included."""
    settings, first = told.settings, branch["decision_point"]
    shown = settings.experience_turns is None or t - first < settings.experience_turns
    experience = branch["experience"] if shown else None
    return told.prompts.act_messages(
        branch["task"], turns[:t], turns[t]["observation"], experience=experience, history=settings.history
    )


def _named(what: str, asked: Attributes) -> str:
    return f"{what} {asked['gen_ai.request.model']}"


def _usage(record: ModelMessage | Reflection) -> Attributes:
    usage: Any = record.get("usage", {})
    return {f"gen_ai.usage.{kind}": count for kind, count in usage.items()}


def _message(message: Message) -> Attributes:
    """A message in the conventions' form."""
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message["content"]}
        return {"role": "tool", "parts": [part]}
    parts: list[Attributes] = [{"type": "text", "content": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", ()):
        parts.append({"type": "tool_call", "id": call.get("id"), **call["function"]})
    return {"role": message["role"], "parts": parts}


def _answer(message: ModelMessage) -> Attributes:
    thoughts = [{"type": "reasoning", "content": message["thoughts"]}] if message.get("thoughts") else []
    said = [{"type": "text", "content": message["content"]}] if message["content"] else []
    calls = [
        {"type": "tool_call", "id": None, "name": call["name"], "arguments": call["args"]}
        for call in message.get("tool_calls", ())
    ]
    # Why it ended is not in the log; the conventions want a word.
    return {"role": "assistant", "parts": [*thoughts, *said, *calls], "finish_reason": "unknown"}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def texts_of(settings: RunSettings, given: Prompts | None) -> Prompts:
    """The prompts with the texts that were played, as far as they have them; without secrets."""
    prompts = given or Prompts()
    played = {name: settings.texts.get(name, text) for name, text in prompts.texts.items()}
    return replace(prompts, **redacted(played))  # type: ignore[arg-type]
