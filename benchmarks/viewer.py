"""The viewer's page of very many trees: its size, the seconds until it is seen, and until a tree is open.

    python benchmarks/viewer.py --trees 2000

Synthetic trees of five branches, as in large_run.py, opened from the disk in Chromium (Playwright drives it), each time
in a new browser, with whose start the seconds have nothing to do.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from large_run import TREE, write

from leafe_graph.report.page import write_report


def main() -> None:
    """Make a run, write its page, open it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=30, help="of each branch")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep the run there; unless given, in a folder that is deleted")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="viewer-"))
    try:
        if not (out / "trees" / "config.json").exists():
            write(out / "trees", given.trees * TREE, given.turns, None)
        before, wall = time.process_time(), time.perf_counter()
        page = write_report(out / "trees", trees=given.trees)
        cpu, seconds = time.process_time() - before, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        size = page.stat().st_size / 1e6
        print(f"{given.trees:,} trees of {TREE} branches of {given.turns} turns: {size:.1f} MB,")
        print(f"written in {seconds:.1f} s ({cpu:.1f} CPU s), {peak:.0f} MiB at most; load {os.getloadavg()[0]:.1f}\n")
        opened = [_opened(page, given.trees, seed) for seed in range(given.times)]
        print("| | median | each |\n|---|---:|---|")
        for name in opened[0]:
            each = [told[name] for told in opened]
            print(f"| {name} | {statistics.median(each):,.0f} ms | {', '.join(f'{value:,.0f}' for value in each)} |")
    finally:
        if given.out is None:
            shutil.rmtree(out)


def _opened(page: Path, trees: int, seed: int) -> dict[str, float]:
    """Milliseconds from asking for the page; and from a click on each of some tasks until its turns are there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 800})
        window.goto(page.resolve().as_uri())
        paints: Any = "performance.getEntriesByType('paint').map((paint) => paint.startTime)"
        first = max(window.evaluate(paints))
        read = window.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart")
        window.wait_for_selector("html[data-ready]")
        drawn = window.evaluate("performance.getEntriesByName('leafe-drawn')[0].startTime")
        drawn_tree = []
        for place in random.Random(seed).sample(range(trees), 5):
            drawn_tree.append(
                window.evaluate(
                    """async (task) => {
                        const asked = performance.now();
                        location.hash = `#/task/${task}`;
                        while (!document.querySelector(".turn.open")) await new Promise(requestAnimationFrame);
                        const took = performance.now() - asked;
                        location.hash = "";
                        while (!document.querySelector(".tasks li")) await new Promise(requestAnimationFrame);
                        return took;
                    }""",
                    f"task-{place:07}",
                )
            )
        browser.close()
    return {"first paint": first, "list drawn": drawn, "all read": read, "a tree opened": statistics.median(drawn_tree)}


if __name__ == "__main__":
    main()
