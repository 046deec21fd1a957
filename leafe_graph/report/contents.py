"""What the viewer is given of a run: an overview with an outline of every tree, and each tree whole."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..budget import Budget, add_costs, no_cost
from ..dataset.asked import uncounted
from ..dataset.examples import Arguments, Judged, judged_rows
from ..dataset.export import as_played
from ..dataset.summary import Summary
from ..errors import ConfigError, LeafeError, NothingPlayed
from ..evaluation.results import Estimate, Result, powers_of_two
from ..evaluation.statistics import ALIKE
from ..prompts import Prompts, said
from ..redaction import without_passwords
from ..settings import Rows
from ..tree.branches import causes, frequent
from ..tree.outline import Outline
from ..tree.run_folder import RunFolder
from ..types import Branch, Time, Turn
from .times import day, took

POINTS = 24
"""Most points of a curve."""
HEAD = 240
"""So much of an instruction is in the list of tasks."""
_NO_FACT = ("tasks", "texts", "weights")
"""Settings that are told elsewhere, or say nothing to people."""


def overview(run: RunFolder) -> dict[str, Any]:
    """All but the trees; it knows a run that is still growing as far as it has come."""
    config = without_passwords(run.config)
    settings: dict[str, Any] = config.get("settings", {})
    outlines = run.outlines
    curves, notes = _results(run.folder / "eval")
    return {
        "title": title(settings, run.folder),
        "folder": run.folder.resolve().name,
        "facts": [*_facts(settings, run)],
        "settings": {name: value for name, value in settings.items() if name not in _NO_FACT},
        "texts": settings.get("texts", {}),
        "history": settings.get("history"),
        "experience_turns": settings.get("experience_turns"),
        "told": _told(settings),
        "tasks": {
            "planned": len(settings.get("tasks", ())),
            "played": len(run.trees),
            "solved": len(run.solved),
            "depths": _depths(run),
        },
        "branches": {"all": len(outlines), "forked": sum(outline.parent is not None for outline in outlines)},
        "ends": dict(Counter(outline.end for outline in outlines)),
        "errors": frequent(causes(outlines)),
        "cost": _spent(run, settings),
        "curves": curves,
        "notes": notes,
    }


def outline(tree: Iterable[Outline], rank: int) -> dict[str, Any]:
    """A tree in the list of tasks: what it takes to draw it small, to search, sort and filter.

    ``rank``: how many are more telling.
    """
    branches = [*tree]
    task = branches[0].task
    return {
        "id": task["id"],
        "rank": rank,
        "text": task["instruction"][:HEAD],
        "branches": [[b.id, b.parent, b.decision_point, b.turns, b.end, b.depth] for b in branches],
        "seconds": round(sum(b.cost["seconds"] for b in branches), 3),
        "steps": sum(b.cost["env_steps"] for b in branches),
    }


def trees(run: RunFolder, tasks: Iterable[str], rows: Rows | None = None) -> Iterator[dict[str, Any]]:
    """These trees whole, one after the other, in their order; each with the rows that an export makes of it.

    Args:
        run: the run.
        tasks: their ids.
        rows: which rows are asked for; what an export makes unless told if None.
    """
    rows = rows or Rows()
    try:
        settings = run.settings
        played = as_played(run, Prompts())
    except LeafeError as error:  # prompts of a class of its own, or settings of another release: the trees are shown
        for task in tasks:
            yield {**_tree(run.trees[task], {}, {}), "no_rows": str(error)}
        return
    making = Arguments(branches=[], **dict(rows), history=settings.history, prompts=played, played=played)
    read: list[Mapping[str, Branch]] = []

    def reading() -> Iterator[tuple[str, Mapping[str, Branch]]]:
        for task in tasks:
            read.append(run.trees[task])
            yield task, read[0]

    for judged in judged_rows(reading(), making, Summary(asked=rows, history=settings.history)):
        branches = read.pop()
        yield _tree(branches, _rows(judged), uncounted(branches, rows))


def title(settings: Mapping[str, Any], folder: Path) -> str:
    """What a run is called: its model, environment and strategy, else its folder."""
    model = settings.get("model")
    name = model.rstrip("/").rsplit("/")[-1].removeprefix("local:") if isinstance(model, str) else None
    parts = [name, settings.get("env"), settings.get("strategy")]
    return " · ".join(str(part) for part in parts if part) or folder.resolve().name


def as_json(value: Any) -> bytes:
    """Compact, and of texts that UTF-8 can say."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def written(file: Path) -> str:
    """When a file was written last; empty where there is none."""
    return day(file.stat().st_mtime) if file.exists() else ""


def _facts(settings: Mapping[str, Any], run: RunFolder) -> Iterator[tuple[str, str]]:
    model = settings.get("model")
    first: Mapping[str, Any] = run.branches[0] if run.outlines else {}
    told = {
        "model": model if isinstance(model, str | None) else json.dumps(model, ensure_ascii=False),
        "adapter": settings.get("adapter"),
        "reflector": settings.get("reflector"),
        "agent": settings.get("agent"),
        "environment": settings.get("env"),
        "split": settings.get("split"),
        "strategy": settings.get("strategy"),
        "first branch": day(span["started"]) if (span := first.get("time")) else "",
        "last branch": written(run.folder / "branches.jsonl"),
    }
    for name, value in told.items():
        if value:
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _told(settings: Mapping[str, Any]) -> list[str]:
    """What stands before and after an experience in a prompt."""
    text = settings.get("texts", {}).get("experience", Prompts().experience)
    try:
        before, after = str(text).format(experience="\0").split("\0")
    except (ValueError, LookupError):
        return ["", ""]
    return [before, after]


