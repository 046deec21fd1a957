"""From experience trees to training rows: counterfactual and rehearsal examples.

A counterfactual row is (h_τ, a'_τ) of a branching event that counts: the prompt *without* the experience, the action
that was sampled with it. Rehearsal rows are all (h_t, a_t) of successful trajectories, branches included. Every row is
checked against every experience of its task's tree (leaks.py): one that leaks is dropped and counted.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, Field

from ..errors import ConfigError
from ..prompts import Prompts, said
from ..tree.branches import UNFINISHED, path
from ..types import FORMAT_VERSION, Branch, Example, ExampleKind, Message, Turn
from .leaks import LeakCheck

Keep = Literal["success", "improved"]


class Summary(BaseModel):
    """What an export holds and what it left out."""

    keep: Keep
    """Which branching events counted."""
    history: int | None
    """Earlier turns shown in each prompt; None is all."""
    branches: int = 0
    tasks: int = 0
    """Tasks that were explored."""
    tasks_covered: int = 0
    """Tasks with at least one row."""
    counterfactual: int = 0
    """Rows."""
    rehearsal: int = 0
    """Rows."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_are: Literal["token ids", "words"] = "words"
    """Counted by token ids where every row has them, else by whitespace-separated words."""
    completion_tokens_are: Literal["token ids", "words"] = "words"
    duplicates: int = 0
    """Rows left out: the same prompt and completion is there already, within the kind."""
    leaked: int = 0
    """Rows left out: text of an experience in them."""
    empty: int = 0
    """Rows left out: the model said nothing."""
    invalid: int = 0
    """Rows left out on request: the environment said that the action was not understood or had no effect."""
    unfinished: int = 0
    """Branches left out: ended by a budget or an error."""
    diverged: int = 0
    """Branches left out: played on from a state that their history does not tell, since a replay that showed something
    else than was recorded had been accepted; or forked from such a one."""
    files: list[str] = Field(default_factory=list)
    """Names of the written files."""
    notes: list[str] = Field(default_factory=list)
    """What the user should know."""

    def rows(self) -> list[tuple[str, str]]:
        """The summary as label and value, for a table."""
        return [
            ("counterfactual rows", str(self.counterfactual)),
            ("rehearsal rows", str(self.rehearsal)),
            ("tasks covered", f"{self.tasks_covered} of {self.tasks}"),
            (f"prompt tokens ({self.prompt_tokens_are})", str(self.prompt_tokens)),
            (f"completion tokens ({self.completion_tokens_are})", str(self.completion_tokens)),
            ("duplicates removed", str(self.duplicates)),
            ("leaking rows removed", str(self.leaked)),
            ("empty rows removed", str(self.empty)),
            *([("rows of invalid actions removed", str(self.invalid))] if self.invalid else []),
            ("unfinished branches ignored", f"{self.unfinished} of {self.branches}"),
            *([("diverged branches ignored", f"{self.diverged} of {self.branches}")] if self.diverged else []),
        ]

    def __str__(self) -> str:
        """The table and the notes, for the terminal."""
        width = max(len(label) for label, _ in self.rows())
        return "\n".join([f"{label:<{width}}  {value}" for label, value in self.rows()] + self.notes)


