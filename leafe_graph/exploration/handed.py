"""What the driver has handed out to workers on a cluster, and to whom."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..budget import Ledger
from ..tree.log import Entry
from ..types import Branch, Task

News = Entry | Exception | int | None
"""Of a tree: a branch, what was raised, that its worker died (1 where the tree was in play there), or that it is
done."""


@dataclass(eq=False)
class Tree:
    """A tree that is handed out, or waits to be."""

    task: Task
    branches: list[Branch]
    ledger: Ledger
    suspect: bool
    """Whether it has taken workers with it."""
    news: "asyncio.Queue[News]" = field(default_factory=asyncio.Queue)


@dataclass(eq=False)
class Hand:
    """A worker as the driver knows it."""

    actor: Any
    slots: int
    there: bool = False
    lives: int = 0
    """How often it has died."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it dies the next time."""
    trees: dict[str, Tree] = field(default_factory=dict)
    """What it was handed and has not finished, by task, in that order."""
