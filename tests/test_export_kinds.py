"""Which rows are made is asked for: kinds, filters, draws and weights."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from trees import branch, run_folder, turn

from leafe_graph.cli.main import main
from leafe_graph.dataset.examples import examples
from leafe_graph.dataset.export import export
from leafe_graph.errors import ConfigError
from leafe_graph.prompts import Prompts
from leafe_graph.types import Branch, Example

TOLD = "The pit is right of the start, so walk down twice and only then to the right."


def tree(
    says: str = "down", *, then: str = "right", end: Any = "success", told: str | None = TOLD, task: str = "t"
) -> list[Branch]:
    """Down, ``then``, into the pit; rewound to decision point 1, where the model now says ``says``, then left."""
    lost = [turn("at start", "down"), turn("below", then, token_ids=[7, 0]), turn("edge", "right")]
    again = [turn("below", says, token_ids=[8, 0]), turn("far below", "left")]
    return [
        branch("0", lost, "failure", task=task),
        branch("1", again, end, parent="0", at=1, experience=told, task=task),
    ]


def kinds(rows: list[Example]) -> list[tuple[str, str, int]]:
    """What identifies the rows."""
    return [(row["kind"], row["branch_id"], row["decision_point"]) for row in rows]


def messages(*said: str) -> list[dict[str, str]]:
    """A prompt's messages after the instruction, user and assistant in turn."""
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": role, "content": content} for role, content in zip(roles, said, strict=False)]


# ---- which branchings count


@pytest.mark.parametrize(
    ("keep", "end", "return_", "counts"),
    [
        ("success", "failure", 0.5, False),
        ("improved", "failure", 0.5, True),
        ("improved", "failure", 0.0, False),
        ("every", "failure", 0.0, True),
        ("every", "rewound", 0.0, True),
        ("every", "budget", 0.5, False),
        ("every", "model_error", 0.5, False),
    ],
)
def test_every_branching_may_count(keep: Any, end: Any, return_: float, counts: bool) -> None:
    """As in the paper's formula; but none whose branch a budget or an error ended."""
    branches = tree(end=end)
    branches[1]["return_"] = return_
    assert kinds(examples(branches, keep=keep)[0]) == [("counterfactual", "1", 1)] * counts


def test_an_unrevised_action_is_left_out_on_request() -> None:
    """The branch does what its parent did: the method keeps that; rehearsal always does."""
    branches = tree("right")
    assert kinds(examples(branches)[0])[0] == ("counterfactual", "1", 1)
    rows, summary = examples(branches, skip_same=True)
    assert kinds(rows) == [("rehearsal", "1", t) for t in (0, 1, 2)]
    assert (summary.counterfactual, summary.same) == (0, 1) and "unrevised actions removed  1" in str(summary)


def test_a_branch_that_was_told_nothing_counts_where_it_does_something_else() -> None:
    """Without experiences, as the strategy rewind grows trees, only another action is a revised one."""
    rows, _ = examples(tree(told=None), kinds=["counterfactual"])
    assert kinds(rows) == [("counterfactual", "1", 1)]
    rows, summary = examples(tree("right", told=None), kinds=["counterfactual"])
    assert (rows, summary.same) == ([], 1)


# ---- kinds


def test_only_the_kinds_that_are_asked_for_are_made() -> None:
    """Rehearsal alone, and none at all are refused."""
    rows, summary = examples(tree(), kinds=["rehearsal"])
    assert {row["kind"] for row in rows} == {"rehearsal"} and summary.rehearsal == len(rows) == 3
    assert [label for label, _ in summary.rows()][:2] == ["rehearsal rows", "tasks covered"]
    with pytest.raises(ConfigError, match="kinds"):
        examples(tree(), kinds=[])
    with pytest.raises(ConfigError, match="'demonstration'; expected one of 'counterfactual'"):
        examples(tree(), kinds=["demonstration"])  # type: ignore[list-item]


