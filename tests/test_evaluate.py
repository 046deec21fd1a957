"""Pass@k against brute force, intervals against simulation, and pairs of policies."""

import itertools
import json
import random
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import branch, turn

from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.evaluation.compare import Comparison, compare
from leafe_graph.evaluation.plots import plot, table
from leafe_graph.evaluation.results import Result, TaskResult, pass_at_k, powers_of_two, result_from_branches
from leafe_graph.evaluation.statistics import bootstrap


def result(policy: str, n: int, solved: list[int]) -> Result:
    """A result with so many solved samples for each task."""
    return Result(policy=policy, n=n, tasks=[TaskResult(task_id=f"t{i}", n=n, c=c) for i, c in enumerate(solved)])


COUNTS = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(COUNTS)
def test_pass_at_k_is_the_share_of_draws_with_a_success(counts: tuple[int, int, int]) -> None:
    """Equal to trying every way to take k of the n samples."""
    n, c, k = counts
    draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == fmean(any(draw) for draw in draws)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_grows_with_k_up_to_whether_any_sample_succeeded(counts: tuple[int, int]) -> None:
    """Monotone, a probability, the success rate at k = 1 and 0 or 1 at k = n."""
    n, c = counts
    curve = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert curve == sorted(curve)
    assert (curve[0], curve[-1]) == (c / n, float(c > 0))
    assert all(0 <= value <= 1 for value in curve)


def test_pass_at_k_is_exact_where_floating_point_products_are_not() -> None:
    """Ten thousand samples, one solved: k of them hold it with probability k/n."""
    assert pass_at_k(10_000, 1, 1) == 1e-4
    assert pass_at_k(10_000, 1, 9_999) == 0.9999


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    """More solved than samples, or more draws than samples."""
    with pytest.raises(ConfigError, match="expected"):
        pass_at_k(n, c, k)


def test_branches_are_counted_by_task_and_errors_as_not_solved() -> None:
    """A sample that ended in an error, or was never started, is a sample that did not solve its task."""
    step = turn("o", "up")
    samples = [
        branch("0", [step], "success", task="a", seconds=1.5),
        branch("1", [step] * 3, "failure", task="a", seconds=0.5),
        branch("2", [step] * 2, "env_error", task="a"),
        branch("0", [step], "max_turns", task="b"),
    ]
    judged = result_from_branches(samples, policy="base", n=4, tasks=["a", "b", "c"], budget={"env_steps": 9})
    assert [(t.task_id, t.n, t.c, t.errors) for t in judged.tasks] == [("a", 4, 1, 2), ("b", 4, 0, 3), ("c", 4, 0, 4)]
    assert (judged.tasks[0].turns, judged.tasks[0].seconds) == (2.0, 2.0)
    assert (judged.errors, judged.cost["env_steps"]) == (9, 7)
    assert judged.pass_at(1).mean == pytest.approx(1 / 12)


