"""Which rows a task's tree is asked for, before they are rendered and checked; and what is drawn at random.

Draws go by a seed and by names, so a draw about one branch or task stays as it is when others come.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..settings import RowKind, Rows
from ..tree.branches import UNFINISHED, owner, path
from ..types import Branch, Example, Outcome, Probe, Turn
from .groups import advantages
from .summary import Summary


@dataclass(frozen=True, slots=True)
class Asked:
    """A row to make: the action at decision point ``t`` of a root-to-leaf path."""

    kind: RowKind
    branch: Branch
    t: int
    turns: list[Turn]
    """The path, from the task's start to the branch's end."""
    rejected: Turn | None = None
    """Of a preference: the turn that the parent took there."""
    advantage: float = 0.0
    """Of a rollout."""
    outcome: Outcome | None = None
    """Of a model of the world: what is to be predicted."""
    reflection: str | None = None
    """Of a self-reflection: the thoughts before the action."""
    experience: str | None = None
    """Of an on-policy row: what the teacher is told."""


def asked(
    tree: Mapping[str, Branch],
    rows: Rows,
    summary: Summary,
    probes: Sequence[Probe] = (),
    experience_turns: int | None = None,
) -> Iterator[Asked]:
    """Every row that the settings ask for; ``summary`` counts what is left out.

    ``probes`` are the tree's, ``experience_turns`` how long branches were shown their experience, None is always.

    A branching event is a branch with a parent. One that was told nothing, as by the strategy "rewind", is one only if
    its first action is another than its parent's there: else nothing was revised.
    """
    summary.unfinished += sum(branch["end"] in UNFINISHED for branch in tree.values())
    left_out = set() if rows.diverged else _diverged(tree)
    summary.diverged += len(left_out)
    better = _group(tree, rows, summary, left_out) if "rollout" in rows.kinds else {}
    for name in sorted(tree, key=lambda name: (len(name), name)):
        if name in left_out:
            continue
        branch, turns = tree[name], path(tree, name)
        if _counts(tree, branch, rows):
            yield from _revised(tree, branch, turns, rows, summary, left_out)
            if "on_policy" in rows.kinds and branch["parent"] not in left_out:
                yield from _unrevised(tree, branch, experience_turns)
        recovered = branch["parent"] is not None
        if branch["end"] == "success" and "rehearsal" in rows.kinds and (recovered or rows.rehearse == "all"):
            start = branch["decision_point"] if rows.rehearse == "recoveries" else 0
            if draw(rows.seed, branch["task"]["id"], name) < rows.rehearsal_share:
                yield from (Asked("rehearsal", branch, t, turns) for t in range(start, len(turns)))
            else:
                summary.unrehearsed += 1
        if name in better:
            known = [(t, own) for t, own in enumerate(better[name]) if own is not None]
            yield from (Asked("rollout", branch, t, turns, advantage=own) for t, own in known)
    if rows.siblings and "preference" in rows.kinds:
        yield from _siblings(tree, summary, left_out)
    for probe in probes:
        branch, turns, t = tree[probe["branch"]], path(tree, probe["branch"]), probe["decision_point"]
        if "world_model" in rows.kinds:
            for outcome in (probe["taken"], *probe["others"]):
                yield Asked("world_model", branch, t, turns, outcome=outcome)
        if "self_reflection" in rows.kinds and probe["reflection"] is not None:
            yield Asked("self_reflection", branch, t, turns, reflection=probe["reflection"])


def uncounted(tree: Mapping[str, Branch], rows: Rows) -> dict[str, str]:
    """Why branches that were forked give no correction, in words, by their ids."""
    left_out = set() if rows.diverged else _diverged(tree)
    told: dict[str, str] = {}
    for name, branch in tree.items():
        if name in left_out:
            told[name] = "it was played on, or forked from one that was, after a replay that showed something else"
        elif branch["parent"] is None:
            continue
        elif _counts(tree, branch, rows):
            same, _ = _parents(tree, branch)
            if same and (rows.skip_same or not branch["experience"]):
                told[name] = "its first action is its parent's there"
        elif branch["end"] in UNFINISHED or not branch["turns"]:
            told[name] = "it was not played to an end"
        else:
            told[name] = "it did not succeed" if rows.keep == "success" else "it ended no better than its parent"
    return told


def _counts(tree: Mapping[str, Branch], branch: Branch, rows: Rows) -> bool:
    """Whether this is a branching event that counts."""
    if branch["parent"] is None or not branch["turns"] or branch["end"] in UNFINISHED:
        return False
    if rows.keep == "success":
        return branch["end"] == "success"
    return rows.keep == "every" or branch["return_"] > tree[branch["parent"]]["return_"]


def _revised(
    tree: Mapping[str, Branch], branch: Branch, turns: list[Turn], rows: Rows, summary: Summary, left_out: set[str]
) -> Iterator[Asked]:
    """The rows of a branching event."""
    t, parent = branch["decision_point"], branch["parent"] or ""
    same, before = _parents(tree, branch)
    if "counterfactual" in rows.kinds:
        if same and (rows.skip_same or not branch["experience"]):
            summary.same += 1
        else:
            yield Asked("counterfactual", branch, t, turns)
    better = branch["end"] == "success" or branch["return_"] > tree[parent]["return_"]
    if "preference" in rows.kinds and better and before and parent not in left_out:
        if same:
            summary.same += 1
        else:
            yield Asked("preference", branch, t, turns, rejected=before[0])


def _parents(tree: Mapping[str, Branch], branch: Branch) -> tuple[bool, list[Turn]]:
    """Whether a fork's first action is the one that its parent took there; and the parent's turn, if it took one."""
    t = branch["decision_point"]
    before = path(tree, branch["parent"] or "")[t : t + 1]
    return [turn["action"] for turn in before] == [branch["turns"][0]["action"]], before


def _unrevised(tree: Mapping[str, Branch], branch: Branch, experience_turns: int | None) -> Iterator[Asked]:
    """What was done where the branch was forked, unless that was shown an experience itself."""
    t, parent = branch["decision_point"], tree[branch["parent"] or ""]
    turns, before = path(tree, parent["id"]), owner(tree, parent["id"], t)
    within = experience_turns is None or t - before["decision_point"] < experience_turns
    if branch["experience"] and t < len(turns) and not (before["experience"] is not None and within):
        yield Asked("on_policy", parent, t, turns, experience=branch["experience"])


def _siblings(tree: Mapping[str, Branch], summary: Summary, left_out: set[str]) -> Iterator[Asked]:
    """Pairs of branches that were told the same at one decision point: the best over each that ended worse."""
    told: dict[tuple[str, int, str | None], list[Branch]] = defaultdict(list)
    for name in sorted(tree, key=lambda name: (len(name), name)):
        branch = tree[name]
        played = bool(branch["turns"]) and branch["end"] not in UNFINISHED
        if branch["parent"] is not None and played and name not in left_out:
            told[branch["parent"], branch["decision_point"], branch["experience"]].append(branch)
    for branches in told.values():
        best = max(branches, key=_worth)
        for worse in branches:
            if _worth(worse) == _worth(best):
                continue
            if worse["turns"][0]["action"] == best["turns"][0]["action"]:
                summary.same += 1
            else:
                turns = path(tree, best["id"])
                yield Asked("preference", best, best["decision_point"], turns, rejected=worse["turns"][0])


def _worth(branch: Branch) -> tuple[bool, float]:
    """What the best of several branches has most of."""
    return branch["end"] == "success", branch["return_"]


def _group(
    tree: Mapping[str, Branch], rows: Rows, summary: Summary, left_out: set[str]
) -> dict[str, list[float | None]]:
    """The advantages of a task's attempts, a turn each; none where all are alike."""
    found = advantages({name: branch for name, branch in tree.items() if name not in left_out}, rows)
    alike = not any(any(each) for each in found.values())
    summary.groups += bool(found)
    summary.alike += bool(found) and alike
    return {} if alike else found


