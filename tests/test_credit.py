"""What credit an action of a rollout gets: by its state's group, and by what the states around it are worth."""

from pathlib import Path
from typing import Any

import pytest
from test_strategies import next_request
from trees import branch, turn

from leafe_graph import explore
from leafe_graph.dataset.examples import examples
from leafe_graph.methods import METHODS
from leafe_graph.settings import Limits
from leafe_graph.strategies import Request, waiting
from leafe_graph.strategies.vine import Vine
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.testing.scripted_model import random_reply
from leafe_graph.types import Branch, Example

IDS: Any = {"token_ids": [1, 0], "logprobs": [-0.5, -0.1]}


def rollout(name: str, states: str, rewards: list[float], *, anchors: bool = True, **more: Any) -> Branch:
    """An attempt that goes through these states, a letter each; what is seen differs where anchors tell them."""
    turns = []
    for t, (state, reward) in enumerate(zip(states, rewards, strict=True)):
        one = turn(f"{name} {t}" if anchors else state, "up", **IDS)
        one["reward"] = reward
        if anchors:
            one["anchor"] = state
        turns.append(one)
    return branch(name, turns, "success" if sum(rewards) else "failure", return_=sum(rewards), **more)


def told(rows: list[Example]) -> dict[str, list[float]]:
    """The advantages by branch."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["branch_id"], []).append(row["advantage"])
    return found


@pytest.mark.parametrize("anchors", [True, False])
def test_an_action_is_compared_with_others_in_its_state(anchors: bool) -> None:
    """By hand: three attempts with the returns 1, 0 and 0, discounted by a half, and states that they share.

    State a is met by all at their first turn, with returns to come of 1/4, 0 and 0; b by the first and the second, with
    1/2 and 0; c by the first alone; d by the third twice, with 0 and 0.
    """
    group = [rollout("0", "abc", [0, 0, 1]), rollout("1", "ab", [0, 0]), rollout("2", "add", [0, 0, 0])]
    if not anchors:
        group = [
            rollout("0", "abc", [0, 0, 1], anchors=False),
            rollout("1", "ab", [0, 0], anchors=False),
            rollout("2", "add", [0, 0, 0], anchors=False),
        ]
    rows, _ = examples(group, kinds=["rollout"], credit="steps", discount=0.5, step_weight=2.0, history=0)
    found = told(rows)
    assert found["0"] == pytest.approx([2 / 3 + 2 * (1 / 4 - 1 / 12), 2 / 3 + 2 * 1 / 4, 2 / 3])
    assert found["1"] == pytest.approx([-1 / 3 - 2 / 12, -1 / 3 - 2 * 1 / 4])
    assert found["2"] == pytest.approx([-1 / 3 - 2 / 12, -1 / 3, -1 / 3])
    plain = told(examples(group, kinds=["rollout"], history=0)[0])
    assert plain["0"] == pytest.approx([2 / 3] * 3) and plain["2"] == pytest.approx([-1 / 3] * 3)


def test_deviations_are_divided_by_in_both_parts() -> None:
    """Two attempts through one state: with the sample's deviation each part is half of the square root of two."""
    group = [rollout("0", "a", [1]), rollout("1", "a", [0])]
    rows, _ = examples(group, kinds=["rollout"], credit="steps", advantage_std=True)
    assert told(rows)["0"] == pytest.approx([2 * 0.5**0.5], abs=1e-3)


def test_attempts_that_all_win_differ_by_their_length() -> None:
    """What comes sooner is worth more, so such a group is no longer left out; one without any reward is."""
    wins = [rollout("0", "ab", [0, 1]), rollout("1", "acb", [0, 0, 1])]
    rows, summary = examples(wins, kinds=["rollout"], credit="steps")
    assert summary.alike == 0 and told(rows)["0"][0] == pytest.approx((0.95 - 0.95**2) / 2)
    losses = [rollout("0", "ab", [0, 0]), rollout("1", "acb", [0, 0, 0])]
    assert examples(losses, kinds=["rollout"], credit="steps")[1].alike == 1


def fork(name: str, parent: str, at: int, return_: float, end: Any = None, **more: Any) -> Branch:
    """A branch that goes on from a decision point of a rollout."""
    forked = branch(name, [turn("on", "up", **IDS)], end or ("success" if return_ else "failure"), parent=parent, at=at)
    return forked | {"return_": return_} | more  # type: ignore[return-value]


