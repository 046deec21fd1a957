"""Pictures are valid XML that shows what the tree holds; the report is one file."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import branch, run_folder, turn
from viewed import viewed

from leafe_graph.errors import ConfigError
from leafe_graph.evaluation.compare import compare
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.report.page import write_report
from leafe_graph.report.tree_svg import tree_svg
from leafe_graph.tree.branches import choose_tree
from leafe_graph.types import Branch

SVG = "{http://www.w3.org/2000/svg}"
NASTY = 'Push <b>left</b> & "not" right; </svg><script>alert(1)</script> ]]> \x00\x1b\ud800'


def recovered(task: str = "t", experience: str = "Go down first.", branches: int = 1) -> list[Branch]:
    """A failure, rewound to decision point 1, and then solved."""
    root = branch("0", [turn("o", "right", valid=False), turn("p", "right")], "failure", task=task)
    forks = [
        branch(str(i + 1), [turn("p", "down")], "success", parent="0", at=1, experience=experience, task=task)
        for i in range(branches)
    ]
    return [root, *forks]


def marks(svg: str) -> list[str]:
    """The marks at the ends of branches, from the top, and those of the legend."""
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text") if text.get("class") == "mark"]


def test_a_tree_shows_ends_and_experience() -> None:
    """The failure above, the success forked from it below, and the experience beside the fork."""
    svg = tree_svg(recovered())
    assert marks(svg) == ["✕", "✓", "✓", "✕"]
    assert "Go down first." in svg and "prefers-color-scheme: dark" in svg


@given(st.text(max_size=80) | st.just(NASTY))
def test_any_text_gives_valid_xml(text: str) -> None:
    """Markup, control characters and half surrogates in experiences and actions cannot break the picture."""
    tree = recovered(experience=text, task=text)
    tree[1]["turns"] = [turn("p", text)]
    root = ET.fromstring(tree_svg(tree))
    assert not list(root.iter(f"{SVG}script"))


def test_a_big_tree_is_cut_and_says_so() -> None:
    """Successes and their ancestors stay; a line tells how many branches are missing."""
    tree = [*recovered(), *(branch(str(i), [turn("o", "up")], "failure") for i in range(2, 40))]
    svg = tree_svg(tree, max_branches=5)
    assert "35 more branches not shown" in svg
    assert len(marks(svg)) == 5 + 2


def test_a_rewind_beyond_the_fork_starts_on_the_ancestors_line() -> None:
    """A branch of a branch that goes back further than where that one began forks from the root's line."""
    tree = recovered()
    tree.append(branch("2", [turn("o", "up")], "max_turns", parent="1", at=0, experience="Even earlier."))
    forks = [path.get("d", "") for path in ET.fromstring(tree_svg(tree)).iter(f"{SVG}path")]
    starts = [d.split("V")[0] for d in forks if "V" in d]
    assert len({start.split(" ")[1] for start in starts}) == 1, "both forks leave the same line"


def test_one_picture_is_one_task() -> None:
    """Branches of several tasks, or none, are refused."""
    for branches in ([], [*recovered("a"), *recovered("b")]):
        with pytest.raises(ConfigError, match="one task"):
            tree_svg(branches)


def test_the_chosen_tree_failed_was_rewound_and_then_solved(tmp_path: Path) -> None:
    """Not one that was solved at once, nor one that never was."""
    easy = branch("0", [turn("o", "up")], "success", task="easy")
    hard = branch("0", [turn("o", "up")], "failure", task="hard")
    run = run_folder(tmp_path, [easy, hard, *recovered("telling"), *recovered("crowded", branches=9)])
    assert {b["task"]["id"] for b in choose_tree(run)} == {"telling"}
    with pytest.raises(ConfigError, match="nothing to draw"):
        choose_tree(run_folder(tmp_path / "empty", []))


def test_a_report_is_one_file_with_its_trees_and_curves(tmp_path: Path) -> None:
    """Whatever was said is data, no markup; and the page may load nothing."""
    tree = recovered(experience=NASTY)
    tree[0]["task"]["instruction"] = "<script>alert(2)</script>"
    judged = Result(policy="<base>", n=2, tasks=[TaskResult(task_id="t", n=2, c=1), TaskResult(task_id="u", n=2, c=0)])
    judged.save(tmp_path / "eval" / "base.json")
    compare(judged, judged).save(tmp_path / "eval" / "comparison.json")
    page = write_report(run_folder(tmp_path, tree, model="<img src=x>", env="e"))
    overview, trees = viewed(page)
    assert (overview["tasks"]["solved"], overview["tasks"]["depths"], overview["ends"]) == (
        1,
        [0, 1],
        {"failure": 1, "success": 1},
    )
    assert [(curve["name"], curve["points"][0][:2]) for curve in overview["curves"]] == [("<base>", [1, 0.25])]
    lost, won = trees["t"]["branches"]
    assert won["experience"] == NASTY.replace("\ud800", "?") and [t["action"] for t in lost["turns"]] == ["right"] * 2
    text = page.read_text(encoding="utf-8")
    assert "alert(" not in text and "<img" not in text and "default-src 'none'; connect-src 'none'" in text
    assert "&lt;img src=x&gt; · e" in text and "<link" not in text


def test_a_report_tells_the_rows_of_each_branch(tmp_path: Path) -> None:
    """As an export makes them; and of those that it leaves out, why."""
    tree = recovered(experience="Go down first of all and then stay there.")
    tree[1]["turns"].append(turn("q", "I go down first of all and then stay there."))
    tree.append(branch("2", [turn("o", "up")], "failure", parent="0", at=0, experience="Up."))
    _, trees = viewed(write_report(run_folder(tmp_path, tree)))
    first, told, failed = trees["t"]["branches"]
    assert first["rows"] == failed["rows"] == [] and failed["no_rows"] == "it did not succeed"
    assert ["counterfactual", 1, ""] in told["rows"] and ["rehearsal", 2, "leaked"] in told["rows"]


def test_a_request_repeats_nothing_in_a_report(tmp_path: Path) -> None:
    """Of an agent that makes its own prompts: each message is there once, however many prompts showed it."""
    messages = [{"role": "user", "content": f"message {i}"} for i in range(4)]
    tree = recovered()
    for i, each in enumerate([*tree[0]["turns"], *tree[1]["turns"]]):
        each["request"] = {"messages": messages[: i + 2], "tools": []}  # type: ignore[typeddict-item]
    _, trees = viewed(write_report(run_folder(tmp_path, tree)))
    assert trees["t"]["messages"] == messages
    assert [t["request"] for t in trees["t"]["branches"][0]["turns"]] == [[0, 1], [0, 1, 2]]


def test_a_report_of_many_trees_has_the_most_telling(tmp_path: Path) -> None:
    """As many as are asked for, and how many are not in it."""
    easy = branch("0", [turn("o", "up")], "success", task="easy")
    overview, trees = viewed(write_report(run_folder(tmp_path, [easy, *recovered("telling")]), trees=1))
    assert [*trees] == ["telling"] and overview["left_out"] == 1 and overview["tasks"]["played"] == 2


def test_an_empty_run_has_a_report_too(tmp_path: Path) -> None:
    """Before the first branch has ended."""
    overview, trees = viewed(write_report(run_folder(tmp_path, [])))
    assert not trees and overview["trees"] == [] and overview["branches"]["all"] == 0
