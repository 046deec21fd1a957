"""Methods side by side over tasks and seeds: against hand computations, every resample, and simulation."""

import itertools
import json
import random
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console
from test_evaluate import result

from leafe_graph.errors import ConfigError, MissingDependency, NothingPlayed
from leafe_graph.evaluation.panel import Entry, Panel, panel
from leafe_graph.evaluation.resampling import Rates, task_weights, two_level_means
from leafe_graph.evaluation.results import Result, TaskResult, pass_at_k

np = pytest.importorskip("numpy", reason='pip install ".[report]"')

BASE = result("base", 8, [0, 0, 1, 4, 8, 2])
SEEDS = [result("new", 8, solved) for solved in ([0, 2, 1, 6, 8, 4], [1, 0, 2, 5, 8, 3], [0, 3, 0, 7, 8, 5])]


def entries(**chosen: float) -> list[Entry]:
    """A base, and a method of three seeds."""
    made = [
        Entry(method="new", seed=i, result=each, cost={"env_steps": 100 + i, "target_tokens": 7}, chosen=chosen)
        for i, each in enumerate(SEEDS)
    ]
    return [Entry(method="base", result=BASE), *made]


def small(**how: object) -> Panel:
    """Of these."""
    return panel(entries(beta=10.0), resamples=300, **how)  # type: ignore[arg-type]


def test_a_panel_has_the_means_over_seeds_and_their_differences_to_the_baseline() -> None:
    """Computed by hand from the counts."""
    judged = small()
    for k in judged.ks:
        by_seed = [fmean(pass_at_k(8, task.c, k) for task in each.tasks) for each in SEEDS]
        base = fmean(pass_at_k(8, task.c, k) for task in BASE.tasks)
        assert judged.row("new").per_seed[k] == pytest.approx(by_seed)
        assert judged.row("new").pass_at[k].mean == pytest.approx(fmean(by_seed))
        difference = judged.beside("new", "base").differences[k]
        assert difference.mean == pytest.approx(fmean(by_seed) - base)
        assert difference.low <= difference.mean <= difference.high
    assert judged.ks == [1, 8] and judged.row("base").seeds == [None] and judged.row("new").seeds == [0, 1, 2]


def test_every_resample_of_few_tasks_and_seeds_comes_as_often_as_it_should() -> None:
    """Three tasks and two seeds: all 27 x 4 resamples by brute force, against 40,000 drawn ones."""
    values = np.array([[0.1, 0.5, 0.7], [0.3, 0.8, 0.9]])
    seed_means, task_means = values.mean(axis=1), values.mean(axis=0)
    deviations = seed_means - values.mean()
    noise = ((values - task_means - deviations[:, None]) ** 2).sum() / 2
    scale = (2 * (1 - noise / (3 * (deviations**2).sum()))) ** 0.5
    expected = Counter[float]()
    for tasks in itertools.product(range(3), repeat=3):
        for seeds in itertools.product(range(2), repeat=2):
            mean = fmean(task_means[t] for t in tasks) + scale * fmean(deviations[s] for s in seeds)
            expected[round(float(mean), 9)] += 1
    rng = np.random.default_rng(0)
    (drawn,) = two_level_means(values[:, :, None], task_weights(3, 40_000, rng), rng)
    seen = Counter(round(float(mean), 9) for mean in drawn)
    assert seen.keys() == expected.keys() and scale > 0
    assert all(abs(seen[mean] / 40_000 - often / 108) < 0.01 for mean, often in expected.items())


def test_resampled_means_spread_as_the_analysis_of_variance_says() -> None:
    """Tasks, seeds and noise that all matter: the unbiased variance of a mean over both, up to 1/T for the tasks."""
    rng = np.random.default_rng(1)
    values = 0.5 + rng.normal(0, 0.1, (1, 50)) + rng.normal(0, 0.05, (4, 1)) + rng.normal(0, 0.1, (4, 50))
    (means,) = two_level_means(values[:, :, None], task_weights(50, 40_000, rng), rng)
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    noise = ((values - columns - rows[:, None] + values.mean()) ** 2).sum() / (49 * 3)
    exact = columns.var() / 50 + max(0.0, 50 * rows.var(ddof=1) - noise) / 200
    assert means.var() == pytest.approx(exact, rel=0.03) and exact > columns.var() / 50


def test_noise_within_tasks_is_not_counted_again_for_seeds() -> None:
    """Seeds that differ by sampling alone: on average hardly wider than over tasks, half as wide again if counted."""
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(40):
        values = (rng.random((3, 100, 1)) < 0.3).astype(float)
        weights = task_weights(100, 400, rng)
        ratios.append(two_level_means(values, weights, rng).var() / (weights @ values.mean(axis=0)).var())
    assert 0.95 < fmean(ratios) < 1.5


