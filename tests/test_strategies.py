"""Which branch comes next, as a pure function of the branches there are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_graph import explore, prune, strategies
from leafe_graph.errors import ConfigError
from leafe_graph.exploration.pruning import wanted
from leafe_graph.settings import Limits
from leafe_graph.strategies import STRATEGIES, Request
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.branches import owner, path
from leafe_graph.types import Branch

WIDE = Limits(max_branches=100)


def branch(
    number: int, parent: str | None = None, *, depth: int = 0, tau: int | None = 1, end: str = "failure", **more: Any
) -> Branch:
    """A lost branch whose reflection asks to go back to ``tau``; None: it understood nothing."""
    reflection = {
        "turn": 3,
        "verdict": "unparsed" if tau is None else "rewind",
        "decision_point": tau,
        "experience": None if tau is None else f"lesson {number}",
        "raw": "",
    }
    record = {"id": str(number), "parent": parent, "depth": depth, "decision_point": 0, "turns": [{}], "end": end}
    record["return_"] = 0.0
    return record | {"reflection": reflection} | more  # type: ignore[return-value]


def next_request(strategy: str, branches: list[Branch], limits: Limits) -> Request | None:
    """What the strategy of that name plays next."""
    return strategies.next_request(STRATEGIES[strategy], branches, limits)


def grown(strategy: str, limits: Limits, *, tau: int | None = 1) -> list[Branch]:
    """The tree that a strategy grows if every branch fails."""
    branches: list[Branch] = []
    while (request := next_request(strategy, branches, limits)) is not None and len(branches) < 200:
        depth = 0 if request.parent is None else branches[int(request.parent)]["depth"] + 1
        branches.append(branch(len(branches), request.parent, depth=depth, tau=tau))
    return branches


def parents(branches: list[Branch]) -> list[str | None]:
    """Each branch's parent, in order."""
    return [b["parent"] for b in branches]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_begins_at_the_start(strategy: str) -> None:
    """The first branch of a tree is a rollout that was told nothing."""
    assert next_request(strategy, [], WIDE) == Request(None, 0, None)


def test_leafe_forks_the_oldest_request_first() -> None:
    """Breadth first: two forks of each branch, and all of a depth before any of the next."""
    limits = Limits(max_branches=100, max_depth=3, branches_per_reflection=2, max_roots=1)
    tree = grown("leafe", limits)
    assert parents(tree) == [None, *"001122334455" + "66"][:15]
    assert [b["depth"] for b in tree] == [0, 1, 1, *[2] * 4, *[3] * 8]


def test_leafe_forks_at_the_decision_point_with_the_experience() -> None:
    """What the reflection said is what the branch gets, decision point 0 too."""
    assert next_request("leafe", [branch(0, tau=2)], WIDE) == Request("0", 2, "lesson 0")
    assert next_request("leafe", [branch(0, tau=0)], WIDE) == Request("0", 0, "lesson 0")


@pytest.mark.parametrize("verdict", ["on_track", "unparsed", "out_of_range"])
def test_only_a_rewind_verdict_is_forked(verdict: str) -> None:
    """Other reflections lead to a new rollout, even if they name a step and an experience."""
    odd = branch(0)
    odd["reflection"]["verdict"] = verdict  # type: ignore[index,typeddict-item]
    assert next_request("leafe", [odd], WIDE) == Request()
    assert next_request("leafe", [branch(0, reflection=None)], WIDE) == Request()


def test_leafe_rolls_out_again_where_no_request_waits() -> None:
    """A depth of one: root, fork, root, fork; the number of roots can be limited."""
    assert parents(grown("leafe", Limits(max_branches=5, max_depth=1))) == [None, "0", None, "2", None]
    assert parents(grown("leafe", Limits(max_branches=9, max_depth=0, max_roots=2))) == [None, None]
    assert parents(grown("leafe", Limits(max_branches=9, max_depth=1, max_roots=2))) == [None, "0", None, "2"]


def test_independent_sampling_knows_nothing_of_earlier_attempts() -> None:
    """Every branch is a root, whatever its reflections say."""
    assert parents(grown("independent", Limits(max_branches=4))) == [None] * 4
    assert len(grown("independent", Limits(max_branches=9, max_roots=3))) == 3


def test_refinement_restarts_at_the_beginning_with_the_last_reflection() -> None:
    """Never at the decision point: refinement has no rewind. Each attempt is told the last one's lesson alone."""
    assert next_request("refine", [branch(0, tau=2)], WIDE) == Request("0", 0, "lesson 0")
    assert next_request("refine", [branch(0), branch(1, "0")], WIDE) == Request("1", 0, "lesson 1")
    assert parents(grown("refine", Limits(max_branches=4))) == [None, "0", "1", "2"]


