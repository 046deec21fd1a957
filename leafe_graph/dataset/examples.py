"""From experience trees to training rows.

A counterfactual row is (h_τ, a'_τ) of a branching event that counts: the prompt *without* the experience, the action
that was sampled with it. A preference is (h_τ, a'_τ, a_τ): that action, and what the parent did there. Rehearsal rows
are all (h_t, a_t) of successful trajectories, branches included. Rollouts are all of independent attempts, with their
advantages (groups.py). At probed states a model of the world predicts what is seen after an action, and a
self-reflection is an action with thoughts before it. Which of them are made is told in asked.py. Every row is checked
against every experience of its task's tree (leaks.py): one that leaks is dropped and counted. Only ``teacher_prompt``
holds one, on purpose.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ..errors import ConfigError
from ..prompts import Prompts
from ..settings import Live, Rows, Shown, takes
from ..text import matches
from ..tree.branches import owner
from ..tree.probes import Probes
from ..types import FORMAT_VERSION, Branch, Example, Message, ModelMessage, Turn
from .asked import Asked, asked, at_most, weights
from .leaks import LeakCheck
from .messages import NoRow, answered, numbered, said_text, text_of, told
from .summary import Summary

KEEP_INVALID = ("rollout", "world_model", "on_policy")
"""Kinds that ``skip_invalid`` leaves alone: they imitate no action."""


class Arguments(Rows, Shown):
    """What `examples` is called with. ``history``: use what the policy was run with."""

    branches: Live[Iterable[Branch]] = Field(kw_only=False)
    """Of any number of tasks, with all their ancestors."""
    prompts: Live[Prompts | None] = None
    """The texts that rows are rendered with."""
    played: Live[Prompts | None] = None
    """The texts that the policy was run with, whose sentence carried the experience; ``prompts`` if None."""
    experience_turns: int | None = None
    """Turns of a branch that were shown its experience, as the policy was run; None is all."""
    probes: Live[Probes | None] = None
    """What was tried at the paths' states; some kinds need it."""
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
    summary = Summary(asked=own, history=args.history)
    rows = sorted(clean_rows(sorted(trees.items()), args, summary), key=lambda row: row["kind"])
    told = weights(Counter((row["kind"], row["task_id"]) for row in rows), args.balance)
    for row in rows:
        row["weight"] = told.get((row["kind"], row["task_id"]), 1.0)
    return rows, summary


def clean_rows(
    trees: Iterable[tuple[str, Mapping[str, Branch]]], args: Arguments, summary: Summary
) -> Iterator[Example]:
    """The rows of `examples`, tree by tree and without weights.

    Args:
        trees: branches by id, of each task; of rows that are alike the first one stays.
        args: what `examples` is called with; its ``branches`` are not looked at.
        summary: counts, and is whole when the last row was given.

    Raises:
        ConfigError: a pattern of ``nodes`` is that of no decision's node.
    """
    sizes = {part: _Size() for part in ("prompt", "completion")}
    with closing(_Known()) as known:
        for tree in _judged(trees, args, summary, known):
            for row in kept(tree):
                sizes["prompt"].add(row["prompt_token_ids"], known.words(row["prompt"]))
                sizes["completion"].add(row["completion_token_ids"], known.words(row["completion"]))
                yield row
    summary.prompt_tokens, summary.prompt_tokens_are = sizes["prompt"].told()
    summary.completion_tokens, summary.completion_tokens_are = sizes["completion"].told()


class Judged(NamedTuple):
    """A row that was asked for, and what became of it."""

    asked: Asked
    row: Example | None
    """None where no row can hold it."""
    left_out: str = ""
    """Why it is left out: the name of the field of `Summary` that counts it. Empty of a row that stays."""


def kept(rows: Iterable[Judged]) -> list[Example]:
    """The rows that stay."""
    return [each.row for each in rows if each.row is not None and not each.left_out]


def judged_rows(
    trees: Iterable[tuple[str, Mapping[str, Branch]]], args: Arguments, summary: Summary
) -> Iterator[list[Judged]]:
    """What becomes of every row that is asked for, tree by tree; arguments and errors are those of `clean_rows`."""
    with closing(_Known()) as known:
        yield from _judged(trees, args, summary, known)


