"""What there is to look at: the rounds of a run, summaries in words, objects that say what they are."""

import json
from pathlib import Path

import pytest
from trees import branch, run_folder, turn
from viewed import viewed

from leafe_graph.cli.main import main
from leafe_graph.evaluation.panel import Entry, panel
from leafe_graph.evaluation.results import Result, TaskResult, result_from_branches
from leafe_graph.exploration.explore import explore
from leafe_graph.finetune import TrainResult
from leafe_graph.phases.learn import told_of_training
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder


@pytest.fixture
def rounds(tmp_path: Path) -> Path:
    """A folder as ``leafe run`` makes it: a first judgement, and two rounds with a task each that they share."""
    won, lost = (branch("0", [turn("o", "up")], end, task="t") for end in ("success", "failure"))
    run_folder(tmp_path / "round-1", [lost])
    run_folder(tmp_path / "round-2", [won, branch("0", [turn("o", "down")], "failure", task="u")])
    (tmp_path / "round-0").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"version": 1, "model": "local:base"}))
    return tmp_path


def judged(rounds: Path, stopped: str | None) -> None:
    """Add what the rounds came to."""
    estimate = {"k": 1, "mean": 0.25, "low": 0.0, "high": 0.5}
    entry = {"round": 0, "pass_at_k": [estimate], "gain": None, "seconds": {"eval": 2.0}, "spent": {}}
    told = {"version": 1, "stopped": stopped, "best": 0, "adapter": None, "k": 1, "rounds": [entry]}
    (rounds / "rounds.json").write_text(json.dumps(told))


@pytest.mark.parametrize("stopped", [None, "All 2 rounds are played"])
def test_show_tells_the_rounds_of_a_run(rounds: Path, stopped: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Its table as far as it has come, and where each round's trees are to be seen."""
    judged(rounds, stopped)
    assert main(["show", str(rounds)]) == 0
    out = capsys.readouterr().out
    assert "25.0 [0.0, 50.0]" in out
    assert f"{stopped or 'Not all rounds are played'}. Best: round 0, local:base" in " ".join(out.split())
    assert f"round-1: 1 branches of 1 tasks, 0 solved: leafe show {rounds}/round-1\n" in out
    assert f"round-2: 2 branches of 2 tasks, 1 solved: leafe show {rounds}/round-2\n" in out


def test_show_tells_a_task_in_every_round(rounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the rounds, also before any is judged; one that no round has is refused."""
    assert main(["show", str(rounds), "--task", "t"]) == 0
    out = capsys.readouterr().out
    assert out.count("TASK t") == 2 and out.index("END failure") < out.index("END success")
    assert main(["show", str(rounds), "--task", "tt"]) == 2
    assert "has no task 'tt'" in capsys.readouterr().err


def test_report_writes_a_page_for_every_round(rounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder of rounds; and one with the rounds side by side, as far as they are judged."""
    judged(rounds, None)
    assert main(["report", str(rounds)]) == 0
    assert capsys.readouterr().out.count("written to") == 3
    assert (rounds / "round-1/report.html").exists() and (rounds / "round-2/report.html").exists()
    told, trees = viewed(rounds / "report.html")
    assert not trees and [(each["round"], each["href"]) for each in told["rounds"]] == [
        (0, None),
        (1, "round-1/report.html"),
        (2, "round-2/report.html"),
    ]
    assert told["rounds"][0]["points"] == [[1, 0.25, 0.0, 0.5, False]] and ["best", "round 0"] in told["facts"]


def test_report_shows_the_methods_of_a_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Side by side, with what each took and how it differs from the baseline."""
    results = {
        name: Result(
            policy=name, n=2, tasks=[TaskResult(task_id=t, n=2, c=c) for t, c in zip("abc", solved, strict=True)]
        )
        for name, solved in {"base": (0, 1, 0), "leafe": (1, 2, 0)}.items()
    }
    entries = [Entry(method=name, seed=0, result=result, cost={"env_steps": 5}) for name, result in results.items()]
    (tmp_path / "cells").mkdir()
    table = {"panel": panel(entries).model_dump(mode="json"), "missing": ["leafe seed 1"]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    assert main(["report", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out.replace("\n", "")
    told, _ = viewed(tmp_path / "report.html")
    base, leafe = told["methods"]
    assert (base["name"], base["against"], leafe["cost"]) == ("base", {}, {"env_steps": 5})
    assert leafe["against"]["1"][0] == pytest.approx(1 / 3) and told["notes"][-1] == "not there yet: leafe seed 1"
    (tmp_path / "table.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 2 and "holds no tables of leafe bench" in capsys.readouterr().err


def test_a_training_is_told_in_words(tmp_path: Path) -> None:
    """What there is not is left out, counts are counted, and a loss keeps its digits."""
    result = TrainResult(
        adapter=tmp_path, merged=None, backend="peft", steps=1200, resumed_from=0, rows={"counterfactual": 3,
        "rehearsal": 34}, loss=0.01234, eval_loss=None, kept_step=1200, tokens=12345, target_tokens=321, seconds=61.04,
        token_ids={}, warnings=["few rows", "odd rows"],
    )  # fmt: skip
    assert [*told_of_training(result)] == [
        ("adapter", str(tmp_path)),
        ("backend", "peft"),
        ("steps", "1,200"),
        ("rows", "3 counterfactual + 34 rehearsal"),
        ("loss", "0.0123"),
        ("kept step", "1,200"),
        ("tokens", "12,345"),
        ("target tokens", "321"),
        ("seconds", "61.0"),
        ("processes", "1"),
        ("warning", "few rows"),
        ("warning", "odd rows"),
    ]


def test_runs_and_results_say_what_they_hold(rounds: Path) -> None:
    """Printed, in a notebook or in an error: no address, and no page of fields."""
    run = RunFolder(rounds / "round-2")
    assert str(run) == f"{rounds}/round-2: 2 branches of 2 tasks, 1 solved" and repr(run) == f"RunFolder({run})"
    result = result_from_branches(run.branches, policy="base")
    assert str(result) == repr(result) == "Result('base': 1 of 2 samples solved, 2 tasks x 1, 0 errors)"


def test_resuming_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With how much is there already; a new run has nothing to tell."""
    caplog.set_level("INFO", "leafe_graph")
    how = {"out": tmp_path / "run", "limits": Limits(max_branches=1), "strategy": "independent", "max_turns": 2}
    explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(2), **how)  # type: ignore[arg-type]
    assert "going on" not in caplog.text
    explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(2), **how)  # type: ignore[arg-type]
    assert f"going on with {tmp_path / 'run'}: 2 branches of 2 of 2 tasks are there" in caplog.text
