"""A playbook from what was played: a reflector looks at each task's attempts, a curator adds what there is to learn.

ACE's (arXiv 2510.04618) two other roles; its generator is the policy, which the playbook is shown to.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage

from ..agent.asking import ask
from ..agent.context import Context
from ..agent.model_calls import innermost
from ..budget import add_costs, no_cost
from ..errors import RunFolderError
from ..files import make_folder, save_text, writing
from ..method_settings import Curating
from ..parsing import json_line
from ..seeds import call_seed
from ..text import without_thoughts
from ..tree.branches import FAILED, path
from ..tree.run_folder import RunFolder
from ..types import Branch, Cost, Message
from .playbook import EMPTY, Playbook, without_playbook


@dataclass(kw_only=True)
class Curated:
    """What a curation came to."""

    tasks: int = 0
    """That were reflected upon."""
    added: int = 0
    """Bullets."""
    known: int = 0
    """Bullets left out: one like it was there."""
    too_long: int = 0
    """Bullets left out: more by itself than the playbook may have."""
    tags: int = 0
    """Bullets that were said to have helped or misled."""
    unparsed: int = 0
    """Answers that were no JSON as asked for."""
    bullets: int = 0
    """In the playbook, at the end."""
    tokens: int = 0
    """Of the playbook, at the end."""
    cost: Cost = field(default_factory=no_cost)


def curate(run: RunFolder | str | Path, before: str, context: Context, settings: Curating, out: str | Path) -> Curated:
    """Write the playbook ``out`` from a run and the playbook that it was played with.

    Tasks are taken one after the other, as they stand in the run. Answers are kept beside it, in ``.jsonl``: after a
    kill the same call asks for none of them again.

    Args:
        run: a run folder.
        before: the text of the playbook that the run's policy was shown; empty for none.
        context: the policy, which reflects and curates unless there is another reflector.
        settings: how.
        out: the file to write; its folder is made.

    Raises:
        RunFolderError: it cannot be written.
    """
    folder, out = run if isinstance(run, RunFolder) else RunFolder(run), Path(out)
    make_folder(out.parent)
    playbook = Playbook(
        before, count=counter(context.policy), max_tokens=settings.max_tokens, similarity=settings.similarity
    )
    return asyncio.run(_curate(folder, before, playbook, context, settings, out))


def counter(model: Any) -> Callable[[str], int]:
    """Counts a text's tokens: as the model does in a message of its own, else a token a byte."""
    count = getattr(innermost(model), "count_prompt_tokens", None)
    if count is None:
        return lambda text: len(text.encode(errors="replace"))
    return lambda text: int(count([HumanMessage(text)]))


async def _curate(
    run: RunFolder, before: str, playbook: Playbook, context: Context, settings: Curating, out: Path
) -> Curated:
    found, log = Curated(), out.with_suffix(".jsonl")
    known = _answers(log)
    for task in run.settings.tasks:
        tree = {name: each for name, each in run.trees.get(task, {}).items() if each["end"] not in FAILED}
        if not any(each["turns"] for each in tree.values()):
            continue
        answers = known.get(task)
        if answers is None:
            answers = await _asked(task, tree, before, playbook, context, settings)
            with writing(out), log.open("ab") as lines:
                lines.write(json_line(answers).encode(errors="replace"))
        found.tasks += 1
        found.cost = add_costs(found.cost, answers["cost"])
        _apply(answers, playbook, found)
    found.bullets, found.tokens = len(playbook.bullets), playbook.tokens
    save_text(out, str(playbook))
    return found


async def _asked(
    task: str,
    tree: Mapping[str, Branch],
    before: str,
    playbook: Playbook,
    context: Context,
    settings: Curating,
) -> dict[str, Any]:
    """What reflector and curator say of a task's attempts; the curator is asked where there is an insight."""
    root, said = context.play.seed, dict[str, Any](task=task, reflection=None, curation=None, cost=no_cost())

    async def answer(role: str, text: str) -> str | None:
        seed = None if root is None else call_seed(root, task, role)
        how: Any = {"max_tokens": settings.answer_tokens, "seed": seed, "reflections": int(role == "reflection")}
        message, cost = await ask(context.reflector, [Message(role="user", content=text)], context, **how)
        said["cost"] = add_costs(said["cost"], cost)
        said[role] = None if message is None else without_thoughts(message["content"])
        return said[role]  # type: ignore[no-any-return]

    first = next(iter(tree.values()))
    told = settings.reflect.format(
        playbook=before or EMPTY,
        task=without_playbook(first["task"], before),
        trace=_trace(tree, context),
        outcome="succeeded" if any(each["end"] == "success" for each in tree.values()) else "failed",
    )
    if (insight := _insight(await answer("reflection", told))) is not None:
        await answer("curation", settings.curate.format(playbook=playbook.shown, insight=insight))
    return said


def _apply(answers: Mapping[str, Any], playbook: Playbook, found: Curated) -> None:
    """Do what the answers say."""
    reflection, curation = (_object(answers[role]) for role in ("reflection", "curation"))
    found.unparsed += _insight(answers["reflection"]) is None
    tags = reflection.get("bullets") if reflection else None
    for name, tag in tags.items() if isinstance(tags, dict) else ():
        if tag in ("helpful", "harmful"):
            found.tags += playbook.tag(name, helpful=tag == "helpful")
    if answers["curation"] is None:
        return
    bullets = curation.get("add") if curation else None
    found.unparsed += not isinstance(bullets, list)
    for each in bullets if isinstance(bullets, list) else ():
        if isinstance(each, dict) and isinstance(text := each.get("text"), str):
            section = each.get("section")
            came = playbook.add(section if isinstance(section, str) else "", text)
            found.added += came == "added"
            found.known += came == "known"
            found.too_long += came == "too long"


def _trace(tree: Mapping[str, Branch], context: Context) -> str:
    """All attempts at a task, in order."""
    parts = []
    for number, name in enumerate(tree, 1):
        steps = [
            context.prompts.step.format(number=t, action=turn["action"], feedback=turn["feedback"])
            for t, turn in enumerate(path(tree, name))
        ]
        how = "succeeded" if tree[name]["end"] == "success" else "failed"
        parts.append("\n".join([f"Attempt {number}, which {how}:", *steps]))
    return "\n\n".join(parts)


def _insight(answer: str | None) -> str | None:
    held = _object(answer)
    insight = held.get("insight") if held else None
    return insight if isinstance(insight, str) and insight.strip() else None


def _object(answer: str | None) -> dict[str, Any] | None:
    """The first JSON object in an answer that holds what was asked for."""
    text, decoder = answer or "", json.JSONDecoder()
    at = text.find("{")
    while at != -1:
        try:
            held, _ = decoder.raw_decode(text, at)
            if isinstance(held, dict) and held.keys() & {"insight", "add"}:
                return held
        except (ValueError, RecursionError):
            pass
        at = text.find("{", at + 1)
    return None


def _answers(log: Path) -> dict[str, dict[str, Any]]:
    """Those that are there, by task; a torn last line is cut off."""
    if not log.exists():
        return {}
    found, whole = dict[str, dict[str, Any]](), b""
    for line in log.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            answers = json.loads(line)
            found[answers["task"]] = answers
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{log} holds a line that is none of a curation: {error}") from error
        whole += line
    with writing(log):
        log.write_bytes(whole)
    return found