def test_a_preference_is_the_revised_action_over_its_parents() -> None:
    """One row a branching event: the same prompt for both, without the experience."""
    rows, summary = examples(tree(), kinds=["preference"])
    system = {"role": "system", "content": "Reach the goal."}
    assert rows == [
        {
            "version": 1,
            "kind": "preference",
            "prompt": [system, *messages("at start", "down", "below")],
            "completion": [{"role": "assistant", "content": "down"}],
            "rejected": [{"role": "assistant", "content": "right"}],
            "task_id": "t",
            "branch_id": "1",
            "decision_point": 1,
            "weight": 1.0,
            "prompt_token_ids": None,
            "completion_token_ids": [8, 0],
            "rejected_token_ids": [7, 0],
        }
    ]
    assert summary.preference == 1


def test_a_branch_that_ended_no_better_is_preferred_to_nothing() -> None:
    """Also where every branching counts."""
    branches = tree(end="failure")
    assert kinds(examples(branches, kinds=["counterfactual", "preference"], keep="every")[0]) == [
        ("counterfactual", "1", 1)
    ]
    branches[1]["return_"] = 0.5
    assert kinds(examples(branches, kinds=["preference"], keep="every")[0]) == [("preference", "1", 1)]


def test_pairs_of_one_action_and_of_nothing_said_are_left_out() -> None:
    """They prefer nothing; each is counted."""
    rows, summary = examples(tree("right"), kinds=["preference"])
    assert (rows, summary.same) == ([], 1)
    rows, summary = examples(tree(then=" "), kinds=["preference"])
    assert (rows, summary.empty) == ([], 1)


def test_a_pair_takes_what_was_done_on_the_parents_whole_path() -> None:
    """A rewind further back than where the parent forked is compared to the parent's parent."""
    branches = tree(end="rewound")
    branches.append(branch("2", [turn("at start", "up")], "success", parent="1", at=0, experience="Go up at once!"))
    (row,) = examples(branches, kinds=["preference"])[0]
    assert (row["completion"][0]["content"], row["rejected"][0]["content"]) == ("up", "down")


def test_a_rejected_answer_that_repeats_an_experience_is_a_leak() -> None:
    """The parent was told it by its own branch, and parroted it."""
    branches = tree(f"I know: {TOLD}", end="failure")
    branches.append(branch("2", [turn("below", "up")], "success", parent="1", at=1, experience="Try to go up there."))
    rows, summary = examples(branches, kinds=["preference"])
    assert (rows, summary.leaked) == ([], 1)
    assert len(examples(branches, kinds=["counterfactual"])[0]) == 1  # the revised action itself is clean


def test_a_teachers_prompt_is_the_one_that_was_played() -> None:
    """It alone holds the experience; a row whose own texts hold it is dropped as ever."""
    rows, summary = examples(tree(), teacher=True)
    counterfactual, *rehearsal = rows
    *before, last = counterfactual["teacher_prompt"]
    assert before == counterfactual["prompt"][:-1]
    assert last == {"role": "user", "content": f"below\n\nExperience from an earlier attempt: {TOLD}"}
    own = json.dumps([counterfactual["prompt"], counterfactual["completion"], *rehearsal])
    assert "pit" not in own and summary.leaked == 0
    rows, summary = examples(tree(f"I was told: {TOLD}"), teacher=True)
    assert kinds(rows) == [("rehearsal", "1", 0)] and summary.leaked == 3


def test_a_teacher_needs_prompts_that_showed_experiences(tmp_path: Path) -> None:
    """A run that showed none is refused; branches that were told none are told of."""
    with pytest.raises(ConfigError, match="experience_turns 0"):
        export(run_folder(tmp_path / "a", tree(), experience_turns=0), teacher=True)
    summary = export(run_folder(tmp_path / "b", [*tree(), *tree("up", told=None, task="u")]), teacher=True)
    assert "1 of 2 counterfactual rows have no teacher_prompt" in str(summary)


# ---- rollouts


def sampled(name: str, turns: int, return_: float, end: Any = "failure", **more: Any) -> Branch:
    """An independent attempt whose tokens and probabilities are known."""
    own = [turn(f"{name} {t}", "up", token_ids=[t, 0], logprobs=[-0.5 - t, -0.1]) for t in range(turns)]
    return branch(name, own, end, return_=return_, **more)


