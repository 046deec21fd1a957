"""Trees walked in a terminal, by Textual's own pilot."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from trees import branch, run_folder, turn

from leafe_graph.cli.main import main
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

pytest.importorskip("textual", reason='pip install ".[tui]"')
from leafe_graph.report.walking import Places, Walk

ANSI = "\x1b[31m[bold]red"


def tree() -> list[Branch]:
    """Lost, rewound to step 1, and won."""
    lost = branch("0", [turn("at 0", "right"), turn("at 1", ANSI, action="up")], "failure", task="hard")
    lost["reflections"] = [
        {"turn": 2, "verdict": "rewind", "decision_point": 1, "experience": "Go down.", "raw": f"{ANSI} Go down!"}
    ]
    won = branch("1", [turn("at 1", "down")], "success", parent="0", at=1, experience="Go down.", task="hard")
    return [lost, won, branch("0", [turn("o", "x" * 50_000)], "success", task="easy")]


def walked(folder: Path, steps: Callable[[Walk, Any], Awaitable[None]]) -> None:
    """Keys pressed in a terminal of 120 columns."""

    async def walking() -> None:
        app = Walk(RunFolder(folder))
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    run_folder(folder, tree(), model="local:tiny", env="grid")
    asyncio.run(walking())


def shown(app: Walk) -> str:
    """The words beside the tree."""
    return str(app.query_one("#words").content)


def lines(app: Walk) -> list[str]:
    """The places that the tree shows, from the top."""
    places = app.query_one(Places)
    return [str(places.get_node_at_line(i).label) for i in range(places.last_line + 1)]


def test_tree_is_walked_by_keys(tmp_path: Path) -> None:
    """A task opens to its branches, a fork stands before the turn that was revised, and each place says its words."""

    async def steps(app: Walk, pilot: Any) -> None:
        assert [line.split("  ")[:2] for line in lines(app)] == [["✓ after 1 rewind", "hard"], ["✓ solved", "easy"]]
        await pilot.press("right")
        await pilot.pause()
        assert lines(app)[1:8] == [
            "✕ branch 0 failure",
            " 0 right → moved",
            "✓ branch 1 ↶ from 0 at 1: Go down.",
            " 1 down → moved",
            "✓ success",
            " 1 up → moved",
            "✕ failure",
        ]
        await pilot.press(*["down"] * 3)
        await pilot.pause()
        told = shown(app)
        assert "before: failure\nup" in told and "after: success\ndown" in told
        assert "Go down.\n" in told and "\\x1b[31m[bold]red Go down!" in told
        await pilot.press("down", "down", "down")
        await pilot.pause()
        assert "observation\nat 1" in shown(app) and "the model said\n\\x1b[31m[bold]red" in shown(app)
        await pilot.press("left", "left", "left", "left")
        await pilot.pause()
        assert len(lines(app)) == 2

    walked(tmp_path, steps)


def test_tasks_are_searched_and_filtered(tmp_path: Path) -> None:
    """By their words, and by what became of them; a long text is cut, and says where the rest is."""

    async def steps(app: Walk, pilot: Any) -> None:
        await pilot.press("f")
        await pilot.pause()
        assert len(lines(app)) == 1 and "1 of 2 tasks · solved after a rewind" in str(app.query_one("#state").content)
        await pilot.press("f", "f", "f", "slash", *"easy", "enter")
        await pilot.pause()
        assert [line.split("  ")[1] for line in lines(app)] == ["easy"]
        await pilot.press("right", "down", "down")
        await pilot.pause()
        assert "… 30,000 more characters" in shown(app)

    walked(tmp_path, steps)


def test_walking_wants_a_run_and_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else it says what to do."""
    assert main(["view", str(tmp_path), "--tui"]) == 2 and "is not a run folder" in capsys.readouterr().err
    run_folder(tmp_path, tree())
    assert main(["view", str(tmp_path), "--tui"]) == 2 and "leafe show prints trees" in capsys.readouterr().err
