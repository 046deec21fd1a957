"""From experience trees to training rows.

A counterfactual row is (h_τ, a'_τ) of a branching event that counts: the prompt *without* the experience, the action
that was sampled with it. A preference is (h_τ, a'_τ, a_τ): that action, and what the parent did there. Rehearsal rows
are all (h_t, a_t) of successful trajectories, branches included. Rollouts are all of independent attempts, with their
advantages (groups.py). Which of them are made is told in asked.py. Every row is checked against every experience of
its task's tree (leaks.py): one that leaks is dropped and counted. Only ``teacher_prompt`` holds one, on purpose.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from ..prompts import Prompts, said
from ..settings import Live, Rows, Shown, takes
from ..types import FORMAT_VERSION, Branch, Example, Message, Turn
from .asked import Asked, asked, at_most, weigh
from .leaks import LeakCheck
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
    """All clean rows of the trees, kind by kind, in an order that does not depend on the branches' order."""
    trees: dict[str, dict[str, Branch]] = {}
    for branch in args.branches:
        trees.setdefault(branch["task"]["id"], {})[branch["id"]] = branch
    own = Rows.model_construct(**{name: getattr(args, name) for name in Rows.model_fields})
    summary = Summary(asked=own, history=args.history, tasks=len(trees), branches=sum(map(len, trees.values())))
    found: list[Example] = []
    known = _Known()
    prompts = args.prompts or Prompts()
    for task_id in sorted(trees):
        tree = trees[task_id]
        leaks = LeakCheck(tree.values(), args.played or prompts)
        for each in asked(tree, own, summary):
            row = _row(each, tree, prompts, args)
            if args.skip_invalid and each.kind != "rollout" and each.turns[each.t]["valid"] is False:
                summary.invalid += 1
            elif not all(message["content"].strip() for message in (*row["completion"], *row.get("rejected", ()))):
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


def _row(each: Asked, tree: Mapping[str, Branch], prompts: Prompts, args: Arguments) -> Example:
    branch, t, turns = each.branch, each.t, each.turns
    message = turns[t]["message"]
    player = branch  # whose own turn this is
    while t < player["decision_point"] and player["parent"] is not None:
        player = tree[player["parent"]]
    told = player["experience"] is not None  # then the recorded prompt's ids hold the experience
    row = Example(
        version=FORMAT_VERSION,
        kind=each.kind,
        prompt=prompts.act_messages(branch["task"], turns[:t], turns[t]["observation"], history=args.history),
        completion=[_said(turns[t])],
        task_id=branch["task"]["id"],
        branch_id=branch["id"],
        decision_point=t,
        weight=1.0,
        prompt_token_ids=message.get("prompt_token_ids") if args.prompt_ids and not told else None,
        completion_token_ids=message.get("token_ids"),
    )
    if each.rejected is not None:
        row["rejected"] = [_said(each.rejected)]
        row["rejected_token_ids"] = each.rejected["message"].get("token_ids")
    if each.kind == "rollout":
        row["advantage"] = each.advantage
        row["logprobs"] = [min(0.0, told) for told in message["logprobs"]]  # rounding can leave one just above 0
    if each.kind == "counterfactual" and args.teacher and branch["experience"]:
        row["teacher_prompt"] = prompts.act_messages(
            branch["task"],
            turns[:t],
            turns[t]["observation"],
            experience=branch["experience"],
            history=args.history,
        )
    return row


def _said(turn: Turn) -> Message:
    """What the model said, as a completion has it."""
    return Message(role="assistant", content=said(turn["message"]))


class _Known:
    """The messages and rows there are already."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._messages: list[Message] = []
        self._rows: set[bytes] = set()

    def new(self, row: Example) -> bool:
        """Whether no such row came before; its messages become those of earlier rows, which would fill memory.

        A row is another one within its kind by its texts; one of a rollout by where it was sampled, since each counts.
        """
        key: list[list[int] | str] = [row["kind"]]
        for column in ("prompt", "completion", "rejected"):
            if column in row:
                numbers = [self._number(message) for message in row[column]]
                row[column] = [self._messages[number] for number in numbers]
                key.append(numbers)
        digest = hashlib.blake2b(repr(key).encode()).digest()  # of long prompts the numbers would fill memory, too
        if row["kind"] != "rollout" and digest in self._rows:
            return False
        self._rows.add(digest)
        return True

    def _number(self, message: Message) -> int:
        number = self._numbers.setdefault((message["role"], message["content"]), len(self._messages))
        if number == len(self._messages):
            self._messages.append(message)
        return number


def _count(rows: list[Example], part: Literal["prompt", "completion"]) -> tuple[int, Literal["token ids", "words"]]:
    ids = [row["prompt_token_ids"] if part == "prompt" else row["completion_token_ids"] for row in rows]
    if rows and all(i is not None for i in ids):
        return sum(len(i or ()) for i in ids), "token ids"
    return sum(len(message["content"].split()) for row in rows for message in row[part]), "words"