def test_an_action_gets_what_it_gained_in_value() -> None:
    """By hand: two rollouts win 1 and 0, so the start is worth 1/2; forks tell the first one's second and fourth state.

    At turn 1 two of two forks win (worth 1), at turn 3 one of four (1/4): so turn 0 gained 1/2, turns 1 and 2 lost 3/4,
    turn 3, which wins, gained 3/4. The other rollout has no forks: all its turns lost 1/2.
    """
    tree = [
        rollout("0", "abcd", [0, 0, 0, 1]),
        rollout("1", "ab", [0, 0]),
        *(fork(str(n), "0", 1, 1.0) for n in (2, 3)),
        *(fork(str(n), "0", 3, float(n == 4)) for n in (4, 5, 6, 7)),
        fork("8", "0", 3, 1.0, "budget"),  # not played to an end
        fork("9", "0", 2, 1.0, experience="Go up!"),  # not the policy by itself
    ]
    found = told(examples(tree, kinds=["rollout"], credit="values")[0])
    assert found == {"0": pytest.approx([0.5, -0.75, -0.75, 0.75]), "1": pytest.approx([-0.5, -0.5])}


def test_rewards_on_the_way_are_gains_and_no_value_to_come() -> None:
    """A fork's return holds the rewards before it: what it is worth is what comes after."""
    tree = [rollout("0", "ab", [0.25, 0.5]), fork("1", "0", 1, 0.25 + 1.0)]
    found = told(examples(tree, kinds=["rollout"], credit="values")[0])
    assert found["0"] == pytest.approx([0.25 + 1.0 - 0.75, 0.5 - 1.0])


def test_without_forks_values_are_the_groups_mean() -> None:
    """Then it is GRPO."""
    group = [rollout("0", "ab", [0, 1]), rollout("1", "acb", [0, 0, 0])]
    assert told(examples(group, kinds=["rollout"], credit="values")[0]) == told(examples(group, kinds=["rollout"])[0])


def retry(name: str, parent: str, at: int, own: int, return_: float, told: str | None = "Go round.") -> Branch:
    """A branch that was told something, with so many turns of its own."""
    turns = [turn(f"{name} {t}", "down", **IDS) for t in range(own)]
    end: Any = "success" if return_ >= 1 else "failure"
    return branch(name, turns, end, parent=parent, at=at, experience=told, return_=return_)


def test_a_rollout_and_its_retry_count_from_where_they_part() -> None:
    """By hand: returns 0, 1, 0.5 and 0, so a mean of 3/8; the success has 1, what is above the mean three times that.

    The first rollout and its retry part at turn 2, the second's retry begins at its start; what is shared has no row.
    """
    tree = [
        rollout("0", "abcd", [0, 0, 0, 0]),
        retry("1", "0", 2, 3, 1.0),
        rollout("2", "ab", [0, 0.5]),
        retry("3", "2", 0, 1, 0.0),
    ]
    rows, summary = examples(tree, kinds=["rollout"], credit="pivot")
    places = {row["branch_id"]: [] for row in rows}
    for row in rows:
        places[row["branch_id"]].append(row["decision_point"])
    assert places == {"0": [2, 3], "1": [2, 3, 4], "2": [0, 1], "3": [0]} and summary.rollout == 8
    found = told(rows)
    assert found["0"] == pytest.approx([-3 / 8] * 2) and found["1"] == [1.0] * 3
    assert found["2"] == pytest.approx([3 / 8] * 2) and found["3"] == pytest.approx([-3 / 8])
    kept = {row["branch_id"]: row["logprobs"] for row in rows}
    assert kept["0"] == IDS["logprobs"] and kept["1"] is None and kept["3"] is None
    shown = next(row for row in rows if row["branch_id"] == "1" and row["decision_point"] == 2)
    assert [message["content"] for message in shown["prompt"]][1:] == ["0 0", "up", "0 1", "up", "1 0"]


def test_a_group_that_only_won_is_learned_and_one_that_only_lost_is_not() -> None:
    """A success is worth 1 whatever the others did."""
    won = [rollout("0", "ab", [0, 1]), rollout("1", "c", [1])]
    assert told(examples(won, kinds=["rollout"], credit="pivot")[0]) == {"0": [1.0, 1.0], "1": [1.0]}
    lost = [rollout("0", "ab", [0, 0]), retry("1", "0", 1, 1, 0.0)]
    rows, summary = examples(lost, kinds=["rollout"], credit="pivot")
    assert (rows, summary.alike) == ([], 1)


