"""How the phases show what they found."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from ..terminal.console import console
from ..types import Cost

__all__ = ["console", "show", "told_cost"]

UNITS = {"seconds": "seconds, summed over branches"}
"""What a cost's field is called where its name alone would be misread: branches run side by side."""


def told_cost(cost: Cost) -> list[tuple[str, Any]]:
    """Rows of a cost for `show`."""
    return [(UNITS.get(field, field), amount) for field, amount in cost.items()]


def show(title: str, rows: Iterable[Sequence[Any]]) -> None:
    """Print labels and values as a table."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in rows:
        table.add_row(str(label), f"{value:,.1f}" if isinstance(value, float) else str(value))
    console.print(table)
