"""The viewer in a real browser: what `leafe report` wrote is opened from the disk, and walked."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsers import Visit, browser
from tool_trees import TOLD as BOOK_IT
from tool_trees import flight
from trees import branch, run_folder, turn
from worlds import LESSON, PIT, TOLD, pit_reply, wandering_reply

from leafe_graph.envs.sokoban.tiny import TINY_POLICY
from leafe_graph.evaluation.panel import Entry, panel
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.exploration.explore import explore
from leafe_graph.phases.config import ExploreConfig
from leafe_graph.phases.explore import run_explore
from leafe_graph.report.ends import ENDS
from leafe_graph.report.page import write_report
from leafe_graph.report.viewing import Viewer
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

SCRIPT = "<script>window.hit=1</script><img src=x onerror='window.hit=1'><svg onload=window.hit=1>"
ANSI = "\x1b[31mred\x1b]0;title\x07 \u202eright to left\u202c"
ARABIC = "اذهب إلى الباب"


def _reply(messages: Any, seed: int | None = None) -> str:
    told = messages[0].text
    return (pit_reply if told == PIT["instruction"] else wandering_reply)(messages, seed)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a real run: one task that is lost, rewound and won, and some that are walked at random."""
    out = tmp_path_factory.mktemp("played")
    model = ScriptedModel(reply=_reply)
    limits = Limits(max_branches=5, max_depth=3)
    explore(model, GridWorld, [PIT, *grid_tasks(6)], out=out, limits=limits, max_turns=8, config={"env": "grid"})
    return write_report(out)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A real run of the demo's policy, as the demo plays, of a few levels; None without torch."""
    if find_spec("torch") is None:
        return None
    recipe = yaml.safe_load((files("leafe_graph.cli") / "demo-tiny.yaml").read_text())
    how = {name: recipe[name] for name in ("env", "env_options", "prompts", "max_turns", "max_tokens", "history")}
    out = tmp_path_factory.mktemp("demo")
    smaller = {"tasks": 6, "max_branches": 6, "out": out, "model": f"local:{TINY_POLICY}"}
    run_explore(ExploreConfig(**{**how, **recipe["explore"], **smaller}))
    return out


@pytest.fixture(scope="module")
def chromium(played: Path, demo: Path | None) -> Iterator[Any]:
    """One browser for all of them; what is played is played before, since the driver keeps an event loop running."""
    with browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """Windows, each with what it asked for and what went wrong, see `Visit`."""
    opened: list[Visit] = []

    def visiting(**how: Any) -> Visit:
        opened.append(Visit(chromium, **how))
        return opened[-1]

    yield visiting
    for each in opened:
        each.context.close()
        assert not each.wrong


@contextmanager
def served(folder: Path) -> Iterator[Viewer]:
    """A server in a thread."""
    with Viewer(folder) as viewer:
        serving = threading.Thread(target=viewer.serve_forever)
        serving.start()
        try:
            yield viewer
        finally:
            viewer.shutdown()
            serving.join()


def test_report_opens_from_the_disk_and_asks_for_nothing(visit: Any, played: Path) -> None:
    """All that it shows is in it; its tasks have their small trees."""
    window = visit()
    page = window.open(played)
    assert window.asked == [played.as_uri()]
    assert page.locator(".alike").is_hidden() and page.locator(".tasks .text").count() == 7
    assert page.locator(".tasks li").count() == 7 and page.locator(".tasks svg.small").count() == 7
    assert "grid" in page.title() and "of 7 tasks solved" in page.locator("aside").inner_text()


