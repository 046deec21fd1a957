"""Pass@k to look at: a table and curves."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .curves import Curve, draw

if TYPE_CHECKING:
    from rich.table import Table
from .results import Result, powers_of_two
from .statistics import ALIKE


def table(results: Sequence[Result], ks: Iterable[int] | None = None) -> "Table":
    """Pass@k in % with 95% intervals, a column for each policy, and below it what to know of them."""
    from rich.table import Table

    from ..terminal.console import verbatim

    ks = powers_of_two(min(result.n for result in results)) if ks is None else list(ks)
    out = Table(title="Pass@k in % [95% interval over tasks]")
    out.add_column("k", justify="right")
    for result in results:
        out.add_column(verbatim(result.policy), justify="right", overflow="fold")  # whole: many names begin alike
    curves = [result.curve(ks) for result in results]
    for estimates in zip(*curves, strict=True):
        out.add_row(str(estimates[0].k), *map(str, estimates))
    out.add_section()
    out.add_row("tasks x samples", *(f"{len(result.tasks)} x {result.n}" for result in results))
    out.add_row("errors", *(str(result.errors) for result in results))
    out.add_row("env steps", *(f"{result.cost['env_steps']:,}" for result in results))
    notes = [ALIKE] if any(estimate.alike for curve in curves for estimate in curve) else []
    notes += [warning for result in results if (warning := result.warning)]
    out.caption_justify = "left"
    out.caption = verbatim("\n".join(notes), "table.caption") if notes else None
    return out


def plot(results: Sequence[Result], file: str | Path) -> Path:
    """Draw Pass@k over k with interval bands; the file's suffix says the format.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    return draw(
        [Curve(result.policy, {e.k: (e.mean, e.low, e.high) for e in result.curve()}) for result in results], file
    )