def test_an_advantage_is_the_return_over_the_groups_mean() -> None:
    """Each attempt counts once, however long it is; every turn of it has its advantage, ids and probabilities."""
    group = [sampled("0", 1, 1.0, "success"), sampled("1", 3, 0.0), sampled("2", 2, 0.5, "max_turns")]
    rows, summary = examples(group, kinds=["rollout"])
    assert [(row["branch_id"], row["decision_point"], row["advantage"]) for row in rows] == [
        ("0", 0, 0.5), ("1", 0, -0.5), ("1", 1, -0.5), ("1", 2, -0.5), ("2", 0, 0.0), ("2", 1, 0.0)
    ]  # fmt: skip
    assert rows[3]["completion_token_ids"] == [2, 0] and rows[3]["logprobs"] == [-2.5, -0.1]
    assert {row["weight"] for row in rows} == {1.0} and summary.rollout == 6
    rows, _ = examples(group, kinds=["rollout"], advantage_std=True)
    assert rows[0]["advantage"] == pytest.approx(0.5 / (0.5 + 1e-4))  # the sample's deviation is 0.5


def test_a_probability_that_was_rounded_above_one_is_one() -> None:
    """Models that compute in 32 bits tell such logarithms of what they are sure of."""
    group = [sampled("0", 1, 1.0), sampled("1", 1, 0.0)]
    group[0]["turns"][0]["message"]["logprobs"] = [1.2e-7, -0.1]
    assert examples(group, kinds=["rollout"])[0][0]["logprobs"] == [0.0, -0.1]


def test_attempts_that_were_not_played_to_an_end_are_in_no_group() -> None:
    """Ended by a budget, an error or a reflection; nor is a branch that was forked."""
    group = [sampled("0", 1, 1.0, "success"), sampled("1", 1, 0.0)]
    odd = [sampled(str(n), 1, 9.0, end) for n, end in enumerate(["budget", "env_error", "model_error", "rewound"], 2)]
    forked = sampled("9", 1, 9.0, "success", parent="0", experience="Up!")
    rows, _ = examples([*group, *odd, forked], kinds=["rollout"])
    assert [(row["branch_id"], row["advantage"]) for row in rows] == [("0", 0.5), ("1", -0.5)]


def test_groups_without_variance_are_left_out_and_counted() -> None:
    """All won, all lost, one alone: nothing is better than anything. One that varies stays."""
    alike = [sampled(str(n), 1, float(won), task=task) for task, won in (("a", 1), ("b", 0)) for n in range(2)]
    alone = [sampled("0", 1, 1.0, task="c")]
    varied = [sampled("0", 1, 1.0, task="d"), sampled("1", 1, 0.0, task="d")]
    rows, summary = examples([*alike, *alone, *varied], kinds=["rollout"])
    assert [row["task_id"] for row in rows] == ["d", "d"]
    assert (summary.groups, summary.alike) == (4, 3) and "groups without variance removed  3 of 4" in str(summary)


def test_equal_turns_of_a_rollout_all_count() -> None:
    """What was sampled twice counts twice; the other kinds have a row once. An invalid action is no exception."""
    same = [turn("start", "up", valid=False, token_ids=[1], logprobs=[-0.5])] * 2
    group = [branch("0", same, "failure", return_=0.0), branch("1", same, "failure", return_=1.0)]
    rows, summary = examples(group, kinds=["rollout"], history=0, skip_invalid=True)
    assert len(rows) == 4 and summary.duplicates == 0


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ({}, "has no token_ids and no logprobs"),
        ({"token_ids": [1, 0]}, "has no logprobs"),
        ({"token_ids": [1, 0], "logprobs": [-0.5]}, "has other numbers of token_ids than of logprobs"),
    ],
)
def test_rollouts_without_probabilities_are_refused(ids: dict[str, Any], told: str) -> None:
    """The error names the first turn, and a model that tells them."""
    group = [sampled("0", 1, 1.0), branch("1", [turn("start", "up", **ids)], "failure")]
    with pytest.raises(ConfigError, match=rf"turn 0 of branch 1 of task 't' {told}: .*logprobs=True"):
        examples(group, kinds=["rollout"])