def simulated(rng: np.random.Generator, tasks: int, seed_scatter: float) -> tuple[list[Entry], float]:
    """A base and a method of three seeds, each task's gain its own; and the true gain in Pass@1."""
    base = rng.beta(0.5, 2.0, tasks)
    made = [Entry(method="base", result=result("base", 16, rng.binomial(16, base).tolist()))]
    gains = rng.uniform(0, 0.2, tasks)
    for seed in range(3):
        rates = base * 0.8 + gains + seed_scatter * rng.uniform(-1, 1) + rng.uniform(-0.02, 0.02, tasks)
        made.append(
            Entry(method="new", seed=seed, result=result("new", 16, rng.binomial(16, rates.clip(0, 1)).tolist()))
        )
    return made, 0.1 - 0.2 * 0.2


@pytest.mark.parametrize("seed_scatter", [0.0, 0.02])
def test_intervals_of_differences_hold_the_truth_about_as_often_as_they_say(seed_scatter: float) -> None:
    """150 simulated panels of 50 tasks and three seeds: nine in ten at least, and not always."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(150):
        made, truth = simulated(rng, 50, seed_scatter)
        means = []
        weights = task_weights(50, 300, rng)
        for name in ("new", "base"):
            rates = [[task.c / task.n for task in each.result.tasks] for each in made if each.method == name]
            means.append(two_level_means(np.array(rates)[:, :, None], weights, rng)[0])
        low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
        inside += low <= truth <= high
    assert 0.9 <= inside / 150 < 1


def test_a_detectable_difference_is_one_that_most_repetitions_would_tell() -> None:
    """2.8 standard errors of the resampled differences, so about 1.4 half-widths of the interval."""
    for each in small().beside("new", "base").differences.values():
        assert each.detectable == pytest.approx(2.8 / 1.96 * (each.high - each.low) / 2, rel=0.2)


def test_baselines_can_be_several_and_none_is_held_against_itself() -> None:
    """The same difference both ways round, and a method equal to its baseline is not told from it."""
    same = Entry(method="same", seed=0, result=BASE)
    judged = panel([*entries(), same], baseline=["base", "new"], resamples=300)
    assert {(each.method, each.baseline) for each in judged.against} == {
        ("new", "base"),
        ("same", "base"),
        ("base", "new"),
        ("same", "new"),
    }
    there, back = judged.beside("new", "base").differences[1], judged.beside("base", "new").differences[1]
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    equal = judged.beside("same", "base").differences[1]
    assert (equal.mean, equal.p, equal.alike, equal.told) == (0, 1, True, False) and equal.detectable > 0


def test_tasks_won_and_lost_are_counted_by_seed_and_over_all() -> None:
    """Of six tasks the base never solves the first two, the method's first seed wins one of them and loses none."""
    beside = small().beside("new", "base")
    assert [(each.won, each.lost) for each in beside.exchanges] == [(1, 0), (1, 0), (1, 1)]
    assert (beside.pooled.won, beside.pooled.lost) == (2, 0)
    by_chance = beside.exchanges[0]
    assert 0 < by_chance.won_by_chance == pytest.approx(by_chance.lost_by_chance)
    assert beside.pooled.won_by_chance > by_chance.won_by_chance > beside.pooled.lost_by_chance


def test_new_samples_of_the_same_policy_win_and_lose_as_many_tasks_as_told() -> None:
    """Simulated: 60 times 200 tasks, played twice by one policy; told from the first of the two alone."""
    rng = np.random.default_rng(4)
    told, won = [], []
    for _ in range(60):
        rates = rng.beta(0.3, 3.0, 200)
        first, second = rng.binomial(32, rates), rng.binomial(32, rates)
        told.append(200 * Rates([(32, int(c)) for c in first]).solved_only_by(32, 32))
        won.append(((first == 0) & (second > 0)).sum())
    assert fmean(told) == pytest.approx(fmean(won), rel=0.1) and fmean(won) > 10


def test_cover_is_the_share_of_tasks_by_their_true_rate_not_by_what_was_seen() -> None:
    """Rates spread evenly over their logarithms: the share of c/n is off by 5 points and more, the estimate by less."""
    rng = np.random.default_rng(5)
    naive, told = [], []
    for _ in range(40):
        rates = np.exp(rng.uniform(np.log(0.002), 0, 200))
        counts = rng.binomial(16, rates)
        naive.append((counts / 16 >= 0.02).mean())
        told.append(Rates([(16, int(c)) for c in counts]).cover(0.02)[0])
    truth = float(np.log(0.02) / np.log(0.002))
    assert abs(fmean(naive) - truth) > 0.05 > 0.04 > abs(fmean(told) - truth)


def test_cover_admits_what_no_task_showed() -> None:
    """All tasks solved in half of the samples: up to Wilson's share of them may still be above 0.75."""
    (row,) = panel([Entry(method="base", result=result("base", 64, [32] * 20))], resamples=50).rows
    assert row.cover[0.1].mean == pytest.approx(1, abs=1e-6) and row.cover[0.75].mean == pytest.approx(0, abs=1e-6)
    assert row.cover[0.75].high == pytest.approx(0.161, abs=1e-3) and row.cover[0.75].alike


