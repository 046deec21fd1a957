"""Progress in one line, however narrow: the bar goes first, then the last of the notes; never totals and times."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..text import printable
from .console import errors

T = TypeVar("T")

LEAST, MOST = 10, 40
"""Columns of a bar; where there is less room, there is none."""


class Bar:
    """Drawn on standard error if that is a terminal, or a notebook with ipywidgets; elsewhere lines would pile up."""

    def __init__(self, label: str, total: int, done: int = 0, *, shown: bool = True) -> None:
        drawn = shown and (errors.is_terminal or (errors.is_jupyter and find_spec("ipywidgets") is not None))
        self._progress = Progress(_Line(), console=errors, refresh_per_second=2, disable=not drawn)
        self._task = self._progress.add_task(printable(label), total=total, completed=done, notes=())

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, notes: Sequence[str]) -> None:
        """So much is done; notes in the order of their weight."""
        self._progress.update(self._task, completed=done, notes=notes)


def track(items: Sequence[T], label: str, *, shown: bool = True) -> Iterator[T]:
    """The items, and a bar of those that are done with."""
    with Bar(label, len(items), shown=shown) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done, ())


class _Line(ProgressColumn):
    """All of it: only together is known what fits."""

    def render(self, task: Task) -> "_Fitting":
        return _Fitting(task)


class _Fitting:
    def __init__(self, task: Task) -> None:
        self.task = task

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task, notes = self.task, list(self.task.fields["notes"])
        times = f"{_time(task.elapsed)} left {_time(0 if task.finished else task.time_remaining)}"

        def rest() -> str:
            counts = f"{task.completed:.0f}/{task.total:.0f}"
            return " ".join([counts, ", ".join(notes), times] if notes else [counts, times])

        def room() -> int:
            return options.max_width - cell_len(f"{task.description} {rest()}") - 1

        while notes and room() < -1:
            notes.pop()
        row: list[Any] = [task.description, rest()]
        if room() >= LEAST and len(notes) == len(task.fields["notes"]):
            row.insert(1, ProgressBar(total=task.total, completed=task.completed, width=min(room(), MOST)))
        grid = Table.grid(padding=(0, 1))
        grid.add_row(*row)
        yield grid


def _time(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=max(0, int(seconds))))
