"""How the phases show what they found."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from ..terminal.console import console

__all__ = ["console", "show"]


def show(title: str, rows: Iterable[Sequence[Any]]) -> None:
    """Print labels and values as a table."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in rows:
        table.add_row(str(label), f"{value:,.1f}" if isinstance(value, float) else str(value))
    console.print(table)
