"""What the viewer is given of a whole ``leafe run`` or ``leafe bench``: rounds, or methods, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError
from ..evaluation.figures import Figure, Figures, Row
from ..evaluation.panel_tables import COSTS
from ..parsing import load_json, read_text
from ..redaction import without_passwords
from ..settings import Rows, mistakes
from .contents import POINTS, title, written


def rounds_overview(folder: Path) -> dict[str, Any]:
    """The rounds of a folder of ``leafe run``, as far as they are judged, and where each one's own page is.

    Raises:
        ConfigError: its files cannot be read.
    """
    settings = without_passwords(_json(folder / "run.json"))
    file = folder / "rounds.json"
    told: dict[str, Any] = without_passwords(_json(file)) if file.is_file() else {}
    rounds = [_round(folder, entry) for entry in told.get("rounds", [])]
    known = {entry["round"] for entry in rounds}
    later = sorted(int(name) for each in folder.glob("round-*") if (name := each.name[6:]).isdigit())
    rounds += [{"round": n, "href": _page(folder, n), "points": []} for n in later if n not in known and n]
    facts = [
        ("model", settings.get("model")),
        ("method", settings.get("method")),
        ("environment", settings.get("env")),
        ("best", f"round {told['best']}" if told else None),
        ("state", told.get("stopped") or "not all rounds are played"),
        ("last figures", written(file)),
    ]
    return {
        "title": title({**settings, "strategy": settings.get("method")}, folder),
        "folder": folder.resolve().name,
        "facts": [(name, str(value)) for name, value in facts if value],
        "settings": settings,
        "rounds": rounds,
        "curves": [
            {"name": f"round {entry['round']}", "points": entry["points"]} for entry in rounds if entry["points"]
        ],
        "notes": [entry["warning"] for entry in rounds if entry.get("warning")],
    }


def bench_overview(folder: Path) -> dict[str, Any]:
    """The methods of a folder of ``leafe bench``, as its last tables have them; none while nothing is judged.

    Raises:
        ConfigError: its tables cannot be read.
    """
    file = folder / "table.json"
    if not file.is_file():
        named = {"title": f"bench · {folder.resolve().name}", "folder": folder.resolve().name}
        return named | {"facts": [("state", "no method is judged yet")]}
    told = _json(file)
    try:
        panel = Figures.model_validate(told["panel"])
    except (KeyError, ValidationError) as error:
        why = mistakes(error) if isinstance(error, ValidationError) else "it has no panel"
        raise ConfigError(f"{file} holds no tables of leafe bench: {why}") from error
    rows = [*panel.rows, *([panel.floor] if panel.floor else [])]
    facts = [("tasks", str(panel.tasks)), ("baselines", ", ".join(panel.baselines)), ("last figures", written(file))]
    return {
        "title": f"bench · {folder.resolve().name}",
        "folder": folder.resolve().name,
        "facts": facts,
        "methods": [_method(row, panel) for row in rows],
        "ks": panel.ks,
        "baseline": panel.baselines[0],
        "costs": [name for name in COSTS if any(name in cost for row in rows for cost in row.costs)],
        "cost_names": COSTS,
        "curves": [{"name": row.method, "points": _points(row.pass_at)} for row in rows],
        "notes": [
            *panel.warnings,
            *(f"judged as it started: {each}" for each in told.get("learned_nothing", [])),
            *(f"not there yet: {each}" for each in told.get("missing", [])),
        ],
    }


def is_rounds(folder: Path) -> bool:
    """Whether ``leafe run`` made this folder."""
    return (folder / "run.json").is_file()


def is_bench(folder: Path) -> bool:
    """Whether ``leafe bench`` made this folder."""
    return (folder / "cells").is_dir()


def rows_of_rounds(folder: Path) -> Rows:
    """Which rows the rounds of a folder of ``leafe run`` are asked for."""
    asked = _json(folder / "run.json").get("export")
    own = {name: value for name, value in asked.items() if name in Rows.model_fields} if isinstance(asked, dict) else {}
    try:
        return Rows(**own)
    except ValidationError:  # of another release
        return Rows()


def _round(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    told = entry["pass_at_k"]
    spent: dict[str, float] = {}
    for cost in entry.get("spent", {}).values():
        for kind, amount in cost.items():
            spent[kind] = spent.get(kind, 0) + amount
    rows = entry.get("export", {})
    gain = entry.get("gain")
    return {
        "round": entry["round"],
        "href": _page(folder, entry["round"]),
        "points": [[e["k"], e["mean"], e["low"], e["high"], e.get("alike", False)] for e in told],
        "gain": None if gain is None else [gain["difference"], gain["low"], gain["high"]],
        "rows": {kind: rows[kind] for kind in ("counterfactual", "rehearsal", "preference") if rows.get(kind)},
        "seconds": sum(entry.get("seconds", {}).values()),
        "spent": spent,
        "warning": entry.get("warning"),
    }


def _page(folder: Path, number: int) -> str | None:
    """Where a round's own page is, or will be; None where it has no trees."""
    return f"round-{number}/report.html" if (folder / f"round-{number}" / "config.json").is_file() else None


def _method(row: Row, panel: Figures) -> dict[str, Any]:
    costs = [cost for cost in row.costs if cost]
    mean = {name: sum(cost.get(name, 0) for cost in costs) / len(costs) for cost in costs[:1] for name in cost}
    beside = [each for each in panel.against if (each.method, each.baseline) == (row.method, panel.baselines[0])]
    return {
        "name": row.method,
        "seeds": len(row.seeds),
        "pass_at": {k: [figure.mean, figure.low, figure.high, figure.alike] for k, figure in row.pass_at.items()},
        "against": {k: [d.mean, d.low, d.high] for each in beside for k, d in each.differences.items()},
        "cost": mean,
    }


def _points(figures: Mapping[int, Figure]) -> list[list[Any]]:
    every = max(1, len(figures) // (2 * POINTS))
    shown = [(k, f) for i, (k, f) in enumerate(sorted(figures.items())) if i % every == 0 or k == max(figures)]
    return [[k, round(f.mean, 5), round(f.low, 5), round(f.high, 5), f.alike] for k, f in shown]


def _json(file: Path) -> dict[str, Any]:
    told: dict[str, Any] = load_json(read_text(file), str(file))
    return told