def _judged(
    trees: Iterable[tuple[str, Mapping[str, Branch]]], args: Arguments, summary: Summary, known: "_Known"
) -> Iterator[list[Judged]]:
    prompts = args.prompts or Prompts()
    nodes: set[str] = set()
    for _, tree in trees:
        known.begin()
        summary.tasks += 1
        summary.branches += len(tree)
        if args.nodes is not None:
            nodes |= {turn.get("node") or "" for branch in tree.values() for turn in branch["turns"]}
        rows = [*_of_tree(tree, prompts, args, known, summary)]
        drawn = {id(row) for row in at_most(kept(rows), args.counterfactual_per_task, args.seed)}
        rows = [each if each.left_out or id(each.row) in drawn else each._replace(left_out="over") for each in rows]
        for each in rows:
            count = each.left_out or each.asked.kind
            setattr(summary, count, getattr(summary, count) + 1)
        summary.tasks_covered += bool(drawn)
        yield rows
    _refuse_other_nodes(args.nodes, nodes)


def _of_tree(
    tree: Mapping[str, Branch], prompts: Prompts, args: Arguments, known: "_Known", summary: Summary
) -> Iterator[Judged]:
    """The rows of a tree, with what speaks against each."""
    leaks = LeakCheck(tree.values(), args.played or prompts)
    task = next(iter(tree.values()))["task"]["id"]
    probes = args.probes[task] if args.probes is not None and task in args.probes else ()
    for each in asked(tree, summary.asked, summary, probes, args.experience_turns):
        if args.nodes is not None and not matches(each.turns[each.t].get("node"), args.nodes):
            yield Judged(each, None, "other_nodes")
            continue
        try:
            row = _row(each, tree, prompts, args)
        except NoRow:
            yield Judged(each, None, "unreadable")
            continue
        if args.skip_invalid and each.kind not in KEEP_INVALID and each.turns[each.t]["valid"] is False:
            yield Judged(each, row, "invalid")
        elif each.reflection is not None and not _fit(each, row, prompts):
            yield Judged(each, row, "unfit")
        elif not all(text_of(message) for message in (*row["completion"], *row.get("rejected", ()))):
            yield Judged(each, row, "empty")
        elif leaks(row, each.turns[: each.t + 1], each.rejected):
            yield Judged(each, row, "leaked")
        else:
            yield Judged(each, row, "" if known.new(row) else "duplicates")


def _refuse_other_nodes(nodes: list[str] | None, known: set[str]) -> None:
    """See that each pattern is that of a node."""
    for pattern in nodes or ():
        if not any(matches(node, [pattern]) for node in known - {""}):
            names = ", ".join(sorted(known - {""}))
            there = f"those of these records are {names}" if names else "these records name none"
            raise ConfigError(f"nodes: no decision is {pattern!r}'s: {there}")


def _row(each: Asked, tree: Mapping[str, Branch], prompts: Prompts, args: Arguments) -> Example:
    branch, t, turns = each.branch, each.t, each.turns
    turn, request = turns[t], turns[t].get("request")
    message = turn["message"]
    # Where it was told one, the recorded prompt's ids hold the experience.
    hidden = owner(tree, branch["id"], t)["experience"] is not None

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
    if each.outcome is not None or each.reflection is not None:
        assert args.probes is not None
        settings, row["completion_token_ids"] = args.probes.settings, None
        if each.outcome is not None:
            row["prompt_token_ids"], last = None, row["prompt"][-1]
            question = settings.predict.format(observation=last["content"], action=each.outcome["action"])
            row["prompt"] = [*row["prompt"][:-1], Message(role=last["role"], content=question)]
            row["completion"] = [Message(role="assistant", content=each.outcome["observation"])]
        else:
            thought = settings.thought.format(reflection=each.reflection, action=turn["action"])
            row["completion"] = [Message(role="assistant", content=thought)]
    if each.rejected is not None:
        row["rejected"] = [_said(each.rejected, turn)]
        row["rejected_token_ids"] = each.rejected["message"].get("token_ids")
    if each.kind == "rollout":
        row["advantage"] = each.advantage
        # Rounding can leave one just above 0. What was said with an experience is not known without it.
        row["logprobs"] = None if hidden else [min(0.0, each) for each in message["logprobs"]]
    if each.kind == "counterfactual" and args.teacher and branch["experience"]:
        row["teacher_prompt"] = asked_with(branch["experience"])
    if each.experience is not None:
        row["teacher_prompt"] = asked_with(each.experience)
    if request and request["tools"]:
        row["tools"] = request["tools"]
    if node := turn.get("node"):
        row["node"] = node
    return row


