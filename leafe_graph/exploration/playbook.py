"""A playbook: short rules with counters, that follow each task's instruction (ACE, arXiv 2510.04618).

As in the authors' code bullets are only ever added, never rewritten. Unlike there it never has more tokens than it may:
what helped least makes room.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from ..text import utf8
from ..types import Task

HEAD = "Playbook, from earlier tasks of this kind:"
EMPTY = "(empty)"
"""What stands for a playbook without bullets where one is asked about."""
_BULLET = re.compile(r"\[(b\d+)\] \(helpful (\d+), harmful (\d+)\) (.+)")


@dataclass
class Bullet:
    """A rule."""

    id: str
    section: str
    text: str
    helpful: int = 0
    """How often the reflector said so."""
    harmful: int = 0

    def __str__(self) -> str:
        return f"[{self.id}] (helpful {self.helpful}, harmful {self.harmful}) {self.text}"

    @property
    def worth(self) -> tuple[int, int]:
        """Which of several goes last."""
        return self.helpful - self.harmful, self.helpful


class Playbook:
    """Bullets, oldest first.

    Args:
        text: of a playbook, as ``str`` gives it.
        count: tokens of a text.
        max_tokens: most tokens of ``str(playbook)``.
        similarity: from which likeness on two bullets are the same.
    """

    def __init__(self, text: str, *, count: Callable[[str], int], max_tokens: int, similarity: float = 0.9) -> None:
        self._count, self._max, self._similarity = count, max_tokens, similarity
        self.bullets: list[Bullet] = []
        section = ""
        for line in text.splitlines():
            if line.startswith("## "):
                section = line.removeprefix("## ")
            elif (found := _BULLET.fullmatch(line)) is not None:
                self.bullets.append(Bullet(found[1], section, found[4], int(found[2]), int(found[3])))
        self.bullets.sort(key=lambda bullet: int(bullet.id[1:]))
        self._next = 1 + max((int(bullet.id[1:]) for bullet in self.bullets), default=0)
        self._make_room()

    def __str__(self) -> str:
        """As prompts show it; empty without bullets."""
        return _written(self.bullets)

    @property
    def shown(self) -> str:
        """The same, in questions about it."""
        return str(self) or EMPTY

    @property
    def tokens(self) -> int:
        """Of ``str(self)``."""
        return self._count(str(self)) if self.bullets else 0

    def add(self, section: str, text: str) -> Literal["added", "known", "too long"]:
        """Add a bullet, unless one like it is there or it alone is too long."""
        section, text = (" ".join(utf8(part).split()) for part in (section, text))
        if any(self._alike(text, bullet.text) for bullet in self.bullets):
            return "known"
        bullet = Bullet(f"b{self._next}", section or "General", text)
        if not text or self._count(_written([bullet])) > self._max:
            return "too long"
        self._next += 1
        self.bullets.append(bullet)
        self._make_room()
        return "added"

    def tag(self, name: str, *, helpful: bool) -> bool:
        """Count that a bullet helped, or misled; whether there is such a one."""
        bullet = next((each for each in self.bullets if each.id == name), None)
        if bullet is None:
            return False
        bullet.helpful += helpful
        bullet.harmful += not helpful
        self._make_room()
        return True

    def _make_room(self) -> None:
        """Drop what is worth least, of equals the oldest, until the rest is short enough."""
        while self.tokens > self._max:
            self.bullets.remove(min(self.bullets, key=lambda bullet: bullet.worth))

    def _alike(self, a: str, b: str) -> bool:
        return SequenceMatcher(None, a.casefold(), b.casefold(), autojunk=False).ratio() >= self._similarity


def _written(bullets: Sequence[Bullet]) -> str:
    if not bullets:
        return ""
    lines = [HEAD]
    for section in dict.fromkeys(bullet.section for bullet in bullets):
        lines += [f"## {section}", *(str(bullet) for bullet in bullets if bullet.section == section)]
    return "\n".join(lines)


def with_playbook(task: Task, text: str) -> Task:
    """The task, told a playbook."""
    if not text.strip():
        return task
    return {**task, "instruction": f"{task['instruction']}\n\n{text}".strip()}


def without_playbook(task: Task, text: str) -> str:
    """The instruction of a task that was told a playbook, without it."""
    return task["instruction"].removesuffix(text).rstrip()