def _depths(run: RunFolder) -> list[int]:
    """How many tasks were solved with no rewind before it, with one, two and so on at least."""
    least: dict[str, int] = {}
    for branch in run.outlines:
        if branch.end == "success":
            task = branch.task["id"]
            least[task] = min(branch.depth, least.get(task, branch.depth))
    counts = Counter(least.values())
    return [counts[depth] for depth in range(max(counts, default=-1) + 1)]


def _spent(run: RunFolder, settings: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Each kind of cost: of first attempts, of forks, and of tries that failed and were played again."""
    parts = {"roots": no_cost(), "forks": no_cost(), "again": no_cost()}
    for branch in run.all_outlines:
        part = "again" if branch.superseded else "roots" if branch.parent is None else "forks"
        parts[part] = add_costs(parts[part], branch.cost)
    limits: Mapping[str, Any] = settings.get("total_budget") or Budget().model_dump()
    costs: dict[str, Any] = dict(parts)
    return {
        kind: {**{part: round(cost[kind], 3) for part, cost in costs.items()}, "limit": limits.get(kind)}
        for kind in no_cost()
    }


def _results(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The curves of the saved evaluations of a run, and what is to be said of them and of those that are none."""
    results, curves, notes = [], [], []
    for file in sorted(folder.glob("*.json")):
        try:
            result, curve = _judged(file, file.stat().st_mtime_ns)
            results.append(result)
            curves.append(curve)
        except ConfigError as error:
            if '"pass_at_k"' in file.read_text(encoding="utf-8", errors="replace"):  # comparisons lie there too
                notes.append(str(error))
        except NothingPlayed as error:
            notes.append(str(error))
    notes += [warning for result in results if (warning := result.warning)]
    told = [
        {"name": result.policy, "tasks": len(result.tasks), "n": result.n, "points": points(curve)}
        for result, curve in zip(results, curves, strict=True)
    ]
    return told, notes + [ALIKE] * any(estimate.alike for curve in curves for estimate in curve)


@lru_cache(64)
def _judged(file: Path, written: int) -> tuple[Result, list[Estimate]]:
    """A saved evaluation and its curve; they are asked for again whenever a run that is followed has grown.

    ``written``: when the file was.
    """
    result = Result.load(file)
    step = max(1.0, result.n ** (1 / POINTS))
    ks = {round(step**i) for i in range(POINTS + 1)} | {*powers_of_two(result.n)}
    return result, result.curve(sorted(k for k in ks if 1 <= k <= result.n))  # refuses where every sample failed


def points(curve: Iterable[Estimate]) -> list[list[Any]]:
    """A curve as the viewer draws it."""
    return [[e.k, round(e.mean, 5), round(e.low, 5), round(e.high, 5), e.alike] for e in curve]


def _rows(judged: Iterable[Judged]) -> dict[str, list[list[Any]]]:
    """Of each branch: kind and decision point of its rows, and why one is left out."""
    told: dict[str, list[list[Any]]] = {}
    for each in judged:
        told.setdefault(each.asked.branch["id"], []).append([each.asked.kind, each.asked.t, each.left_out])
    return told


def _tree(
    branches: Mapping[str, Branch], rows: Mapping[str, list[list[Any]]], uncounted: Mapping[str, str]
) -> dict[str, Any]:
    """A tree whole; requests, of which each repeats the one before, as numbers of their messages."""
    known = _Numbered()
    told = [
        {
            "id": name,
            "parent": branch["parent"],
            "depth": branch.get("depth", 0),
            "at": branch["decision_point"],
            "experience": branch["experience"],
            "turns": [_turn(turn, known) for turn in branch["turns"]],
            "reflections": _reflections(branch),
            "end": branch["end"],
            "error": branch["error"],
            "divergence": branch.get("divergence"),
            "return": branch["return_"],
            "cost": branch["cost"],
            "time": _times(branch.get("time")),
            "rows": rows.get(name, []),
            "no_rows": uncounted.get(name),
        }
        for name, branch in branches.items()
    ]
    task = next(iter(branches.values()))["task"]
    return {"task": task, "branches": told, "messages": known.values}


def _turn(turn: Turn, known: "_Numbered") -> dict[str, Any]:
    message = turn["message"]
    told: dict[str, Any] = {
        name: turn[name]
        for name in ("observation", "action", "feedback", "reward", "valid", "node", "replies")
        if name in turn
    }
    told["content"] = message["content"]
    told |= {name: held for name in ("tool_calls", "refused_tool_calls", "thoughts") if (held := message.get(name))}
    if "request" in turn:
        request = turn["request"]
        told["request"] = [known(each) for each in request["messages"]]
        told["tools"] = known(request["tools"]) if request["tools"] else None
    elif message.get("tool_calls"):
        told["said"] = said(message)
    if "usage" in message:
        told |= {"prompt_tokens": message["usage"]["input_tokens"], "tokens": message["usage"]["output_tokens"]}
    for name, ids in (("prompt_tokens", message.get("prompt_token_ids")), ("tokens", message.get("token_ids"))):
        if ids is not None:
            told.setdefault(name, len(ids))
    if "time" in message:
        told["time"] = _times(message["time"], turn.get("time"))
    return told


def _reflections(branch: Branch) -> list[Any]:
    last, told = branch["reflection"], [*branch["reflections"]]
    known = told if last is None or last in told else [*told, last]
    return [each | {"time": _times(each["time"])} if "time" in each else each for each in known]


def _times(*spans: Time | None) -> list[float | None] | None:
    """When the first began, and the seconds of each; None where it is not known."""
    if spans[0] is None:
        return None
    return [round(spans[0]["started"], 1), *(span and round(took(span), 4) for span in spans)]


class _Numbered:
    """Values, each once, and their numbers."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def __call__(self, value: Any) -> int:
        number = self._numbers.setdefault(json.dumps(value, sort_keys=True), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number
