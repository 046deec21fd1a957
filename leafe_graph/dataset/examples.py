"""From experience trees to training rows.

A counterfactual row is (h_τ, a'_τ) of a branching event that counts: the prompt *without* the experience, the action
that was sampled with it. A preference is (h_τ, a'_τ, a_τ): that action, and what the parent did there. Rehearsal rows
are all (h_t, a_t) of successful trajectories, branches included. Rollouts are all of independent attempts, with their
advantages (groups.py). Which of them are made is told in asked.py. Every row is checked against every experience of
its task's tree (leaks.py): one that leaks is dropped and counted. Only ``teacher_prompt`` holds one, on purpose.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from ..errors import ConfigError
from ..prompts import Prompts
from ..settings import Live, Rows, Shown, takes
from ..text import matches
from ..types import FORMAT_VERSION, Branch, Example, Message, Turn
from .asked import Asked, asked, at_most, weigh
from .leaks import LeakCheck
from .messages import NoRow, answered, numbered, said_text, text_of, told
from .summary import Summary


class Arguments(Rows, Shown):
    """What `examples` is called with. ``history``: use what the policy was run with."""

    branches: Live[Iterable[Branch]] = Field(kw_only=False)
    """Of any number of tasks, with all their ancestors."""
    prompts: Live[Prompts | None] = None
    """The texts that rows are rendered with."""
    played: Live[Prompts | None] = None
    """The texts that the policy was run with, whose sentence carried the experience; ``prompts`` if None."""
    prompt_ids: bool = True
    """Keep the recorded token ids of prompts that held no experience. False where ``history`` or ``prompts`` is not
    what the policy was run with."""


@takes(Arguments)
def examples(args: Arguments) -> tuple[list[Example], Summary]:
    """All clean rows of the trees, kind by kind, in an order that does not depend on the branches' order.

    Raises:
        ConfigError: a pattern of ``nodes`` is that of no decision's node.
    """
    trees: dict[str, dict[str, Branch]] = {}
    for branch in args.branches:
        trees.setdefault(branch["task"]["id"], {})[branch["id"]] = branch
    own = Rows.model_construct(**{name: getattr(args, name) for name in Rows.model_fields})
    summary = Summary(asked=own, history=args.history, tasks=len(trees), branches=sum(map(len, trees.values())))
    found: list[Example] = []
    known = _Known()
    prompts = args.prompts or Prompts()
    _refuse_other_nodes(args.nodes, trees)
    for task_id in sorted(trees):
        tree = trees[task_id]
        leaks = LeakCheck(tree.values(), args.played or prompts)
        for each in asked(tree, own, summary):
            if args.nodes is not None and not matches(each.turns[each.t].get("node"), args.nodes):
                summary.other_nodes += 1
                continue
            try:
                row = _row(each, tree, prompts, args)
            except NoRow:
                summary.unreadable += 1
                continue
            if args.skip_invalid and each.kind != "rollout" and each.turns[each.t]["valid"] is False:
                summary.invalid += 1
            elif not all(text_of(message) for message in (*row["completion"], *row.get("rejected", ()))):
                summary.empty += 1
            elif leaks(row, each.turns[: each.t + 1], each.rejected):
                summary.leaked += 1
            elif known.new(row):
                found.append(row)
            else:
                summary.duplicates += 1
    clean = sorted(found, key=lambda row: row["kind"])
    rows = at_most(clean, args.counterfactual_per_task, args.seed)
    summary.over = len(clean) - len(rows)
    weigh(rows, args.balance)
    numbers = Counter(row["kind"] for row in rows)
    summary.counterfactual, summary.preference = numbers["counterfactual"], numbers["preference"]
    summary.rehearsal, summary.rollout = numbers["rehearsal"], numbers["rollout"]
    summary.tasks_covered = len({row["task_id"] for row in rows})
    summary.prompt_tokens, summary.prompt_tokens_are = _count(rows, "prompt")
    summary.completion_tokens, summary.completion_tokens_are = _count(rows, "completion")
    return rows, summary


def _refuse_other_nodes(nodes: list[str] | None, trees: Mapping[str, Mapping[str, Branch]]) -> None:
    """See that each pattern is that of a node."""
    turns = (turn for tree in trees.values() for branch in tree.values() for turn in branch["turns"])
    known = sorted({turn.get("node") or "" for turn in turns} - {""})
    for pattern in nodes or ():
        if not any(matches(node, [pattern]) for node in known):
            there = f"those of these records are {', '.join(known)}" if known else "these records name none"
            raise ConfigError(f"nodes: no decision is {pattern!r}'s: {there}")


def _row(each: Asked, tree: Mapping[str, Branch], prompts: Prompts, args: Arguments) -> Example:
    branch, t, turns = each.branch, each.t, each.turns
    turn, request = turns[t], turns[t].get("request")
    message = turn["message"]
    player = branch  # whose own turn this is
    while t < player["decision_point"] and player["parent"] is not None:
        player = tree[player["parent"]]
    hidden = player["experience"] is not None  # then the recorded prompt's ids hold the experience

    def asked_with(experience: str | None) -> list[Message]:
        if request is not None:
            return told(numbered(request["messages"]), experience, prompts)
        history, now = turns[:t], turn["observation"]
        return prompts.act_messages(branch["task"], history, now, experience=experience, history=args.history)

    row = Example(
        version=FORMAT_VERSION,
        kind=each.kind,
        prompt=asked_with(None),
        completion=[_said(turn, turn)],
        task_id=branch["task"]["id"],
        branch_id=branch["id"],
        decision_point=t,
        weight=1.0,
        prompt_token_ids=None if hidden or not (args.prompt_ids or request) else message.get("prompt_token_ids"),
        completion_token_ids=message.get("token_ids"),
    )
    if each.rejected is not None:
        row["rejected"] = [_said(each.rejected, turn)]
        row["rejected_token_ids"] = each.rejected["message"].get("token_ids")
    if each.kind == "rollout":
        row["advantage"] = each.advantage
        row["logprobs"] = [min(0.0, each) for each in message["logprobs"]]  # rounding can leave one just above 0
    if each.kind == "counterfactual" and args.teacher and branch["experience"]:
        row["teacher_prompt"] = asked_with(branch["experience"])
    if request and request["tools"]:
        row["tools"] = request["tools"]
    if node := turn.get("node"):
        row["node"] = node
    return row


def _said(turn: Turn, asked: Turn) -> Message:
    """What the model said at a turn, as a completion of what it was ``asked`` has it."""
    if (request := asked.get("request")) is None or "request" not in turn:
        return Message(role="assistant", content=said_text(turn))
    return numbered([*request["messages"], answered(turn)])[-1]


class _Known:
    """The messages and rows there are already."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, bool], int] = {}
        self._held: list[Any] = []
        """Messages, and lists of tools."""
        self._rows: set[bytes] = set()

    def new(self, row: Example) -> bool:
        """Whether no such row came before; its messages become those of earlier rows, which would fill memory.

        A row is another one within its kind by its texts; one of a rollout by where it was sampled, since each counts.
        """
        key: list[list[int] | str] = [row["kind"]]
        for column in ("prompt", "completion", "rejected"):
            if column in row:
                numbers = [self._number(message["role"], message) for message in row[column]]
                row[column] = [self._held[number] for number in numbers]
                key.append(numbers)
        if "tools" in row:
            key.append([number := self._number("tools", row["tools"])])
            row["tools"] = self._held[number]
        digest = hashlib.blake2b(repr(key).encode()).digest()  # of long prompts the numbers would fill memory, too
        if row["kind"] != "rollout" and digest in self._rows:
            return False
        self._rows.add(digest)
        return True

    def _number(self, kind: str, value: Any) -> int:
        plain = isinstance(value, dict) and len(value) == 2  # a message of role and content: most are
        said = value["content"] if plain else json.dumps(value, sort_keys=True)
        number = self._numbers.setdefault((kind, said, plain), len(self._held))
        if number == len(self._held):
            self._held.append(value)
        return number


def _count(rows: list[Example], part: Literal["prompt", "completion"]) -> tuple[int, Literal["token ids", "words"]]:
    ids = [row["prompt_token_ids"] if part == "prompt" else row["completion_token_ids"] for row in rows]
    if rows and all(i is not None for i in ids):
        return sum(len(i or ()) for i in ids), "token ids"
    return sum(len(text_of(message).split()) for row in rows for message in row[part]), "words"
