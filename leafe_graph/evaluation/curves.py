"""Curves of Pass@k over k, told apart by colour, line and mark: also in grey, and by the colour-blind."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import MissingDependency
from ..files import path_of, replace_file
from ..text import printable

COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
"""Okabe and Ito's palette, in which the colour-blind tell all apart; the first is the baseline's as a rule."""
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)))
MARKS = "osD^vPX*<>"


class Curve(NamedTuple):
    """A policy's or a method's."""

    name: str
    points: dict[int, tuple[float, float, float]]
    """Mean, lower and upper end of the interval by k, as shares of 1."""


def draw(curves: Sequence[Curve], file: str | Path) -> Path:
    """Draw Pass@k in % over k with bands of the intervals; the file's suffix says the format, PNG without one.

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
    for i, curve in enumerate(curves):
        means, lows, highs = zip(*([100 * value for value in point] for point in curve.points.values()), strict=True)
        colour = COLOURS[i % len(COLOURS)]
        (line,) = axes.plot(
            [*curve.points],
            means,
            color=colour,
            linestyle=LINES[i % len(LINES)],
            marker=MARKS[i % len(MARKS)] if len(means) <= 32 else None,
            markersize=3,
        )
        lines.append(line)
        axes.fill_between([*curve.points], lows, highs, alpha=0.15, color=colour, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("k")
    axes.set_ylabel("Pass@k, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    # A name is text: no formula between dollar signs, no codes, and a legend even where it begins with "_".
    names = [printable(curve.name).replace("$", r"\$") for curve in curves]
    axes.legend(lines, names, handlelength=4)
    file = path_of(file)
    kind = file.suffix.removeprefix(".") or "png"
    replace_file(file, lambda new: figure.savefig(new, dpi=150, format=kind))
    return file
