"""What a bench came to so far: table.md, table.json, Pass@k as a picture, and the page of the viewer."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency
from ..evaluation.panel import Entry, Panel, panel
from ..evaluation.random_policy import NAME as RANDOM
from ..files import save_json, save_text
from ..parsing import load_json, read_text
from ..report.page import write_overview
from ..rounds.folder import done
from ..text import markdown_table
from .cells import spent
from .choice import candidates, cells, chosen, has_learned, is_judged, result, scores
from .config import BenchConfig, told_setting

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)


def write_tables(config: BenchConfig) -> None:
    """Write the tables of all that is judged; nothing where nothing is."""
    entries = [*_entries(config)]
    names = dict.fromkeys(entry.method for entry in entries)
    if not names:
        return
    at_random = [cell for name in config.methods if _random(config, name) for cell in cells(config, name)]
    floor = next((result(config, cell, "test") for cell in at_random if is_judged(config, cell, "test")), None)
    baselines = [name for name in config.baselines if name in names] or [next(iter(names))]
    judged = panel(entries, baseline=baselines, floor=floor)
    tried, missing = [*_tried(config)], [*_missing(config)]
    idle = [*_learned_nothing(config)]
    told = {"panel": judged.model_dump(mode="json"), "settings": tried, "learned_nothing": idle, "missing": missing}
    save_json(config.out / "table.json", told)
    text = judged.markdown()
    if tried:
        assert config.tune is not None
        heads = ("method", "setting", f"Pass@{config.tune.k}, %", "")
        rows = [
            (each["method"], _told(each["setting"]), _percent(each["pass_at"]), "chosen" * each["chosen"])
            for each in tried
        ]
        tasks = f"{config.tune.tasks} {config.tune.split} tasks, {config.tune.samples} samples of each"
        text += f"\n## Settings that were tried\n\nOn {tasks}.\n\n{markdown_table(heads, rows)}\n"
    if idle:
        text += "\n## Judged as it started\n\n" + "".join(f"- {each}\n" for each in idle)
    if missing:
        text += "\n## Not there yet\n\n" + "".join(f"- {each}\n" for each in missing)
    save_text(config.out / "table.md", text)
    for suffix in ("svg", "png"):
        try:
            judged.plot(config.out / f"curves.{suffix}")
        except MissingDependency as error:
            log.info("no curves drawn: %s", error)
    write_overview(config.out)


def saved(config: BenchConfig) -> Panel | None:
    """What the last tables tell; None while nothing is judged."""
    file = config.out / "table.json"
    return Panel.model_validate(load_json(read_text(file), str(file))["panel"]) if file.exists() else None


def shown(config: BenchConfig) -> "Iterator[Table | str]":
    """The tables for the terminal."""
    judged = saved(config)
    yield from ["nothing is judged yet"] if judged is None else judged.tables()
    yield from (f"judged as it started: {each}" for each in _learned_nothing(config))
    yield from (f"not there yet: {each}" for each in _missing(config))
    yield f"tables, curves and cells are in {config.out}"


def dry_run(config: BenchConfig) -> "Table":
    """All cells, and what is there of each."""
    from rich.table import Table

    table = Table(title=f"{config.out}: {len(config.methods)} methods, seeds {', '.join(map(str, config.seeds))}")
    for head in ("method", "setting", "seed", "learned", "judged to choose", "judged to compare"):
        table.add_column(head)

    def yes(there: bool) -> str:
        return "yes" if there else "no"

    for name, entry in config.entries.items():
        setting = chosen(config, name)
        tried = candidates(config, name)
        for cell in dict.fromkeys([*tried, *cells(config, name)]):
            told = _told(told_setting(config.grid(name)[cell.setting]))
            learned = yes(has_learned(config, cell)) if entry.learns else "nothing to learn"
            compared = yes(is_judged(config, cell, "test")) if setting == cell.setting else ""
            to_choose = yes(is_judged(config, cell, "tune")) if cell in tried else ""
            table.add_row(name, told, str(cell.seed), learned, to_choose, compared)
        if setting is None:
            later = f"the best of {len(config.grid(entry.choice or name))}"
            table.add_row(name, later, ", ".join(map(str, config.seeds_of(name))), "no", "", "no")
    return table


def _entries(config: BenchConfig) -> Iterator[Entry]:
    """The policies that are judged, as the tables want them."""
    for name, entry in config.entries.items():
        for cell in () if _random(config, name) else cells(config, name):
            if not is_judged(config, cell, "test"):
                continue
            cost, targets = spent(config, cell)
            yield Entry(
                method=name,
                seed=cell.seed if entry.learns else None,
                result=result(config, cell, "test"),
                cost=dict(cost, target_tokens=targets) if entry.learns else {},  # type: ignore[arg-type]
                chosen=told_setting(config.grid(name)[cell.setting]),
            )


def _random(config: BenchConfig, name: str) -> bool:
    return config.entries[name].method == RANDOM


def _tried(config: BenchConfig) -> Iterator[dict[str, Any]]:
    """Each setting that a method is chosen from, with how it did."""
    for name in config.methods:
        best = chosen(config, name)
        for cell, score in zip(candidates(config, name), scores(config, name), strict=True):
            yield {
                "method": name,
                "setting": told_setting(config.grid(name)[cell.setting]),
                "pass_at": score,
                "chosen": cell.setting == best,
            }


def _learned_nothing(config: BenchConfig) -> Iterator[str]:
    """Policies that are what they started from, and why."""
    for cell in (cell for name, entry in config.entries.items() if entry.learns for cell in cells(config, name)):
        if has_learned(config, cell) and not (told := done(config.folder(cell), "learn"))["rounds"]:
            yield f"{cell}: {told['stopped']}"


def _missing(config: BenchConfig) -> Iterator[str]:
    """What is not judged yet."""
    for name in config.methods:
        yield from (f"{cell}, to choose" for cell in candidates(config, name) if not is_judged(config, cell, "tune"))
        if chosen(config, name) is None:
            yield f"{name}, its setting not chosen"
        yield from (str(cell) for cell in cells(config, name) if not is_judged(config, cell, "test"))


def _told(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
