"""A panel as tables, for Markdown and for the terminal alike."""

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ..text import markdown_table, printable
from .figures import Difference, Figure, Figures, Row
from .statistics import ALIKE

if TYPE_CHECKING:
    from rich.table import Table


COSTS = {
    "env_steps": "moves",
    "replayed_steps": "replayed",
    "model_calls": "calls",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "new tokens",
    "reflections": "reflections",
    "target_tokens": "trained tokens",
    "seconds": "seconds",
}
"""What a policy took to make, in the order and words of the table."""


BEYOND = "* not one task seems to be on one side of τ: the interval admits such tasks up to Wilson's limit"
"""The note under a Cover@τ of nearly 0 or 1."""


class Section(NamedTuple):
    """A table and what to know about it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def markdown(panel: Figures) -> str:
    """All sections, each with its notes below."""
    parts = []
    for section in _sections(panel):
        head, *rows = ([_cell(cell) for cell in row] for row in [section.head, *section.rows])
        notes = "\n".join(f"- {_cell(note)}" for note in section.notes)
        parts += [f"### {_cell(section.title)}", markdown_table(head, rows), *([notes] if notes else [])]
    return "\n\n".join(parts) + "\n"


def tables(panel: Figures) -> "list[Table]":
    """All sections for the terminal."""
    from rich.table import Table

    from ..terminal.console import verbatim

    shown = []
    for section in _sections(panel):
        table = Table(title=verbatim(section.title, "table.title"))
        for i, head in enumerate(section.head):
            table.add_column(verbatim(head), justify="right" if i else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*map(verbatim, row))
        table.caption_justify = "left"
        table.caption = verbatim("\n".join(section.notes), "table.caption") if section.notes else None
        shown.append(table)
    return shown


def _cell(text: str) -> str:
    return printable(text).replace("\n", " ").replace("|", r"\|").replace("*", r"\*")


def _sections(panel: Figures) -> Iterator[Section]:
    rows = [*panel.rows, *([panel.floor] if panel.floor else [])]
    ks = [f"Pass@{k}" for k in panel.ks]
    shown = [figure for row in rows for k in panel.ks if (figure := row.pass_at.get(k))]
    yield Section(
        f"Pass@k in % on {panel.tasks} tasks [95% interval over tasks and training seeds]",
        ["method", "seeds", "samples", *ks],
        [[row.method, _seeds(row), str(row.n), *(str(row.pass_at.get(k, "-")) for k in panel.ks)] for row in rows],
        [*_alike(shown), *_one_seed(panel), *panel.warnings],
    )
    against = [(base, [each for each in panel.against if each.baseline == base]) for base in panel.baselines]
    against = [(base, beside) for base, beside in against if beside]
    for base, beside in against:
        gains = [[each.differences[k] for k in panel.ks] for each in beside]
        yield Section(
            f"Difference to {base} in points, paired over tasks [95% interval] p",
            ["method", *ks],
            [
                *([each.method, *map(_gain, gain)] for each, gain in zip(beside, gains, strict=True)),
                ["detectable", *(_range([gain.detectable for gain in column]) for column in zip(*gains, strict=True))],
            ],
            [
                "detectable: the smallest true difference whose interval would exclude 0 in 80% of repetitions (2.8 "
                "standard errors), over the methods of this table",
                *_alike(each for gain in gains for each in gain),
            ],
        )
    yield Section(
        "Cover@τ: % of tasks whose true success rate is at least τ [95% interval over tasks]",
        ["method", *(f"τ = {tau}" for tau in rows[0].cover)],
        [[row.method, *map(str, row.cover.values())] for row in rows],
        [BEYOND] if any(figure.alike for row in rows for figure in row.cover.values()) else [],
    )
    for base, beside in against:
        yield Section(
            f"Tasks won that {base} never solves, and lost that it solves",
            ["method", "a seed", "by chance", "seed by seed", "all seeds together", "by chance"],
            [
                [
                    each.method,
                    _exchange(fmean(e.won for e in each.exchanges), fmean(e.lost for e in each.exchanges)),
                    _exchange(each.exchanges[0].won_by_chance, each.exchanges[0].lost_by_chance),
                    ", ".join(_exchange(e.won, e.lost) for e in each.exchanges),
                    _exchange(each.pooled.won, each.pooled.lost),
                    _exchange(each.pooled.won_by_chance, each.pooled.lost_by_chance),
                ]
                for each in beside
            ],
            [f"by chance: what as many new samples of {base} itself would win and lose"],
        )
    spent = {name for row in panel.rows for cost in row.costs for name, amount in cost.items() if amount}
    costs = [name for name in [*COSTS, *sorted(spent - {*COSTS})] if name in spent]
    if costs or any(chosen for row in panel.rows for chosen in row.chosen):
        yield Section(
            "What making a policy took (mean over seeds; judging not counted), and what was chosen by tuning",
            ["method", *(COSTS.get(name, name) for name in costs), "chosen"],
            [[row.method, *(_mean(row, name) for name in costs), _chosen(row)] for row in panel.rows],
            [],
        )


def _alike(figures: Iterable[Figure]) -> list[str]:
    return [ALIKE] if any(figure.alike for figure in figures) else []


def _seeds(row: Row) -> str:
    return "-" if row.seeds == [None] else f"{len(row.seeds)}"


def _one_seed(panel: Figures) -> list[str]:
    """Which methods may be lucky trainings; a baseline that nothing trained is none."""
    fixed = {base for base in panel.baselines if panel.row(base).seeds == [None]}
    alone = [row.method for row in panel.rows if len(row.seeds) == 1 and row.method not in fixed]
    told = "one seed: the interval is over tasks alone and says nothing about another training"
    return [f"{', '.join(alone)}: {told}"] if alone else []


def _gain(difference: Difference) -> str:
    return f"{difference} {f'{difference.p:.3f}' if difference.p >= 0.001 else '<0.001'}"


def _exchange(won: float, lost: float) -> str:
    return f"+{won:.1f} -{lost:.1f}".replace(".0", "")


def _range(values: list[float]) -> str:
    low, high = (f"{100 * value:.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _mean(row: Row, key: str) -> str:
    return f"{fmean(cost.get(key, 0) for cost in row.costs):,.0f}"


def _chosen(row: Row) -> str:
    told = [", ".join(f"{name}={value}" for name, value in chosen.items()) for chosen in row.chosen]
    return "; ".join(told if len({*told}) > 1 else told[:1])
