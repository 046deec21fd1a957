"""Pass@k to look at: a table and curves."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from ..files import path_of, replace_file
from ..text import printable

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
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FormatStrFormatter, MaxNLocator
    except ImportError as error:
        raise MissingDependency(extra="report", needed_for="Plotting Pass@k") from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = []
    for result in results:
        ks = range(1, result.n + 1)
        means, lows, highs = zip(*((100 * e.mean, 100 * e.low, 100 * e.high) for e in result.curve()), strict=True)
        (line,) = axes.plot(ks, means, marker="o" if result.n <= 32 else None, markersize=3)
        lines.append(line)
        axes.fill_between(ks, lows, highs, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("k")
    axes.set_ylabel("Pass@k, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    # A name is text: no formula between dollar signs, no codes, and a legend even where it begins with "_".
    axes.legend(lines, [printable(result.policy).replace("$", r"\$") for result in results])
    file = path_of(file)
    kind = file.suffix.removeprefix(".") or "png"
    replace_file(file, lambda new: figure.savefig(new, dpi=150, format=kind))
    return file