def examples(
    branches: Iterable[Branch],
    *,
    keep: Keep = "success",
    skip_invalid: bool = False,
    diverged: bool = False,
    history: int | None = None,
    prompts: Prompts | None = None,
    played: Prompts | None = None,
    prompt_ids: bool = True,
) -> tuple[list[Example], Summary]:
    """All clean rows of the trees, counterfactual ones first, in an order that does not depend on the branches' order.

    Args:
        branches: of any number of tasks, with all their ancestors.
        keep: "success": a branching event counts when its branch ended in success; "improved": when its return is
            higher than its parent's, unless it ended by a budget or an error.
        skip_invalid: make no row of a turn that the environment called invalid (not understood, or without effect). The
            method keeps them; a policy that sees no history learns from them to repeat what did nothing.
        diverged: also take branches that were played on after an accepted divergence, and those forked from them.
        history: earlier turns shown in a prompt; use what the policy was run with. None is all.
        prompts: the texts that rows are rendered with.
        played: the texts that the policy was run with, whose sentence carried the experience; ``prompts`` if None.
        prompt_ids: keep the recorded token ids of prompts that held no experience. False where ``history`` or
            ``prompts`` is not what the policy was run with.
    """
    if keep not in ("success", "improved"):
        raise ConfigError(f'keep is {keep!r}; it must be "success" or "improved"')
    if history is not None and history < 0:
        raise ConfigError(f"history is {history}; it must be None (all turns), 0 (none) or a number of turns")
    trees: dict[str, dict[str, Branch]] = {}
    for branch in branches:
        trees.setdefault(branch["task"]["id"], {})[branch["id"]] = branch
    summary = Summary(keep=keep, history=history, tasks=len(trees), branches=sum(map(len, trees.values())))
    rows: dict[tuple[str, bytes], Example] = {}
    prompts = prompts or Prompts()
    for task_id in sorted(trees):
        tree = trees[task_id]
        summary.unfinished += sum(branch["end"] in UNFINISHED for branch in tree.values())
        leaks = LeakCheck(tree.values(), played or prompts)
        left_out = set() if diverged else _diverged(tree)
        summary.diverged += len(left_out)
        for kind, branch, t, turns in _pairs(tree, keep):
            if branch["id"] in left_out:
                continue
            row = _row(kind, tree, branch, t, turns, history, prompts, prompt_ids)
            content = json.dumps([row["prompt"], row["completion"]]).encode()
            key = (kind, hashlib.blake2b(content).digest())  # prompts share their texts; whole copies would fill memory
            if skip_invalid and turns[t]["valid"] is False:
                summary.invalid += 1
            elif not row["completion"][0]["content"].strip():
                summary.empty += 1
            elif leaks(row, turns[: t + 1]):
                summary.leaked += 1
            elif key in rows:
                summary.duplicates += 1
            else:
                rows[key] = row
    ordered = sorted(rows.values(), key=lambda row: row["kind"])
    summary.counterfactual = sum(row["kind"] == "counterfactual" for row in ordered)
    summary.rehearsal = len(ordered) - summary.counterfactual
    summary.tasks_covered = len({row["task_id"] for row in ordered})
    summary.prompt_tokens, summary.prompt_tokens_are = _count(ordered, "prompt")
    summary.completion_tokens, summary.completion_tokens_are = _count(ordered, "completion")
    return ordered, summary


def _pairs(tree: dict[str, Branch], keep: Keep) -> Iterator[tuple[ExampleKind, Branch, int, list[Turn]]]:
    """Kind, branch, decision point and root-to-leaf path of every row that the method asks for."""
    for branch_id in sorted(tree, key=lambda name: (len(name), name)):
        branch = tree[branch_id]
        parent = tree[branch["parent"]] if branch["parent"] is not None else None
        turns = path(tree, branch_id)
        if parent is not None and branch["experience"] and branch["turns"] and branch["end"] not in UNFINISHED:
            counts = branch["end"] == "success" if keep == "success" else branch["return_"] > parent["return_"]
            if counts:
                yield "counterfactual", branch, branch["decision_point"], turns
        if branch["end"] == "success":
            for t in range(len(turns)):
                yield "rehearsal", branch, t, turns


def _diverged(tree: dict[str, Branch]) -> set[str]:
    """Branches whose path holds turns played after an accepted divergence: their history is not what led to them."""

    def told_wrong(branch: Branch | None) -> bool:
        while branch is not None:
            if branch.get("divergence") and branch["end"] != "replay_divergence":
                return True
            # It holds turns of its parent's own only if it leaves it after the parent's start.
            above = tree[branch["parent"]] if branch["parent"] is not None else None
            while above is not None and branch["decision_point"] <= above["decision_point"]:
                above = tree[above["parent"]] if above["parent"] is not None else None
            branch = above
        return False

    return {name for name, branch in tree.items() if told_wrong(branch)}


def _row(
    kind: ExampleKind,
    tree: dict[str, Branch],
    branch: Branch,
    t: int,
    turns: list[Turn],
    history: int | None,
    prompts: Prompts,
    prompt_ids: bool,
) -> Example:
    message = turns[t]["message"]
    player = branch  # whose own turn this is
    while t < player["decision_point"] and player["parent"] is not None:
        player = tree[player["parent"]]
    told = player["experience"] is not None  # then the recorded prompt's ids hold the experience
    return Example(
        version=FORMAT_VERSION,
        kind=kind,
        prompt=prompts.act_messages(branch["task"], turns[:t], turns[t]["observation"], history=history),
        completion=[Message(role="assistant", content=said(message))],
        task_id=branch["task"]["id"],
        branch_id=branch["id"],
        decision_point=t,
        weight=1.0,
        prompt_token_ids=message.get("prompt_token_ids") if prompt_ids and not told else None,
        completion_token_ids=message.get("token_ids"),
    )


def _count(rows: list[Example], part: Literal["prompt", "completion"]) -> tuple[int, Literal["token ids", "words"]]:
    ids = [row["prompt_token_ids"] if part == "prompt" else row["completion_token_ids"] for row in rows]
    if rows and all(i is not None for i in ids):
        return sum(len(i or ()) for i in ids), "token ids"
    return sum(len(message["content"].split()) for row in rows for message in row[part]), "words"