def test_refinement_without_a_lesson_starts_afresh() -> None:
    """No reflection, no experience in it, or no turn to restart before: a plain rollout."""
    for last in (branch(0, reflection=None), branch(0, tau=None), branch(0, turns=[])):
        assert next_request("refine", [last], WIDE) == Request()


def test_controls_do_as_leafe_but_for_one_thing() -> None:
    """They fork the same branches in the same order: one from the start with the experience, one without it."""
    limits = Limits(max_branches=40, max_depth=3, branches_per_reflection=2, max_roots=2)
    trees = [grown(name, limits, tau=2) for name in ("leafe", "restart", "rewind")]
    assert trees[0] == trees[1] == trees[2] and len(trees[0]) == 30
    for size in range(30):
        asked = next_request("leafe", trees[0][:size], limits)
        assert asked is not None
        assert next_request("restart", trees[0][:size], limits) == replace(asked, decision_point=0)
        assert next_request("rewind", trees[0][:size], limits) == replace(asked, experience=None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tree_ends_with_its_first_success_or_goes_on(strategy: str) -> None:
    """`stop_on_success` is the default; without it a tree is filled."""
    won = [branch(0), branch(1, "0", end="success", reflection=None)]
    assert next_request(strategy, won, WIDE) is None
    assert next_request(strategy, won, Limits(stop_on_success=False)) is not None
    assert next_request(strategy, won, Limits(stop_on_success=False, max_successes=2)) is not None
    assert next_request(strategy, won, Limits(stop_on_success=False, max_successes=1)) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tree_ends_where_the_budget_did(strategy: str) -> None:
    """A last branch that was cut off by the budget is the last."""
    assert next_request(strategy, [branch(0, end="budget", reflection=None)], WIDE) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    limits=st.builds(
        Limits,
        max_branches=st.integers(1, 30),
        max_depth=st.integers(0, 4),
        branches_per_reflection=st.integers(1, 3),
        max_roots=st.none() | st.integers(1, 5),
    ),
    tau=st.none() | st.integers(0, 3),
)
def test_no_tree_outgrows_its_limits(strategy: str, limits: Limits, tau: int | None) -> None:
    """Branches, depth, roots and forks of a branch stay within; the search never asks the same tree for two things."""
    tree = grown(strategy, limits, tau=tau)
    assert len(tree) <= limits.max_branches
    roots = parents(tree).count(None)
    assert limits.max_roots is None or roots <= limits.max_roots
    if strategy in ("leafe", "restart", "rewind"):
        assert all(b["depth"] <= limits.max_depth for b in tree)
        assert all(parents(tree).count(b["id"]) <= limits.branches_per_reflection for b in tree)
    assert next_request(strategy, tree, limits) == next_request(strategy, list(tree), limits) is None


class Twice(strategies.Strategy):
    """Two roots, whatever comes of them."""

    forks = reflects = False

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """A root, or the end."""
        return Request() if len(branches) < 2 else None


@pytest.mark.parametrize("strategy", [Twice(), Twice, "test_strategies:Twice"])
def test_a_strategy_of_ones_own(strategy: Any, tmp_path: Path) -> None:
    """As an object or by its place; it keeps no decision points where it says that it never forks."""
    run = explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(1), out=tmp_path, strategy=strategy, max_turns=1)
    assert len(run.branches) == 2
    assert run.settings.strategy == (strategy if isinstance(strategy, str) else "twice")
    assert prune(tmp_path, strategy=strategy).finished == 1
    assert not (tmp_path / "checkpoints.sqlite").exists()
    with pytest.raises(
        ConfigError, match=r"strategy 'no'; expected one of leafe, .*, restart, rewind, vine, or MODULE:"
    ):
        explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(1), out=tmp_path, strategy="no")


def lesson(number: int, says: str | None, **more: Any) -> Branch:
    """A lost branch whose reflection says this."""
    record = branch(number, str(number - 1) if number else None, **more)
    record["reflection"]["experience"] = says  # type: ignore[index]
    return record


def test_reflexion_tells_the_last_three_reflections() -> None:
    """The oldest first, a line each, from the start; one that says nothing takes none away."""
    tree = [lesson(0, "a"), lesson(1, "b\n  b"), lesson(2, None), lesson(3, "c"), lesson(4, "d")]
    asked = [next_request("reflexion", tree[:n], WIDE) for n in range(6)]
    assert asked == [
        Request(),
        Request("0", 0, "a"),
        Request("1", 0, "a\nb b"),
        Request("2", 0, "a\nb b"),
        Request("3", 0, "a\nb b\nc"),
        Request("4", 0, "b b\nc\nd"),
    ]
    assert next_request("reflexion", [lesson(0, None)], WIDE) == Request()
    assert next_request("reflexion", [lesson(0, "a"), lesson(1, "b", turns=[])], WIDE) == Request("0", 0, "a\nb")


