r"""A moving picture of the viewer that walks a real tree: what README.md and docs/viewer.md show.

    leafe explore --model local:envs/sokoban/tiny_policy --env sokoban --history 0 --max-turns 40 --max-tokens 1 \
      --env-options size=7,boxes=2,min_moves=6,max_moves=22,view=coordinates,end_on_deadlock=true --experience-turns 1 \
      --prompts leafe_graph.envs.sokoban.coordinates:PROMPTS --reflect-max-tokens 8 --env-steps 120 --max-branches 8 \
      --stop-on-success --tasks 300 --concurrency 256 --checkpointer memory --out runs/demo-sokoban
    leafe report runs/demo-sokoban
    python scripts/viewer_picture.py runs/demo-sokoban docs/viewer.gif --task 000206

Chromium draws the page of `leafe report`, Playwright presses the keys of the most telling tree, Pillow makes the GIF.
"""

import argparse
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = {"width": 1120, "height": 660}
COLOURS = 64
"""Of all frames together."""


def main() -> None:
    """Write the GIF."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with a report.html")
    parser.add_argument("out", type=Path, help="the GIF")
    parser.add_argument("--task", help="whose tree is walked; the first of those that a rewind solved unless given")
    given = parser.parse_args()
    picture((given.run / "report.html").resolve(), given.out, given.task)


def picture(page: Path, out: Path, task: str | None = None) -> None:
    """Walk from the list of tasks into a tree, along its branch, and to what it was rewound from."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    frames: list[tuple[Any, int]] = []
    with sync_playwright() as driver:
        sandbox = ["--no-sandbox"] * (os.geteuid() == 0)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        window = browser.new_page(viewport=SIZE, color_scheme="light")

        def shot(seconds: float) -> None:
            window.wait_for_timeout(200)  # the page's own transitions
            frames.append((Image.open(io.BytesIO(window.screenshot())).convert("RGB"), int(1000 * seconds)))

        def press(key: str, seconds: float) -> None:
            window.keyboard.press(key)
            shot(seconds)

        window.goto(page.as_uri())
        window.wait_for_selector("html[data-ready]")
        shot(1.5)
        window.get_by_role("button", name="solved after a rewind").click()
        shot(1.2)
        row = window.locator(".tasks a", has_text=task) if task else window.locator(".tasks a")
        row.first.focus()
        press("Enter", 0.0)
        window.wait_for_selector(".turn.open")
        frames.pop()
        shot(3.0)
        _walk(press)
        browser.close()
    strip = Image.new("RGB", (SIZE["width"], SIZE["height"] * len(frames)))
    for i, (frame, _) in enumerate(frames):
        strip.paste(frame, (0, SIZE["height"] * i))
    palette = strip.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    first.save(out, save_all=True, append_images=rest, duration=[ms for _, ms in frames], loop=0, optimize=True)


def _walk(press: Callable[[str, float], None]) -> None:
    for key, seconds in (("ArrowRight", 0.9), ("ArrowRight", 0.9), ("End", 1.6), ("r", 1.0), ("ArrowLeft", 1.2)):
        press(key, seconds)
    for key, seconds in (("ArrowUp", 1.2), ("End", 1.8)):
        press(key, seconds)


if __name__ == "__main__":
    main()