def test_groups_that_end_with_their_first_success_are_told(tmp_path: Path) -> None:
    """Their means say little: the default ends a task there."""
    group = [sampled("0", 1, 0.0), sampled("1", 1, 1.0, "success")]
    assert "stop_on_success" in str(export(run_folder(tmp_path / "a", group), kinds=["rollout"]))
    run = run_folder(tmp_path / "b", group, limits={"stop_on_success": False})
    assert "stop_on_success" not in str(export(run, kinds=["rollout"]))


def test_an_on_policy_row_is_what_was_done_before_it_was_revised() -> None:
    """After the same prompt as the revised action, with its experience for the teacher; each experience is a row."""
    lost, won = tree()
    other = branch("2", [turn("below", "up")], "success", parent="0", at=1, experience="Go up.")
    told = branch("3", [turn("below", "left")], "success", parent="1", at=1, experience="Once more.")
    rows, summary = examples([lost, won, other, told], kinds=["on_policy", "counterfactual"], teacher=True)
    own = [row for row in rows if row["kind"] == "on_policy"]
    system = {"role": "system", "content": "Reach the goal."}
    for row, experience in zip(own, (TOLD, "Go up."), strict=True):
        assert row["prompt"] == [system, *messages("at start", "down", "below")]
        assert row["completion"] == [{"role": "assistant", "content": "right"}]
        assert (row["branch_id"], row["decision_point"], row["completion_token_ids"]) == ("0", 1, [7, 0])
        shown = Prompts().experience.format(experience=experience)
        assert row["teacher_prompt"] == [system, *messages("at start", "down", f"below\n\n{shown}")]
    # The action that "3" revised was said by one who had been told something.
    assert (summary.on_policy, summary.counterfactual) == (2, 3)
    later = branch("4", [turn("far below", "up")], "success", parent="1", at=2, experience="At last.")
    for shown_for, count in ((None, 2), (2, 2), (1, 3)):  # "1" was shown its experience at its first turn alone
        _, summary = examples([lost, won, other, told, later], kinds=["on_policy"], experience_turns=shown_for)
        assert summary.on_policy == count
    assert own[0]["teacher_prompt"] == next(row for row in rows if row["kind"] == "counterfactual")["teacher_prompt"]


# ---- ideas of our own


def test_recoveries_are_rehearsed_from_where_they_left_their_parent() -> None:
    """And successes of rollouts not at all."""
    won = branch("2", [turn("at start", "left")], "success")
    assert kinds(examples([*tree(), won], kinds=["rehearsal"], rehearse="recoveries")[0]) == [
        ("rehearsal", "1", 1), ("rehearsal", "1", 2)
    ]  # fmt: skip