def test_tree_search_widens_the_start_then_goes_where_bounds_lead() -> None:
    """Five leave a state before one of the next is chosen: by its mean return and by how little is known of it."""
    turns, quiet = [{}] * 3, {"reflection": None}
    roots = [branch(n, turns=turns, return_=[0.2, 3.0, -1.0, 0.0, 0.0][n], **quiet) for n in range(5)]
    for n in range(5):
        assert next_request("lats", roots[:n], WIDE) == Request()
    assert next_request("lats", roots, WIDE) == Request("1", 1)  # 1.0 of all that are known once
    tree = list(roots)
    for n in range(5, 9):
        asked = next_request("lats", tree, WIDE)
        assert asked is not None
        tree.append(branch(n, asked.parent, decision_point=asked.decision_point, depth=1, turns=turns[:2], **quiet))
    # With six branches 1's way is worth 1/2 + sqrt(ln 6 / 2) = 1.45, 0's 0.2 + sqrt(ln 6) = 1.54; with seven 1.49 and
    # 0.1 + sqrt(ln 7 / 2) = 1.09, an untried one sqrt(ln 7) = 1.40; with eight 1/3 + sqrt(ln 8 / 3) = 1.17 and 1.44.
    assert [(b["parent"], b["decision_point"]) for b in tree[5:]] == [("1", 1), ("0", 1), ("1", 1), ("2", 1)]


def test_tree_search_ends_where_all_states_are_tried() -> None:
    """Ends of branches are not gone back to, and five are enough of each state; nor is any deeper than it may be."""
    limits = Limits(max_branches=1000, max_depth=2)
    tree: list[Branch] = []
    while (request := next_request("lats", tree, limits)) is not None:
        depth = 0 if request.parent is None else tree[int(request.parent)]["depth"] + 1
        turns = [{}] * (3 - request.decision_point)
        more = {"turns": turns, "decision_point": request.decision_point, "reflection": None}
        tree.append(branch(len(tree), request.parent, depth=depth, **more))
    # 5 ways on from the start, from each of these 5, from each of these 5
    assert len(tree) == 125 and max(b["depth"] for b in tree) == 2
    assert len(grown("lats", Limits(max_branches=300, max_depth=0))) == 5
    one = [branch(0, turns=[{}] * 3, reflection=None)]  # of which nothing is told, and no other may begin
    assert next_request("lats", one, Limits(max_roots=1)) == Request("0", 1)


def test_tree_search_tells_the_last_three_reflections() -> None:
    """Wherever it goes; from the start as a fork, so that it can be told."""
    tree = [lesson(n, f"lesson {n}", turns=[{}] * 2) for n in range(5)]
    for n, each in enumerate(tree):
        each["parent"] = None
        assert next_request("lats", tree[: n + 1], WIDE) == Request(
            "0", 1 if n == 4 else 0, "\n".join(f"lesson {m}" for m in range(max(0, n - 2), n + 1))
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pruning_keeps_every_decision_point_that_is_gone_back_to(strategy: str) -> None:
    """Of a tree that is not finished: the branches that come, whatever they come to, find where they start."""
    limits = Limits(max_branches=30, max_roots=5, branches_per_reflection=2)
    tree, kept = dict[str, Branch](), list[dict[str, set[str]]]()
    while (request := next_request(strategy, [*tree.values()], limits)) is not None:
        kept.append(wanted(STRATEGIES[strategy], tree, limits))
        name, depth, before = str(len(tree)), 0, request.decision_point
        if request.parent is not None:
            depth = tree[request.parent]["depth"] + 1
            point = path(tree, request.parent)[before]["checkpoint_id"]
            thread = owner(tree, request.parent, before)["thread_id"]
            assert thread is not None
            assert all(point in points.get(thread, ()) for points in kept[int(thread) + 1 :])
        turns = [{"checkpoint_id": f"{name}/{t}", "action": "a"} for t in range(before, 5)]
        more = {"turns": turns, "decision_point": before, "return_": int(name) % 7 / 7, "thread_id": name}
        tree[name] = branch(int(name), request.parent, depth=depth, tau=2, **more)
    assert len(tree) > 4 and not wanted(STRATEGIES[strategy], tree, limits)