def test_tasks_are_searched_filtered_and_sorted(visit: Any, played: Path) -> None:
    """By their words, by what became of them, by their numbers."""
    page = visit().open(played)
    page.wait_for_selector(".tasks .id")
    page.keyboard.press("/")
    page.wait_for_selector("[type=search]:focus")
    page.keyboard.type("pit")
    page.locator(".count").get_by_text("1 of 7 tasks").wait_for()  # keys are answered a moment later
    assert page.locator(".tasks .id").all_inner_texts() == ["pit"]
    page.get_by_role("button", name="never solved").click()
    assert page.locator(".tasks li").count() == 0 and "0 of 7 tasks" in page.locator(".count").inner_text()
    page.get_by_role("button", name="solved after a rewind").click()
    assert page.locator(".tasks .state").all_inner_texts() == ["after 1 rewind"]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="all").click()
    page.get_by_label("Sort by").select_option("branches")
    counts = [int(text.split()[0]) for text in page.locator(".tasks .facts .dim").all_inner_texts()]
    assert counts == sorted(counts, reverse=True) and len(counts) == 7


def test_tree_is_walked_by_keys(visit: Any, played: Path) -> None:
    """From the list into a tree, along its branches and back; the address follows, and the turn is shown."""
    page = visit().open(played)
    page.locator(".tasks a", has_text="pit").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=grid]:focus")
    assert page.url.endswith("#/task/pit/1/2")
    chosen = "[role=gridcell][aria-selected=true]"
    assert page.locator(chosen).get_attribute("aria-label") == "step 2: right"
    assert [page.locator(f".side >> nth={i}").inner_text().split()[:4] for i in (0, 1)] == [
        ["Before", "branch", "0", "✕"],
        ["After", "branch", "1", "✓"],
    ]
    assert LESSON in page.locator(".rewind-card").inner_text()
    for key, end in [("ArrowRight", "1/3"), ("End", "1/4"), ("ArrowUp", "0/3"), ("Home", "0/0"), ("j", "0/1")]:
        page.keyboard.press(key)
        page.wait_for_function("end => location.hash.endsWith(end)", arg=f"#/task/pit/{end}")
    page.locator(".turn.open .act").get_by_text("right", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector(".tasks a:focus")
    assert page.locator(".tasks a:focus .id").inner_text() == "pit"


def test_link_leads_to_a_turn(visit: Any, played: Path) -> None:
    """With the prompt as the model saw it, and the experience where it stood."""
    page = visit().open(played, "#/task/pit/1/2")
    page.get_by_text("Prompt as the model saw it").click()
    assert page.locator(".turn.open mark").inner_text() == f"Experience from an earlier attempt: {LESSON}"
    assert page.locator(".turn.open .message h5").all_inner_texts()[:3] == ["system", "user", "assistant"]
    assert "counterfactual of step 2: exported" in page.locator(".turn.open .rows").inner_text()
    page = visit().open(played, "#/task/nowhere")
    assert "There is no task nowhere" in page.locator(".top").inner_text() and page.locator(".tasks li").count() == 7


def test_run_of_the_demo_is_walked(visit: Any, demo: Path | None) -> None:
    """Its tasks that a rewind solved are found, and each fork tells what the policy itself had reflected.

    The instruction is that of all tasks, and is told once.
    """
    if demo is None:
        pytest.skip('pip install ".[hf]"')
    run = RunFolder(demo)
    depths = {task: [b.depth for b in tree.values() if b.end == "success"] for task, tree in run.trees.outlines.items()}
    page = visit().open(write_report(demo))
    assert run.branches[0]["task"]["instruction"][:30] in page.locator(".alike").inner_text()
    assert page.locator(".tasks .text").count() == 0
    page.get_by_role("button", name="solved after a rewind").click()
    rewound = sorted(task for task, found in depths.items() if found and min(found))
    assert sorted(page.locator(".tasks .id").all_inner_texts()) == rewound
    fork = next(branch for branch in run.branches if branch["parent"] is not None and branch["turns"])
    parent = run.trees[fork["task"]["id"]][fork["parent"] or ""]
    page.evaluate("(link) => { location.hash = link; }", f"#/task/{fork['task']['id']}/{fork['id']}")
    page.wait_for_selector(".rewind-card")
    told = page.locator(".rewind-card").inner_text()
    assert parent["reflections"][-1]["raw"].strip() in told and str(fork["experience"]) in told
    page.keyboard.press("End")
    page.locator(".turn.open .head").get_by_text(ENDS[fork["end"]][2]).wait_for()


def test_dark_mode_is_dark(visit: Any, played: Path) -> None:
    """Page and curves alike, without a switch."""
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (visit(dark=dark).open(played).evaluate(colour) for dark in (False, True))
    assert light == "rgb(247, 247, 245)" and dark == "rgb(20, 22, 24)"


def test_narrow_page_is_as_good(visit: Any, played: Path) -> None:
    """At 390 px nothing overflows, and what is walked to comes into sight below the tree."""
    window = visit(width=390, height=844)
    for link in ("", "#/task/pit/1/2"):
        page = window.open(played, link)
        page.wait_for_selector(".turn.open" if link else ".tasks li")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("[role=gridcell] .dot.last").last.click()
    box = page.locator(".turn.open .head").bounding_box()
    assert box is not None and 0 < box["y"] < 700


def test_pages_are_accessible(visit: Any, played: Path) -> None:
    """No serious finding of axe: list, tree and keys, wide and narrow, light and dark."""
    pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    from axe_playwright_python.sync_playwright import Axe

    for how in ({}, {"width": 390, "dark": True}):
        window = visit(**how)
        for link in ("", "#/task/pit/1/2"):
            page = window.open(played, link)
            page.wait_for_selector(".turn.open" if link else ".tasks li")
            found = Axe().run(page).response["violations"]
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            assert not serious, json.dumps(serious, indent=1)[:3000]


def test_served_run_is_followed_while_it_is_played(visit: Any, tmp_path: Path) -> None:
    """A branch that ends is seen without a reload: in the list, and in the tree that is being read."""
    going, ended = threading.Event(), threading.Event()

    def waiting(messages: Any, seed: int | None = None) -> str:
        if TOLD in messages[-1].text:
            assert going.wait(30)
        return pit_reply(messages, seed)

    def play() -> None:
        explore(ScriptedModel(reply=waiting), GridWorld, [PIT], out=tmp_path, limits=Limits(max_branches=2))
        ended.set()

    player = threading.Thread(target=play)
    player.start()
    while not (tmp_path / "branches.jsonl").exists() or not (tmp_path / "branches.jsonl").stat().st_size:
        ended.wait(0.02)
    with served(tmp_path) as viewer:
        page = visit().open(viewer.address)
        assert page.locator(".tasks .state").inner_text() == "never solved"
        reading = visit().open(viewer.address, "#/task/pit/0/2")
        reading.wait_for_selector("[role=row]")
        assert reading.locator("[role=row]").count() == 1
        going.set()
        page.wait_for_selector(".tasks .state.g1")
        reading.wait_for_selector("[role=row] >> nth=1")
        assert reading.url.endswith("#/task/pit/0/2") and "live" in reading.locator(".live").inner_text()
    player.join()
    assert ended.is_set()


def test_served_rounds_lead_to_their_trees(visit: Any, tmp_path: Path) -> None:
    """The page of a folder of ``leafe run`` and those of its rounds are served as they are written."""
    run_folder(tmp_path / "round-1", [branch("0", [turn("o", "up")], "success", task="t")])
    (tmp_path / "run.json").write_text(json.dumps({"version": 1, "model": "m", "export": {"keep": "every"}}))
    with served(tmp_path) as viewer:
        page = visit(width=390).open(viewer.address)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_role("link", name="round 1: its trees").click()
        page.locator(".tasks a").click()
        page.wait_for_selector(".turn.open")
        assert page.url == f"{viewer.address}round-1/report.html#/task/t/0/0"


def test_served_bench_is_followed_from_its_start(visit: Any, tmp_path: Path) -> None:
    """A method that is judged appears without a reload, and the page says so where none is yet."""
    (tmp_path / "cells").mkdir()
    judged = Result(policy="base", n=1, tasks=[TaskResult(task_id="a", n=1, c=1)])
    table = {"panel": panel([Entry(method="base", result=judged)]).model_dump(mode="json")}
    with served(tmp_path) as viewer:
        page = visit().open(viewer.address)
        assert "no method is judged yet" in page.locator(".facts-list").inner_text()
        (tmp_path / "table.json").write_text(json.dumps(table))
        page.wait_for_selector("table th[scope=row]")
        assert page.locator("table th[scope=row]").all_inner_texts() == ["base"]


def test_prompt_of_an_agent_of_its_own_is_shown(visit: Any, tmp_path: Path) -> None:
    """Its messages, calls and tools as they were asked, with the experience at the end of the last message."""
    page = visit().open(write_report(run_folder(tmp_path, flight())), "#/task/t/1/1")
    page.get_by_text("Prompt as the model saw it").click()
    page.wait_for_selector(".turn.open .message")
    asked = page.locator(".turn.open .message")
    assert asked.locator("h5").all_inner_texts() == ["system", "user", "assistant", "tool look", "tool look"]
    assert "4 May" in asked.nth(2).inner_text() and asked.nth(4).locator("mark").inner_text().endswith(BOOK_IT)
    page.get_by_text("Tools that it had").click()
    assert "To book a flight." in page.locator(".turn.open details details").inner_text()
    assert page.locator(".turn.open .part-of h4").all_inner_texts()[:2] == ["Observation", "Tool call: book"]


def test_moving_picture_is_made_of_a_page(chromium: Any, played: Path, tmp_path: Path) -> None:
    """By the script that makes README's: from the list into a tree, and along it."""
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    script = Path(__file__).parents[1] / "scripts" / "viewer_picture.py"
    subprocess.run([sys.executable, script, played.parent, tmp_path / "walk.gif"], check=True, timeout=120)
    with image.open(tmp_path / "walk.gif") as picture:
        assert picture.n_frames >= 8 and picture.size == (1120, 660)


def hostile() -> list[Branch]:
    """A tree whose every text wants to be more than text."""
    lost = branch("0", [turn("o" * 10_000_000, SCRIPT), turn(ARABIC, ANSI)], "failure", instruction=SCRIPT, task=SCRIPT)
    lost["turns"][1]["feedback"] = SCRIPT
    lost["turns"][1]["message"]["tool_calls"] = [{"name": SCRIPT, "args": {"x": SCRIPT}}]
    lost["error"] = SCRIPT
    lost["reflections"] = [
        {"turn": 2, "verdict": "rewind", "decision_point": 1, "experience": SCRIPT, "raw": f"{SCRIPT}{ANSI}"}
    ]
    won = branch("1", [turn(SCRIPT, SCRIPT)], "success", parent="0", at=1, experience=SCRIPT, task=SCRIPT)
    won["task"] = lost["task"]
    return [lost, won]


def test_hostile_run_executes_nothing_and_loses_nothing(visit: Any, tmp_path: Path) -> None:
    """Markup is shown as it was said, codes are spelt out, a long text begins and goes on when asked."""
    page_file = write_report(
        run_folder(tmp_path, hostile(), model=SCRIPT, env="</script><script>window.hit=1</script>")
    )
    window = visit()
    page = window.open(page_file)
    page.locator(".tasks a").click()
    page.wait_for_selector(".rewind-card")
    page.get_by_text("Where it stood in the prompt").click()
    assert SCRIPT in page.locator(".rewind-card mark").inner_text()
    assert "\\x1b[31mred\\x1b]0;title\\x07 \\u202eright" in page.locator(".rewind-card").inner_text()
    assert page.evaluate("document.querySelectorAll('#app script, #app img, svg[onload]').length") == 0
    for t in (0, 1, 2):
        page.evaluate(f"location.hash = location.hash.split('/').slice(0, 3).join('/') + '/0/{t}'")
        page.wait_for_selector(f".turn.open #turn-{t}")
        if not t:
            more = page.get_by_role("button", name="of 10,000,000 characters")
            more.click()
            assert len(page.locator(".turn.open .words").first.inner_text()) == 56_000 and more.count() == 1
    assert page.evaluate("window.hit") is None and window.asked == [page_file.as_uri()]
