"""`leafe compare`: two results as ever, or methods with seeds as tables, files and curves."""

import json
from pathlib import Path

import pytest
from test_evaluate import result

from leafe_graph.cli.main import main
from leafe_graph.evaluation.compare import Comparison
from leafe_graph.evaluation.panel import Panel

SOLVED = {
    "base": [0, 0, 1, 4],
    "new-0": [0, 2, 1, 6],
    "new-1": [1, 0, 2, 5],
    "a,b": [1, 1, 1, 1],
    "floor": [0, 0, 0, 1],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of four tasks in the folder that one stands in."""
    for name, solved in SOLVED.items():
        result(name.partition("-")[0], 8, solved).save(tmp_path / f"{name}.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_results_are_compared_as_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Powers of two, p of the sign-flip test, and the comparison as JSON; a comma in a name parts nothing."""
    assert main(["compare", "base.json", "a,b.json", "--out", "both.json"]) == 0
    assert "a,b against base, paired over 4 tasks" in capsys.readouterr().out
    saved = Comparison.model_validate_json((folder / "both.json").read_text())
    assert [each.k for each in saved.differences] == [1, 2, 4, 8]


def test_results_of_one_name_are_the_seeds_of_a_method(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the floor, as tables on the terminal and all figures as JSON."""
    pytest.importorskip("numpy", reason='pip install ".[report]"')
    seeds = ["new=new-0.json", "new=new-1.json"]
    command = ["compare", "base.json", *seeds, "a,b.json", "--floor", "floor.json", "-k", "1,4", "--out", "all.json"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "random policy" in out and "Difference to base" in out and "a,b: one seed" in out
    saved = Panel.load(folder / "all.json")
    assert (saved.ks, saved.baselines, saved.row("new").seeds) == ([1, 4], ["base"], [0, 1])
    assert json.loads((folder / "all.json").read_text())["against"][0]["method"] == "new"


def test_baselines_and_the_kind_of_file_can_be_chosen(folder: Path) -> None:
    """Markdown of two results against either."""
    pytest.importorskip("numpy", reason='pip install ".[report]"')
    assert main(["compare", "base.json", "new-0.json", "--baseline", "new,base", "--out", "all.md"]) == 0
    text = (folder / "all.md").read_text()
    assert text.index("### Difference to new") < text.index("### Difference to base") and "| Pass@8 |" in text


def test_curves_are_drawn(folder: Path) -> None:
    """By the file's suffix."""
    pytest.importorskip("matplotlib", reason='pip install ".[report]"')
    assert main(["compare", "base.json", "new-0.json", "--out", "all.svg"]) == 0
    assert (folder / "all.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["base.json"], "there is nothing to compare base.json with; expected two results or more"),
        (["base.json", "new-0.json", "new-1.json"], "several results are called 'new'; give each as NAME=RESULT"),
        (["base.json", "new=new-0.json", "--baseline", "old"], "no method 'old' to compare with; expected one of base"),
        (["base.json", "new=nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_what_cannot_be_compared_is_told(
    args: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with what to do."""
    pytest.importorskip("numpy", reason='pip install ".[report]"')
    assert main(["compare", *args]) == 2
    assert says in capsys.readouterr().err
