"""The progress bar of a run: tasks done, wins, steps/s, tokens/s, time left."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from ..budget import Ledger
from ..tree.outline import Outline
from ..types import Task

if TYPE_CHECKING:
    from ..terminal.bar import Bar


class Progress:
    """Counts finished branches; draws only if ``shown``."""

    def __init__(
        self, label: str, tasks: Sequence[Task], done: Sequence[Outline], ledger: Ledger, *, shown: bool
    ) -> None:
        self.label, self.tasks, self.ledger, self.shown = label, tasks, ledger, shown
        self.finished = 0
        self.branches = len(done)
        self.won = {branch.task["id"] for branch in done if branch.end == "success"}
        self.started = time.monotonic()
        self.before = dict(ledger.spent)
        self.stragglers: Callable[[], Mapping[str, int]] = dict
        """Model calls of the tasks in play, once no other task waits for one of them to end."""
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        if self.shown:
            from ..terminal.bar import Bar

            self._bar = Bar(self.label, len(self.tasks)).__enter__()
            self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.__exit__(kind, error, trace)

    def branch(self, branch: Outline) -> None:
        """A branch has ended."""
        self.branches += 1
        if branch.end == "success":
            self.won.add(branch.task["id"])
        self._draw()

    def task_done(self) -> None:
        """A task's tree is complete."""
        self.finished += 1
        self._draw()

    def counts(self) -> list[str]:
        """Wins, branches, and speed since this process began."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        spent = {field: value - self.before[field] for field, value in self.ledger.spent.items()}  # type: ignore[operator]
        tokens = spent["prompt_tokens"] + spent["completion_tokens"]
        left = self.stragglers()
        last = [f"{len(left)} task{'s' * (len(left) > 1)} left, longest {max(left.values())} calls"] if left else []
        return [
            *last,
            f"{len(self.won)} won",
            f"{self.branches} branches",
            f"{spent['env_steps'] / seconds:.1f} steps/s",
            f"{tokens / seconds:.0f} tokens/s",
        ]

    def look(self) -> None:
        """Draw what has changed."""
        self._draw()

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.update(self.finished, self.counts())
