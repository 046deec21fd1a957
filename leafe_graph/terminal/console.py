"""The consoles that everything is printed on: rich's, with text that is text and with numbers that stay whole."""

import re
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import LeafeError
from ..text import printable
from .streams import drop


def verbatim(text: str, style: str = "") -> Text:
    """Text of a table that is given away: shown as it is by any console, which would take a string for markup."""
    return Text(printable(text), style=style)


class Terminal(Console):
    """A console on which strings are shown as they are: no markup, no emoji names, and no codes that it would obey."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    @property
    def encoding(self) -> str:
        """The stream's; rich takes UTF-8 unless it was given a file."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, **how: Any) -> Text:
        """Every string comes this way, those in tables too: what cannot be shown is spelt out before it is measured."""
        shown = printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(shown, **how)

    def print(self, *objects: Any, **how: Any) -> None:
        """Rich's. In a table that is too wide, names are folded and numbers are not.

        Raises:
            LeafeError: the stream takes no more, as on a full disk.
        """
        for table in objects:
            if isinstance(table, Table):
                _fit(table, self.width)
        try:
            super().print(*objects, **{"crop": False} | how)
        except OSError as error:
            raise LeafeError(f"what was to be shown cannot be written: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        """Nobody reads any more, and the work goes on."""
        drop(self.file)  # type: ignore[arg-type]


_NUMBER = re.compile(r"[\[(+-]*\d[\d.,]*[\w%\])*]{0,4},?")


def _fit(table: Table, width: int) -> None:
    """Share out the width: first to numbers, then to what lacks most.

    Cells of numbers and words of heads stay whole where they can. A table whose numbers need more than that is wider.
    """
    frame = 3 * len(table.columns) + 1  # borders, and what is left free beside them
    cells = [[printable(str(cell)) for cell in column.cells] for column in table.columns]
    heads = [printable(str(column.header)) if table.show_header else "" for column in table.columns]
    lines = [[*head.split("\n"), *"\n".join(texts).split("\n")] for head, texts in zip(heads, cells, strict=True)]
    wanted = [max(map(cell_len, each)) for each in lines]
    if sum(wanted) + frame <= width:
        return
    rows = [[text for text in texts if all(map(_NUMBER.fullmatch, text.split()))] for texts in cells]
    numbers = [[word for text in texts for word in text.split() if _NUMBER.fullmatch(word)] for texts in cells]
    whole, least = ([max(map(len, each), default=1) or 1 for each in kind] for kind in (rows, numbers))
    words = [max(map(cell_len, head.split()), default=1) for head in heads]
    whole_heads = list(map(max, whole, words))
    given = next((each for each in (whole_heads, whole) if sum(each) + frame <= width), least)
    while sum(given) + frame < width:
        lacking = max(range(len(given)), key=lambda i: wanted[i] / given[i])
        given[lacking] += 1
    table.width = sum(given) + frame
    for column, columns in zip(table.columns, given, strict=True):
        column.width, column.overflow = columns, "fold"


console = Terminal()
"""Standard output: what a command found."""
errors = Terminal(stderr=True)
"""Standard error: how it is going."""
