"""Debian's Chromium, driven by Playwright: for pages that people open."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = "no Chromium is installed; on Debian: apt-get install chromium"


@contextmanager
def browser() -> Iterator[Any]:
    """Started, and closed when left. With ``LEAFE_NEEDS_CHROMIUM`` set nothing is skipped: what is missing fails."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if "LEAFE_NEEDS_CHROMIUM" not in os.environ:
        if chromium is None:
            pytest.skip(MISSING)
        pytest.importorskip("playwright", reason="pip install playwright")
    assert chromium is not None, MISSING
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] * (os.geteuid() == 0))
        try:
            yield started
        finally:
            started.close()


class Visit:
    """A window of its own, which keeps what a page asked for and what went wrong in it."""

    def __init__(self, browser: Any, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def open(self, page: Path | str, link: str = "") -> Any:
        """Go there, and wait until it is drawn; a link is the part from ``#`` on."""
        self.page.goto((page.resolve().as_uri() if isinstance(page, Path) else page) + link)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.close()
