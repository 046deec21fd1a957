"""A tree as text holds every word, in order."""

from pathlib import Path

import pytest
from worlds import LESSON, PIT, REFLECTION, pit_reply

from leafe_graph import Limits, explore
from leafe_graph.cli.main import main
from leafe_graph.report.transcript import transcript
from leafe_graph.testing import GridWorld, ScriptedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one task: lost, rewound, won."""
    out = tmp_path_factory.mktemp("runs") / "pit"
    explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=out, limits=Limits(max_branches=2))
    return out


def test_a_transcript_tells_the_story(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Actions with their numbers and answers, the reflection as it came, and where the branch left its parent."""
    assert main(["show", str(folder)]) == 0
    text = capsys.readouterr().out
    parts = ["TASK pit", "Walk to the goal.", "BRANCH 0\n", "\n2> up\n", "END failure", REFLECTION]
    parts += ["BRANCH 1 from branch 0 at step 2", f"told: {LESSON}", "\n2> right\n", "END success"]
    positions = {part: text.find(part) for part in parts}
    assert -1 not in positions.values()
    assert text.index("REFLECTION after 3 steps: rewind to step 2") < positions["BRANCH 1 from branch 0 at step 2"]
    assert text.count("\n0> ") == 1, "what branches share is told once"


def test_a_task_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its id; one that is not there is refused with those that are."""
    assert main(["show", str(folder), "--task", "pit"]) == 0
    chosen = capsys.readouterr().out
    assert main(["show", str(folder), "--task", "nowhere"]) == 2
    assert "it has pit" in capsys.readouterr().err
    from leafe_graph import RunFolder

    assert chosen == transcript([*RunFolder(folder).trees["pit"].values()]) + "\n"
