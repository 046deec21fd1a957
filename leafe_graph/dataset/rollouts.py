"""Trees as verifiers reads and scores them: an episode a task, in it a trace a branch, a graph of its messages.

Form of verifiers 0.4 (`verifiers.v1.episode.Episode`). A branch's trace is its whole path; what its parents said is
there as context, so each answer is sampled in one trace alone. Prompts are without the experience, as rows have them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..models.spec import called
from ..prompts import Prompts, said
from ..tree.branches import FAILED, path
from ..tree.run_settings import RunSettings
from ..types import Branch, Message, Task, Turn

FILE = "verifiers/traces.jsonl"
"""Where a folder of rows holds them: the folder of this file is what verifiers calls a run's results."""
_ROLES = {"developer": "system", "system": "system", "assistant": "assistant", "tool": "tool"}


def episodes(
    trees: Iterable[tuple[str, Mapping[str, Branch]]], settings: RunSettings, prompts: Prompts, history: int | None
) -> Iterator[dict[str, Any]]:
    """The episode of each tree.

    Args:
        trees: branches by id, by task.
        settings: of the run.
        prompts: the texts.
        history: earlier turns shown in a prompt, None is all.
    """
    for number, (name, tree) in enumerate(trees):
        task = _task(number, next(iter(tree.values()))["task"])
        traces = [_trace(branch, tree, task, settings, prompts, history) for branch in tree.values()]
        yield {
            "id": _id(name, tree),
            "env": {"id": str((settings.model_extra or {}).get("env") or "")},
            "task": task,
            "group": {"id": name},
            "ok": all(trace["ok"] for trace in traces),
            "traces": traces,
        }


def _task(number: int, task: Task) -> dict[str, Any]:
    data = {"idx": number, "id": task["id"], "description": task["instruction"]}
    data |= {name: held for name in ("seed", "options") if (held := task.get(name)) is not None}
    return {"type": "Task", "data": data, "key": task["id"]}


def _trace(
    branch: Branch,
    tree: Mapping[str, Branch],
    task: dict[str, Any],
    settings: RunSettings,
    prompts: Prompts,
    history: int | None,
) -> dict[str, Any]:
    failed, turns = branch["end"] in FAILED, path(tree, branch["id"])
    graph, calls, model = _Graph(), [], called(settings.model)[1]
    for t, turn in enumerate(turns):
        request = turn.get("request")
        asked = request["messages"] if request else _asked(branch["task"], turns, t, prompts, history)
        own = t >= branch["decision_point"]
        node = graph.add(asked, turn, request["tools"] if request else [], sampled=own)
        if own:
            calls.append(_call(node, turn, model))
    more = settings.model_extra or {}
    time: Any = branch.get("time", {})
    sampling = {"temperature": more.get("temperature"), "top_p": more.get("top_p"), "max_tokens": settings.max_tokens}
    told = ("id", "parent", "decision_point", "depth", "experience", "end", "reflections", "divergence")
    return {
        "version": 1,
        "id": _id(branch["task"]["id"], tree, branch["id"]),
        "task": task,
        "agent": {"config": {"model": model, "max_turns": settings.max_turns, "sampling": sampling}, "name": "policy"},
        "nodes": graph.nodes,
        "calls": calls,
        "rewards": {"return": None if failed else {"score": branch["return_"]}},
        "metrics": {"success": None if failed else float(branch["end"] == "success"), **branch["cost"]},
        "info": {"leafe": {name: branch.get(name) for name in told}},
        "is_completed": True,
        "ok": not failed,
        "stop_condition": branch["end"],
        "errors": [{"type": branch["end"], "message": branch["error"] or ""}] if failed else [],
        "timing": {
            "start": time.get("started", 0.0),
            "agent": {"start": time.get("started", 0.0), "end": time.get("ended", 0.0)},
        },
    }


def _asked(task: Task, turns: list[Turn], t: int, prompts: Prompts, history: int | None) -> list[Message]:
    return prompts.act_messages(task, turns[:t], turns[t]["observation"], history=history)


def _call(node: int, turn: Turn, model: str) -> dict[str, Any]:
    message, found = turn["message"], dict[str, Any](node=node, model=model)
    if "usage" in message:
        tokens = message["usage"]
        found["usage"] = {"prompt_tokens": tokens["input_tokens"], "completion_tokens": tokens["output_tokens"]}
    if "time" in message:
        found["time"] = {"start": message["time"]["started"], "end": message["time"]["ended"]}
    return found


class _Graph:
    """Messages, each once for all prompts that begin alike; each answer, as equal ones are several samples."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}

    def add(self, asked: Iterable[Message], turn: Turn, tools: list[dict[str, Any]], *, sampled: bool) -> int:
        """A prompt and what was answered; the place of the answer."""
        numbers, parent = dict[str, str](), None
        moment = turn["message"]["time"]["ended"] if "time" in turn["message"] else 0.0
        for message in [*asked, None]:
            told = _answer(turn, numbers) if message is None else _message(message, numbers)
            key = json.dumps([parent, told, tools if parent is None else None], sort_keys=True)
            if message is None or key not in self._known:
                node: dict[str, Any] = {"parent": parent, "message": told, "timestamp": moment}
                if parent is None and tools:
                    node["tools"] = [{"type": each["type"], **each["function"]} for each in tools]
                self._known[key] = len(self.nodes)
                self.nodes.append(node)
            parent = self._known[key]
        assert parent is not None
        self.nodes[parent]["sampled"] = sampled
        if thoughts := turn["message"].get("thoughts"):  # no later prompt shows them
            self.nodes[parent]["message"]["reasoning_content"] = thoughts
        return parent


def _message(message: Message, numbers: dict[str, str]) -> dict[str, Any]:
    role = _ROLES.get(message["role"], "user")
    told: dict[str, Any] = {"role": role, "content": message["content"]}
    if calls := message.get("tool_calls"):
        told["tool_calls"] = [_tool_call(each["function"], str(each.get("id")), numbers) for each in calls]
    if role == "tool":
        told["tool_call_id"] = _number(str(message.get("tool_call_id")), numbers)
        if "name" in message:
            told["name"] = message["name"]
    return told


def _answer(turn: Turn, numbers: dict[str, str]) -> dict[str, Any]:
    """What the model said: as text where the history of turns has it so."""
    message = turn["message"]
    if "request" not in turn:
        return {"role": "assistant", "content": said(message)}
    told: dict[str, Any] = {"role": "assistant", "content": message["content"]}
    if calls := message.get("tool_calls"):
        told["tool_calls"] = [
            _tool_call({"name": each["name"], "arguments": each["args"]}, f"answer {place}", numbers)
            for place, each in enumerate(calls)
        ]
    return told


def _tool_call(function: Mapping[str, Any], identity: str, numbers: dict[str, str]) -> dict[str, Any]:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return {"id": _number(identity, numbers), "name": function["name"], "arguments": text}


def _number(identity: str, numbers: dict[str, str]) -> str:
    """The same for equal calls of prompts that begin alike: providers' own are random."""
    return numbers.setdefault(identity, f"call{len(numbers):05}")


def _id(task: str, tree: Mapping[str, Branch], branch: str = "") -> str:
    """The same for the same record, another one for that of another run."""
    first = next(iter(tree.values()))
    began: Any = first.get("time", {})
    return hashlib.sha256(json.dumps([task, began.get("started"), first["thread_id"], branch]).encode()).hexdigest()[
        :32
    ]
