"""Curves of Pass@k over k, told apart by colour, line and mark: also in grey, and by the colour-blind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MissingDependency
from ..files import path_of, replace_file
from ..text import printable

COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
"""Okabe and Ito's palette, in which the colour-blind tell all apart; the first is the baseline's as a rule."""
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)))
MARKS = "osD^vPX*<>"
MANY = 10
"""More curves than these are named beside the axes: a legend within would cover them."""


class Curve(NamedTuple):
    """A policy's or a method's."""

    name: str
    points: dict[int, tuple[float, float, float]]
    """Mean, lower and upper end of the interval by k, as shares of 1."""


def draw(curves: Sequence[Curve], file: str | Path, *, differences: Sequence[Curve] = (), baseline: str = "") -> Path:
    """Draw Pass@k in % over k with bands of the intervals; the file's suffix says the format, PNG without one.

    Args:
        curves: of the policies or methods.
        file: to write.
        differences: to the baseline, drawn beside them: paired over tasks they are known far better than the curves.
        baseline: its name.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(extra="report", needed_for="Plotting Pass@k") from error
    many = len(curves) > MANY
    size = ((11.0 if differences else 6.4) + 2.4 * many, max(4.2, 0.22 * len(curves) * many))
    figure = Figure(figsize=size, layout="constrained")
    left, *right = figure.subplots(1, 1 + bool(differences), squeeze=False)[0]
    lines = _lines(left, curves, [curve.name for curve in curves])
    left.set_ylabel("Pass@k, %")
    left.set_ylim(bottom=0)
    # A name is text: no formula between dollar signs, no codes, and a legend even where it begins with "_".
    beside = {"loc": "outside right upper", "fontsize": "small"} if many else {}
    (figure if many else left).legend(lines, [_shown(curve.name) for curve in curves], handlelength=4, **beside)
    for axes in right:
        axes.axhline(0, color=COLOURS[0], linewidth=0.8)
        _lines(axes, differences, [curve.name for curve in curves])
        axes.set_ylabel(f"difference to {_shown(baseline)}, points")
    file = path_of(file)
    kind = file.suffix.removeprefix(".") or "png"
    replace_file(file, lambda new: figure.savefig(new, dpi=150, format=kind))
    return file


def _lines(axes: Any, curves: Sequence[Curve], order: list[str]) -> list[Any]:
    """The curves as lines with bands; a name looks the same on all axes."""
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator

    lines, twice = [], len({*order}) < len(order)
    for place, curve in enumerate(curves):
        i = place if twice else order.index(curve.name)
        means, lows, highs = zip(*([100 * value for value in point] for point in curve.points.values()), strict=True)
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
        mark = MARKS[i % len(MARKS)] if len(means) <= 32 else None
        lines += axes.plot([*curve.points], means, **look, marker=mark, markersize=3)
        axes.fill_between([*curve.points], lows, highs, alpha=0.15, color=look["color"], linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("k")
    axes.grid(alpha=0.3)
    return lines


def _shown(name: str) -> str:
    return printable(name).replace("$", r"\$")