def test_of_siblings_the_best_is_preferred_to_each_that_ended_worse() -> None:
    """Where they left one decision point, told the same, and acted otherwise; beside the pairs with the parent."""
    lost, won = tree()

    def sibling(name: str, says: str, told: str = TOLD, at: int = 1, end: Any = "failure") -> Branch:
        return branch(name, [turn("below", says)], end, parent="0", at=at, experience=told)

    worse = [sibling("2", "left"), sibling("3", "down"), sibling("4", "up", told="Go up."), sibling("5", "up", at=0)]
    tried = [lost, won, *worse, sibling("6", "up", end="budget")]
    rows, summary = examples(tried, kinds=["preference"], siblings=True)
    pairs = [(row["branch_id"], row["completion"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert pairs == [("1", "down", "right"), ("1", "down", "left")] and summary.same == 1
    assert rows[1]["prompt"] == rows[0]["prompt"] and rows[1]["rejected_token_ids"] is None
    assert len(examples(tried, kinds=["preference"])[0]) == 1


# ---- what is drawn, and weights


def forest(*numbers: int) -> list[Branch]:
    """A task for each number, with as many branches that recovered, each in another way."""
    found: list[Branch] = []
    for task, number in enumerate(numbers):
        name = f"t{task:03d}"
        found.append(branch("0", [turn(name, "down"), turn("below", "right")], "failure", task=name))
        for n in range(1, number + 1):
            again = [turn("below", f"way {n}")]
            found.append(branch(str(n), again, "success", parent="0", at=1, experience=f"Try {n}.", task=name))
    return found


def test_a_share_of_the_successes_is_rehearsed() -> None:
    """Whole attempts, drawn by seed and name: the same ones when other tasks come."""
    branches = forest(*[4] * 100)
    rows, summary = examples(branches, kinds=["rehearsal"], rehearsal_share=0.2)
    own = {(row["task_id"], row["branch_id"]) for row in rows if row["decision_point"] == 1}
    assert 50 < len(own) < 110 and summary.unrehearsed == 400 - len(own)  # 80 on average, 8 as its deviation
    few = {(row["task_id"], row["branch_id"]) for row in examples(forest(*[4] * 50), rehearsal_share=0.2)[0]
           if row["kind"] == "rehearsal" and row["decision_point"] == 1}  # fmt: skip
    assert few == {each for each in own if each[0] < "t050"}
    other, _ = examples(branches, kinds=["rehearsal"], rehearsal_share=0.2, seed=1)
    assert other != rows
    assert examples(branches, rehearsal_share=0)[1].rehearsal == 0
    with pytest.raises(ConfigError, match="rehearsal_share"):
        examples(branches, rehearsal_share=1.5)


def test_a_task_has_at_most_so_many_counterfactual_rows() -> None:
    """Drawn by the seed; rehearsal has them all, and what is left out is counted."""
    branches = forest(5, 2)
    rows, summary = examples(branches, counterfactual_per_task=3)
    taken = [row["branch_id"] for row in rows if row["kind"] == "counterfactual"]
    assert len(taken) == summary.counterfactual == 5 and summary.over == 2 and summary.rehearsal == 9
    drawn = {
        tuple(row["branch_id"] for row in examples(branches, counterfactual_per_task=3, seed=seed)[0][:3])
        for seed in range(40)
    }
    assert len(drawn) == 10  # every three of five


@pytest.mark.parametrize("balance", ["rows", "root", "tasks"])
def test_rows_of_tasks_are_balanced(balance: Any) -> None:
    """A task weighs as many rows, their root, or as any other; the mean of each kind is 1."""
    rows, _ = examples(forest(4, 1), kinds=["counterfactual", "rehearsal"], balance=balance)
    wholes: Counter[tuple[str, str]] = Counter()
    for row in rows:
        wholes[row["kind"], row["task_id"]] += row["weight"]  # type: ignore[assignment]
    for kind, (many, few) in {"counterfactual": (4, 1), "rehearsal": (5, 2)}.items():
        ratio = {"rows": many / few, "root": math.sqrt(many / few), "tasks": 1}[balance]
        assert wholes[kind, "t000"] / wholes[kind, "t001"] == pytest.approx(ratio)
        assert wholes[kind, "t000"] + wholes[kind, "t001"] == pytest.approx(many + few)
    assert balance != "rows" or {row["weight"] for row in rows} == {1.0}


def test_rollouts_are_not_balanced() -> None:
    """A turn's loss is over all tokens: weights would count long attempts less."""
    group = [sampled("0", 5, 1.0), sampled("1", 1, 0.0)]
    assert {row["weight"] for row in examples(group, kinds=["rollout"], balance="root")[0]} == {1.0}


def test_flags_say_what_is_exported(tmp_path: Path) -> None:
    """Each setting is a flag, and the card tells them all."""
    run_folder(tmp_path, forest(4, 1))
    flags = ("--kinds", "preference,rehearsal", "--keep", "every", "--balance", "tasks", "--rehearsal-share", "0.5")
    assert main(["export", str(tmp_path), *flags]) == 0
    rows = [json.loads(line) for line in (tmp_path / "examples" / "examples.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"preference", "rehearsal"}
    card = (tmp_path / "examples" / "README.md").read_text()
    assert '"keep": "every"' in card and '"rehearsal_share": 0.5' in card and "| preference rows | 5 |" in card
