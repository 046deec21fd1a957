"""What MkDocs asks while the site is built: files of the checkout that pages point to become part of it.

A page that says ``../examples/agent.py`` is right where it lies; on the site that file is ``source/examples/agent.py``,
and a notebook is a page.
"""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)")


def _pages() -> dict[str, set[str]]:
    """The files outside of docs/ that each page points to."""
    return {page.name: set(_OUTSIDE.findall(page.read_text(encoding="utf-8"))) for page in (ROOT / "docs").glob("*.md")}


def _place(name: str) -> str:
    """Where a file of the checkout is on the site."""
    return f"source/{name.removesuffix('.ipynb')}.md" if name.endswith(".ipynb") else f"source/{name}.txt"


def notebook_page(notebook: Path) -> Iterator[str]:
    """The parts of a notebook as Markdown: its texts, its code, and what that printed."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = text.replace("](../docs/", "](../../")
            yield re.sub(r"\]\((\w+)\.(ipynb|py)\)", lambda link: f"]({_place(link[1] + '.' + link[2])[7:]})", text)
            continue
        yield f"```python\n{text}\n```"
        for output in cell["outputs"]:
            told = output.get("data", {}) | ({"text/plain": output["text"]} if "text" in output else {})
            if "image/svg+xml" in told:
                yield f'<div style="overflow-x: auto">{"".join(told["image/svg+xml"]).strip()}</div>'
            else:
                yield f"```text\n{''.join(told['text/plain']).rstrip()}\n```"


def on_startup(**_: Any) -> None:
    """Show the reference's reader a tree in which envs/ and finetune/ are where they are when they are installed."""
    package = ROOT / "build" / "reference" / "leafe_graph"
    shutil.rmtree(package, ignore_errors=True)  # links to what was moved or is gone
    package.mkdir(parents=True)
    for part in [*(ROOT / "leafe_graph").iterdir(), ROOT / "envs", ROOT / "finetune"]:
        (package / part.name).symlink_to(part)


def on_files(files: Files, config: Any) -> Files:
    """Add what is pointed to."""
    for name in sorted(set().union(*_pages().values())):
        if name.endswith(".ipynb"):
            page = "\n\n".join(notebook_page(ROOT / name))
            files.append(File.generated(config, _place(name), content=page, inclusion=InclusionLevel.NOT_IN_NAV))
        elif (ROOT / name).is_file():
            files.append(File.generated(config, _place(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point there; notebooks do by themselves."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    return _OUTSIDE.sub(lambda link: f"]({_place(link[1])}", markdown)


class _Page(HTMLParser):
    """Where a page leads, and the places in it that others can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Of every element, what it has of both."""
        found = dict(attributes)
        self.links |= {link for name in ("href", "src") if (link := found.get(name))}
        self.places |= {place for name in ("id", "name") if (place := found.get(name))}


def on_post_build(config: Any) -> None:
    """Follow all links within the site as a browser does, also those in notebooks and docstrings.

    Raises:
        PluginError: some lead nowhere.
    """
    site = Path(config["site_dir"]).resolve()
    files = (file for file in sorted(site.rglob("*.html")) if file.name != "404.html")
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in files}
    lost = []
    for file, page in pages.items():
        for link in sorted(page.links):
            to = urlsplit(link)
            target = (file.parent / unquote(to.path)).resolve() if to.path else file
            target = target / "index.html" if target.is_dir() else target
            if to.scheme or to.netloc:
                continue
            there = pages[target].places if target in pages else {unquote(to.fragment)}  # a text has no places
            if not target.is_file() or (to.fragment and unquote(to.fragment) not in there):
                lost.append(f"{file.relative_to(site)}: {link}")
    if lost:
        raise PluginError("these links lead nowhere:\n" + "\n".join(lost))