def _diverged(tree: Mapping[str, Branch]) -> set[str]:
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


def draw(seed: int, *names: str | int) -> float:
    """A number from 0 to below 1 that the seed and the names decide."""
    digest = hashlib.blake2b(json.dumps([seed, *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def at_most(rows: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """The rows without those counterfactual ones, drawn at random, that a task has above the limit."""
    if limit is None:
        return list(rows)
    own: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "counterfactual":
            own[row["task_id"]].append(row)

    def drawn(row: Example) -> float:
        return draw(seed, row["task_id"], row["branch_id"], "counterfactual")

    left_out = {id(row) for each in own.values() for row in sorted(each, key=drawn)[limit:]}
    return [row for row in rows if id(row) not in left_out]


def weights(numbers: Mapping[tuple[str, str], int], balance: str) -> dict[tuple[str, str], float]:
    """The weight of a row by its kind and task: a task's rows of a kind weigh as many, their square root, or 1.

    The mean of a kind is 1; and so is what is not told, rollouts among it.

    Args:
        numbers: of rows, by kind and task.
        balance: "rows", "root" or "tasks".
    """
    power = {"rows": 0.0, "root": 0.5, "tasks": 1.0}[balance]
    told = {place: number for place, number in numbers.items() if power and place[0] != "rollout"}
    totals: dict[str, int] = defaultdict(int)
    wholes: dict[str, float] = defaultdict(float)
    for (kind, _), number in told.items():
        totals[kind] += number
        wholes[kind] += number ** (1 - power)
    return {place: totals[place[0]] / wholes[place[0]] / number**power for place, number in told.items()}