def test_tables_say_all_of_it(tmp_path: Path) -> None:
    """Markdown and terminal: seeds, differences, what chance wins, cost, the choice of tuning, the floor."""
    judged = panel(
        [*entries(beta=10.0), Entry(method="one|seed", seed=4, result=SEEDS[0])],
        floor=result("random", 2, [0, 0, 0, 1, 0, 0]),
        resamples=300,
    )
    told = judged.markdown()
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*judged.tables())
    console.file.close()
    shown = console.export_text()
    for text in (told, shown):
        for words in ("beta=10.0", "101", "random policy", "detectable", "by chance", "trained tokens", "+1 -0"):
            assert words in text
        assert str(judged.row("new").pass_at[8]) in text and "one seed: the interval is over tasks alone" in text
    assert r"one\|seed" in told and "random policy | - | 2 | " in told
    assert judged.floor is not None and 8 not in judged.floor.pass_at
    assert Panel.load(judged.save(tmp_path / "panel.json")) == judged
    with pytest.raises(ConfigError, match="not a saved panel"):
        Panel.load(BASE.save(tmp_path / "base.json"))
    (tmp_path / "other.json").write_text(json.dumps({"panel": "x" * 10_000, "ks": "y" * 10_000}))
    with pytest.raises(ConfigError, match=r"tasks is missing.*ks='y+…; ") as told_wrong:
        Panel.load(tmp_path / "other.json")
    assert len(str(told_wrong.value)) < 2_000  # not all that the file holds


def test_what_failed_is_told_and_what_never_played_is_no_entry() -> None:
    """The warnings of results stand under the table with method and seed."""
    ids = range(6)
    lame = Result(policy="lame", n=8, tasks=[TaskResult(task_id=f"t{i}", n=8, c=1, errors=4, failed=4) for i in ids])
    dead = Result(policy="dead", n=8, tasks=[TaskResult(task_id=f"t{i}", n=8, c=0, errors=8, failed=8) for i in ids])
    judged = panel([*entries(), Entry(method="lame", seed=3, result=lame)], resamples=50)
    assert judged.warnings == [f"lame, seed 3: {lame.warning}"] and "too low" in judged.markdown()
    with pytest.raises(NothingPlayed, match="dead"):
        panel([*entries(), Entry(method="dead", result=dead)], resamples=50)


def test_what_was_not_played_alike_is_told() -> None:
    """Another temperature or world; a random policy has no temperature."""

    def played(method: str, **settings: object) -> Entry:
        return Entry(method=method, result=BASE.model_copy(update={"settings": settings}))

    made = [played("base", temperature=1.0, env="sokoban"), played("new", temperature=0.5, env="sokoban", model="x")]
    floor = BASE.model_copy(update={"settings": {"env": "other", "temperature": None}})
    judged = panel(made, floor=floor, resamples=50)
    assert judged.warnings == [
        "not all were played alike: env was 'sokoban' for base, new; 'other' for random policy",
        "not all were played alike: temperature was 1.0 for base; 0.5 for new",
    ]


@pytest.mark.parametrize(
    ("made", "how", "says"),
    [
        ([Entry(method="new", seed=0, result=SEEDS[1])], {}, "method 'new' has seed 0 twice"),
        ([Entry(method="x", result=result("x", 8, [1]))], {}, "only number 5, x, has none"),
        ([], {"baseline": "grpo"}, "no method 'grpo' to compare with; expected one of base, new"),
        ([], {"floor": result("random", 8, [1])}, "only the same tasks"),
        ([], {"ks": [16]}, "expected 1 <= k <= n"),
    ],
)
def test_what_cannot_be_a_panel_is_refused(made: list[Entry], how: dict[str, object], says: str) -> None:
    """Before anything is computed."""
    with pytest.raises(ConfigError, match=says):
        panel([*entries(), *made], **how)  # type: ignore[arg-type]


def test_a_panel_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs numpy."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingDependency, match=r"\[report\]"):
        small()


@pytest.mark.parametrize("count", [6, 24])
def test_a_panel_is_drawn_with_lines_that_are_told_apart(count: int, tmp_path: Path) -> None:
    """PNG and SVG; another colour and mark for each method. Names of many stand beside the axes, which stay large."""
    figure = pytest.importorskip("matplotlib.figure", reason='pip install ".[report]"')
    rng = random.Random(6)
    made = [Entry(method=f"m{i}", result=result("m", 8, [rng.randrange(9) for _ in range(6)])) for i in range(count)]
    judged = panel(made, baseline="m0", resamples=50)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        save = figure.Figure.savefig
        patch.setattr(figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
        assert judged.plot(tmp_path / "panel.png").read_bytes().startswith(b"\x89PNG")
        assert judged.plot(tmp_path / "panel.svg").read_text().startswith("<?xml")
    left, right = drawn[0].axes
    lines = left.lines
    assert [line.get_color() for line in right.lines[1:]] == [line.get_color() for line in lines[1:]]
    assert right.get_ylabel() == "difference to m0, points"
    assert (len({*drawn[0].legends}), left.get_legend() is None) == ((0, False) if count == 6 else (1, True))
    assert left.get_position().height > 0.7 and left.get_position().width > 0.3
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == count and len({line.get_color() for line in lines}) == min(count, 8)
    assert len({line.get_marker() for line in lines}) == min(count, 10)
    assert len({line.get_linestyle() for line in lines}) > 3
