"""The viewer as one HTML file that needs nothing else: the data lie in it compressed, and are drawn on demand."""

import base64
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from ..files import replace_file
from ..settings import Rows
from ..text import printable, utf8
from ..tree.branches import telling
from ..tree.run_folder import RunFolder
from .contents import as_json, outline, overview, trees
from .wholes import bench_overview, is_rounds, rounds_overview

TREES = 2000
"""So many trees are in a page unless told."""
MODULES = ("dom", "source", "bars", "curves", "lanes", "tree", "words", "turns", "task", "tasks", "overview", "main")
"""The viewer's modules: each imports of those before it alone."""


def write_report(run: RunFolder | str | Path, *, trees: int = TREES, rows: Rows | None = None) -> Path:
    """Write ``report.html`` into the folder of a run: its trees to walk, curves, costs and settings.

    It needs no network and no other file. Trees are read and written one by one, so memory does not bound a run.

    Args:
        run: a run folder.
        trees: most trees that are in it, the most telling first; the page says how many are not.
        rows: which training rows are told of each branch; what ``leafe export`` makes by default if None.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    ranks = {task: rank for rank, task in enumerate(telling(folder, trees))}
    file = folder.folder / "report.html"
    replace_file(file, lambda new: _write_run(new, folder, ranks, rows))
    return file


def write_overview(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a ``leafe run`` or ``leafe bench``: rounds or methods side by side.

    Raises:
        ConfigError: what the folder tells of them cannot be read.
    """
    told = rounds_overview(folder) if is_rounds(folder) else bench_overview(folder)
    file = folder / "report.html"

    def write(new: Path) -> None:
        with open(new, "w", encoding="utf-8") as out:
            out.write(head(told))
            _block(out, "overview", told)
            out.write(f"<script>{script()}</script>\n</body></html>\n")

    replace_file(file, write)
    return file


def _write_run(new: Path, run: RunFolder, ranks: Mapping[str, int], rows: Rows | None) -> None:
    tasks = sorted(ranks)
    told = overview(run) | {"left_out": len(run.trees) - len(tasks)}
    told["trees"] = [outline(run.trees.outlines[task].values(), ranks[task]) for task in tasks]
    with open(new, "w", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as later:
        for number, tree in enumerate(trees(run, tasks, rows)):
            _block(later, f"tree-{number}", tree)
            told["trees"][number] |= found(tree)
        out.write(head(told))
        _block(out, "overview", told)
        out.write(f"<script>{script()}</script>\n")
        later.seek(0)
        shutil.copyfileobj(later, out)
        out.write("</body></html>\n")


def found(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a whole tree the list of tasks is filtered by."""
    kept = sum(not left_out for branch in tree["branches"] for *_, left_out in branch["rows"])
    return {"rows": kept, "diverged": any(branch["divergence"] for branch in tree["branches"])}


def head(told: Mapping[str, Any], *, live: bool = False) -> str:
    """The page up to its data; a ``live`` one has none, and may ask the server that it comes from for them."""
    name = escape(printable(utf8(told["title"])))
    connect = "'self'" if live else "'none'"
    policy = f"default-src 'none'; connect-src {connect}; base-uri 'none'; form-action 'none'; "
    policy += f"script-src '{_digest(script())}'; style-src '{_digest(style())}'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
{'<meta name="live" content="">' * live}<title>{name} · leafe</title><style>{style()}</style></head><body>
<noscript>{name}: the trees of this page are drawn by its own script, which this browser does not run.</noscript>
<div id="app"></div>
"""


@cache
def script() -> str:
    """The modules as one script, each a function that gives its exports.

    It runs while the page is read, so that the list is seen before the last tree is there; modules would run after.
    """
    parts = []
    for name in MODULES:
        text = re.sub(r"^import (.*) from \"\./(\w+)\.js\";$", r"const \1 = of_\2;", _asset(f"{name}.js"), flags=re.M)
        exported = re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", text, flags=re.M)
        text = re.sub(r"^export ", "", text, flags=re.M)
        parts.append(f"const of_{name} = (() => {{\n{text}return {{ {', '.join(exported)} }};\n}})();\n")
    return f"(() => {{\n{''.join(parts)}}})();\n"


@cache
def style() -> str:
    """The style sheet."""
    return _asset("style.css")


def _asset(name: str) -> str:
    return (files(__package__) / "viewer" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _block(out: IO[str], name: str, value: Any) -> None:
    """A value as text that no browser runs: JSON, deflated, in base64."""
    packed = base64.b64encode(zlib.compress(as_json(value))).decode("ascii")
    out.write(f'<script type="text/plain" id="{name}">{packed}</script>\n')