def test_branches_that_are_no_independent_samples_are_refused() -> None:
    """Pass@k of an exploration tree would flatter the policy."""
    forked = branch("1", [turn("o", "up")], "success", parent="0", experience="Go up.")
    with pytest.raises(ConfigError, match="independent"):
        result_from_branches([forked], policy="base")
    root = branch("0", [turn("o", "up")], "success")
    for wrong in ({"n": 0}, {"tasks": ["another"]}):
        with pytest.raises(ConfigError):
            result_from_branches([root], policy="base", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nothing to count"):
        result_from_branches([], policy="base")


def test_a_curve_has_every_k_and_is_reproducible() -> None:
    """All k up to n, each mean inside its interval, the same numbers every time."""
    judged = result("base", 8, [0, 1, 2, 8, 3, 0, 5])
    curve = judged.curve()
    assert [estimate.k for estimate in curve] == list(range(1, 9))
    assert all(estimate.low <= estimate.mean <= estimate.high for estimate in curve)
    assert curve[0].mean == pytest.approx(19 / 56) and curve[-1].mean == pytest.approx(5 / 7)
    bootstrap.cache_clear()
    assert judged.curve() == curve
    assert judged.pass_at(4) == curve[3]


def test_numbers_do_not_depend_on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With numpy it is only faster."""
    pytest.importorskip("numpy")
    first, second = result("base", 4, [0, 1, 2, 4, 3] * 4), result("new", 4, [1, 1, 3, 4, 2] * 4)
    fast = [*first.curve(), *(tuple(d.model_dump().values()) for d in compare(first, second).differences)]
    monkeypatch.setitem(sys.modules, "numpy", None)
    slow = [*first.curve(), *(tuple(d.model_dump().values()) for d in compare(first, second).differences)]
    assert [pytest.approx(row) for row in fast] == slow


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """200 simulated evaluations of 40 tasks: the true Pass@1 lies inside about 95% of the intervals."""
    rng = random.Random(7)
    inside = 0
    for _ in range(200):
        chances = [rng.betavariate(0.5, 1.5) for _ in range(40)]  # a task's own chance; 0.25 on average
        solved = [sum(rng.random() < chance for _ in range(4)) for chance in chances]
        estimate = result("base", 4, solved).pass_at(1, resamples=500)
        inside += estimate.low <= 0.25 <= estimate.high
    assert 0.90 <= inside / 200 <= 0.98


def correlated(tasks: int = 40) -> tuple[Result, Result]:
    """Two policies on tasks whose difficulty differs much more than the policies do."""
    rng = random.Random(3)
    base = [rng.choice([0, 1, 7, 12, 16]) for _ in range(tasks)]
    return result("base", 16, base), result("new", 16, [min(16, c + rng.choice([0, 1, 1, 2])) for c in base])


def test_pairing_gives_a_narrower_interval() -> None:
    """Subtracting task by task takes out what makes tasks differ."""
    first, second = correlated()
    (paired,) = compare(first, second, [1]).differences
    one, two = first.pass_at(1), second.pass_at(1)
    unpaired = ((one.high - one.low) ** 2 + (two.high - two.low) ** 2) ** 0.5
    assert paired.high - paired.low < unpaired / 3
    assert paired.difference == pytest.approx(two.mean - one.mean)
    assert 0 < paired.low < paired.difference < paired.high
    assert paired.p < 0.001


def test_equal_policies_do_not_differ() -> None:
    """Difference 0, p = 1, and an interval that admits what 40 equal tasks leave open: Wilson's limit of 0 of 40."""
    first, _ = correlated()
    for d in compare(first, first.model_copy(update={"policy": "again"})).differences:
        assert (d.difference, d.p, d.alike) == (0, 1, True)
        assert (d.low, d.high) == (pytest.approx(-0.0876, abs=1e-4), pytest.approx(0.0876, abs=1e-4))


def test_the_sign_flip_test_is_exact_for_few_tasks() -> None:
    """Five tasks that all gained: two of the 32 sign patterns are as extreme."""
    (d,) = compare(result("base", 2, [0] * 5), result("new", 2, [1] * 5), [1]).differences
    assert d.p == 2 / 32


def test_the_sign_flip_test_is_uniform_when_nothing_differs() -> None:
    """300 comparisons of equally good policies: p < 0.1 in about a tenth of them."""
    rng = random.Random(11)
    small = 0
    for _ in range(300):
        draws = [[sum(rng.random() < 0.4 for _ in range(8)) for _ in range(30)] for _ in range(2)]
        (d,) = compare(result("a", 8, draws[0]), result("b", 8, draws[1]), [1], resamples=300).differences
        small += d.p < 0.1
    assert 0.06 <= small / 300 <= 0.15


def test_different_tasks_cannot_be_compared() -> None:
    """The message names the tasks that only one policy has."""
    with pytest.raises(ConfigError, match="only the first, base, has t2, only the second, new, has none"):
        compare(result("base", 2, [0, 1, 2]), result("new", 2, [0, 1]))


def test_results_survive_saving(tmp_path: Path) -> None:
    """JSON there and back; readers find the curve in it; what is no result is refused."""
    judged = result("base", 4, [0, 1, 4])
    file = judged.save(tmp_path / "eval" / "base.json")
    assert Result.load(file) == judged
    data = json.loads(file.read_text())
    assert [row["k"] for row in data["pass_at_k"]] == [1, 2, 3, 4]
    compared = compare(judged, judged)
    saved = compared.save(tmp_path / "eval" / "comparison.json")
    assert Comparison.model_validate_json(saved.read_text()) == compared
    with pytest.raises(ConfigError, match="not a saved evaluation"):
        Result.load(saved)
    file.write_text(json.dumps(data | {"version": 99}))
    with pytest.raises(ConfigError, match="version 99"):
        Result.load(file)


def test_tables_show_every_policy_and_k() -> None:
    """What the terminal prints."""
    from rich.console import Console

    first, second = correlated()
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([first, second]), compare(first, second).table())
    console.file.close()
    text = console.export_text()
    assert "new against base, paired over 40 tasks" in text
    assert "40 x 16" in text and str(first.pass_at(16)) in text


def test_a_plot_is_drawn_or_the_extra_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PNG with matplotlib; without it an error that says what to install."""
    pytest.importorskip("matplotlib", reason='pip install ".[report]"')
    file = plot(correlated(), tmp_path / "plots" / "curve.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"\[report\]"):
        plot(correlated(), tmp_path / "curve.png")


@pytest.mark.parametrize(("n", "ks"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_usual_ks_are_powers_of_two_and_n(n: int, ks: list[Any]) -> None:
    """Which k a table shows."""
    assert powers_of_two(n) == ks