TWICE = 100
"""Characters of a thought that, where they come again, show that it says itself twice."""


def _fit(each: Asked, row: Example, prompts: Prompts) -> bool:
    """Whether a self-reflection teaches what it should: it ends in its own action, and is no talk about an expert."""
    text, thought = row["completion"][0]["content"], each.reflection or ""
    twice = len(thought) >= 2 * TWICE and thought[:TWICE] in thought[TWICE:]
    return (
        prompts.action(ModelMessage(content=text)) == each.turns[each.t]["action"]
        and not twice
        and "expert" not in thought.lower()
    )


def _said(turn: Turn, asked: Turn) -> Message:
    """What the model said at a turn, as a completion of what it was ``asked`` has it."""
    if (request := asked.get("request")) is None or "request" not in turn:
        return Message(role="assistant", content=said_text(turn))
    return numbered([*request["messages"], answered(turn)])[-1]


class _Known:
    """Which rows there are already; of as many as there are, so not in memory."""

    def __init__(self) -> None:
        self.begin()
        self._rows = sqlite3.connect("")  # a file without a name, of which a part is in memory
        self._rows.execute("CREATE TABLE rows (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def begin(self) -> None:
        """Begin another task: its texts repeat each other."""
        self._texts: dict[tuple[str, str, bool], tuple[Any, bytes]] = {}
        """Messages and lists of tools, with a digest."""
        self._words: dict[int, int] = {}
        """Of these messages, by identity."""

    def close(self) -> None:
        """Forget them."""
        self._rows.close()

    def new(self, row: Example) -> bool:
        """Whether no such row came before; its messages become those of earlier rows, which would fill memory.

        A row is another one within its kind by its texts; one of a rollout by where it was sampled, since each counts.
        """
        key: list[bytes | str] = [row["kind"]]
        for column in ("prompt", "completion", "rejected"):
            if column in row:
                held = [self._held(message["role"], message) for message in row[column]]
                row[column] = [message for message, _ in held]
                key.append(b"".join(digest for _, digest in held))
        if "tools" in row:
            row["tools"], digest = self._held("tools", row["tools"])
            key.append(digest)
        if row["kind"] == "on_policy":
            key.append(_digest(row["teacher_prompt"]))
        if row["kind"] == "rollout":
            return True
        return self._rows.execute("INSERT OR IGNORE INTO rows VALUES (?)", [_digest(key)]).rowcount == 1

    def words(self, messages: Iterable[Message]) -> int:
        """How many words the messages of a row have that is `new`."""
        return sum(self._words[id(message)] for message in messages)

    def _held(self, kind: str, value: Any) -> tuple[Any, bytes]:
        plain = isinstance(value, dict) and len(value) == 2  # a message of role and content: most are
        said = value["content"] if plain else json.dumps(value, sort_keys=True)
        place = kind, said, plain
        if place not in self._texts:
            self._texts[place] = value, _digest(place)
            if isinstance(value, dict):
                self._words[id(value)] = len(text_of(value).split())
        return self._texts[place]


def _digest(value: object) -> bytes:
    return hashlib.blake2b(repr(value).encode(errors="surrogatepass"), digest_size=24).digest()


class _Size:
    """How long a part of the rows is: in token ids where every row has them, else in words."""

    def __init__(self) -> None:
        self._ids = self._words = self._rows = self._untold = 0

    def add(self, ids: list[int] | None, words: int) -> None:
        self._rows += 1
        self._untold += ids is None
        self._ids += len(ids or ())
        self._words += words

    def told(self) -> tuple[int, Literal["token ids", "words"]]:
        return (self._ids, "token ids") if self._rows and not self._untold else (self._words, "words")
