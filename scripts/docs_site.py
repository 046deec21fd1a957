"""What MkDocs asks while the site is built: files of the checkout that pages point to become part of it.

A page that says ``../examples/agent.py`` is right where it lies; on the site that file is ``source/examples/agent.py``.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)")


def _pages() -> dict[str, set[str]]:
    """The files outside of docs/ that each page points to."""
    return {page.name: set(_OUTSIDE.findall(page.read_text(encoding="utf-8"))) for page in (ROOT / "docs").glob("*.md")}


def on_files(files: Files, config: Any) -> Files:
    """Add what is pointed to."""
    for name in sorted(set().union(*_pages().values())):
        if (ROOT / name).is_file():
            files.append(File.generated(config, f"source/{name}.txt", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point there."""
    return _OUTSIDE.sub(r"](source/\1.txt", markdown)