def test_a_retry_that_repeats_its_guidance_is_left_out() -> None:
    """As every row that holds an experience."""
    lost, won = rollout("0", "a", [0]), retry("1", "0", 0, 1, 1.0, told="The pit is right below")
    won["turns"][0]["message"]["content"] = "The pit is right below so up"
    rows, summary = examples([lost, won], kinds=["rollout"], credit="pivot")
    assert [row["branch_id"] for row in rows] == ["0"] and summary.leaked == 1


# ---- how the branches come about


def grown(limits: Limits, lengths: list[int], end: str = "failure") -> list[tuple[str | None, int]]:
    """Where the strategy's branches start, if its rollouts have these lengths."""
    branches: list[Branch] = []
    while (request := next_request("vine", branches, limits)) is not None:
        number = len(branches)
        turns = [turn("s", "up")] * (lengths[number] if number < len(lengths) else 1)
        own = branch(str(number), turns, end, parent=request.parent, at=request.decision_point)  # type: ignore[arg-type]
        assert request.experience is None
        branches.append(own)
    return [(each["parent"], each["decision_point"]) for each in branches]


def test_all_points_get_a_first_branch_before_any_gets_a_second() -> None:
    """At every second decision point of two rollouts of five and three turns, but for their starts."""
    limits = Limits(max_branches=99, max_roots=2, fork_every=2, branches_per_reflection=2)
    points = [("0", 2), ("0", 4), ("1", 2)]
    assert grown(limits, [5, 3]) == [(None, 0), (None, 0), *points, *points]
    assert grown(Limits(max_branches=4), [3]) == [(None, 0), ("0", 1), ("0", 2), (None, 0)]
    assert grown(limits, [5, 3], "budget") == [(None, 0)]


def test_what_waits_is_each_point_once() -> None:
    """So pruning keeps the checkpoints of all."""
    own = branch("0", [turn("s", "up")] * 3, "failure")
    assert waiting(Vine(), [own], Limits(max_branches=99)) == [Request("0", 1), Request("0", 2), Request()]


@pytest.mark.parametrize("checkpointer", ["memory", None])
def test_branches_are_paid_for_like_rollouts(tmp_path: Path, checkpointer: Any) -> None:
    """From exact snapshots none is replayed, and a task's budget bounds rollouts and branches together."""
    run = explore(
        ScriptedModel(reply=random_reply(["up", "down", "left", "right"])),
        SnapshotGridWorld,
        grid_tasks(3),
        out=tmp_path / "run",
        strategy="vine",
        limits=Limits(max_branches=50, max_roots=2, fork_every=2, stop_on_success=False),
        budget={"env_steps": 60},  # type: ignore[arg-type]
        max_turns=8,
        anchors=True,
        checkpointer=checkpointer,
    )
    forks = [each for each in run.branches if each["parent"] is not None]
    assert forks and all(each["experience"] is None and each["decision_point"] % 2 == 0 for each in forks)
    assert run.cost["env_steps"] == sum(len(each["turns"]) for each in run.branches) and run.cost["reflections"] == 0
    assert all(cost["env_steps"] <= 60 for cost in run.costs.values()) and run.cost["replayed_steps"] == 0


def test_anchors_tell_states_and_not_when_they_were_come_to(tmp_path: Path) -> None:
    """Against a wall one stays where one is; without being asked for, none is noted."""

    def anchors(**play: Any) -> list[str | None]:
        task: Any = {"id": "t", "instruction": "", "options": {"start": [0, 0], "goal": [2, 2], "pits": []}}
        out = tmp_path / str(len(play))
        limits = Limits(max_branches=1)
        model = ScriptedModel(reply=["up", "right", "left", "up"])
        run = explore(model, GridWorld, [task], out=out, strategy="independent", limits=limits, max_turns=4, **play)
        return [each.get("anchor") for each in run.branches[0]["turns"]]

    a, b, c, d = anchors(anchors=True)
    assert a == b == d != c and a is not None
    assert anchors() == [None] * 4


def test_the_methods_are_grpo_with_other_credit() -> None:
    """Group after group, update after update, as GRPO's."""
    grpo, gigpo, vineppo, r3l = (METHODS.class_of(name).settings for name in ("grpo", "gigpo", "vineppo", "r3l"))
    assert gigpo["export"]["credit"] == "steps" and gigpo["explore"] == {**grpo["explore"], "anchors": True}
    assert vineppo["export"]["credit"] == "values" and vineppo["explore"]["strategy"] == "vine"
    assert r3l["export"]["credit"] == "pivot" and (r3l["explore"]["strategy"], r3l["explore"]["max_depth"]) == (
        "leafe",
        1,
    )
    assert gigpo["train"] == vineppo["train"] == r3l["train"] == grpo["train"] and vineppo["train_from"] == "last"
