"""Texts: what every file and checkpoint can hold."""

from collections.abc import Iterable
from typing import Any


def utf8(text: str) -> str:
    """The text without what UTF-8 cannot say (half a surrogate pair), which files and checkpoints refuse or change."""
    return text.encode(errors="replace").decode()


def markdown_table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    """A table of two columns in Markdown."""
    return "\n".join(f"| {a} | {b} |" for a, b in [head, ("---", "---"), *rows])
