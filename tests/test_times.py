"""The log tells when a branch was played, when its model was asked, and how long that took."""

import itertools
from pathlib import Path

import pytest
from trees import branch, run_folder, turn
from viewed import viewed
from worlds import PIT, pit_reply

from leafe_graph import Limits, RunFolder, explore
from leafe_graph.clock import now
from leafe_graph.report.page import write_report
from leafe_graph.report.transcript import transcript
from leafe_graph.testing import GridWorld, ScriptedModel


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, RunFolder, float]:
    """A run of one task that is lost, rewound and won, and the moments before and after."""
    before = now()
    out = tmp_path_factory.mktemp("played")
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=out, limits=Limits(max_branches=2))
    return before, run, now()


def test_moments_of_a_run_follow_each_other(played: tuple[float, RunFolder, float]) -> None:
    """A branch holds its turns, a turn is the model's call and then the step, and a reflection comes behind them."""
    before, run, after = played
    lost, won = run.branches
    moments = [before]
    for each in (lost, won):
        moments.append(each["time"]["started"])
        for made in each["turns"]:
            for span in (made["message"]["time"], made["time"]):
                moments += [span["started"], span["ended"]]
        for reflection in each["reflections"]:
            moments += [reflection["time"]["started"], reflection["time"]["ended"]]
        moments.append(each["time"]["ended"])
    assert all(a <= b for a, b in itertools.pairwise([*moments, after]))
    assert lost["reflections"] and len(moments) > 20


def test_tokens_of_calls_are_those_of_the_branch(played: tuple[float, RunFolder, float]) -> None:
    """None of them failed, so the branch has spent no others."""
    for each in played[1].branches:
        usages = [*(made["message"]["usage"] for made in each["turns"]), *(r["usage"] for r in each["reflections"])]
        assert sum(usage["input_tokens"] for usage in usages) == each["cost"]["prompt_tokens"] > 0
        assert sum(usage["output_tokens"] for usage in usages) == each["cost"]["completion_tokens"] > 0


def test_pages_and_texts_tell_date_and_seconds(played: tuple[float, RunFolder, float]) -> None:
    """Of each turn, branch and reflection."""
    run = played[1]
    overview, trees = viewed(write_report(run))
    assert "first branch" in dict(overview["facts"])
    for record, shown in zip(run.branches, trees["pit"]["branches"], strict=True):
        assert shown["time"][0] == pytest.approx(record["time"]["started"], abs=0.1)
        assert shown["turns"][0]["tokens"] == record["turns"][0]["message"]["usage"]["output_tokens"]
        assert all(len(made["time"]) == 3 for made in shown["turns"])
        assert all(len(each["time"]) == 2 for each in shown["reflections"])
    text, own = transcript([*run.branches]), sum(len(each["turns"]) for each in run.branches)
    assert text.count(", the model took ") == text.count(" s, the environment ") == own


def test_logs_without_times_are_shown_without(tmp_path: Path) -> None:
    """Those of earlier releases."""
    run = run_folder(tmp_path, [branch("0", [turn("o", "up")], "failure")])
    overview, trees = viewed(write_report(run))
    assert "first branch" not in dict(overview["facts"])
    assert trees["t"]["branches"][0]["time"] is None and "time" not in trees["t"]["branches"][0]["turns"][0]
    assert "(" not in transcript([*run.branches])


def test_moments_are_kept_by_parquet(played: tuple[float, RunFolder, float], tmp_path: Path) -> None:
    """To the microsecond."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    branches = [*played[1].branches]
    out = tmp_path / "run"
    with RunFolder(out, shard_bytes=1).open(played[1].config | {"version": 1}) as run:
        for each in branches:
            run.append(each)
        run.append({**branches[0], "id": "2"})
    assert RunFolder(out).compact() == (2, [])
    assert [*RunFolder(out).branches][:2] == branches
