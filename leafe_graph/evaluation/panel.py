"""Many methods, each trained from several seeds, on the same tasks: the table that says which of them helps.

::

    entries = [Entry(method="base", result=base)]
    entries += [Entry(method="leafe", seed=seed, result=result, cost=cost) for seed, result, cost in trained]
    judged = panel(entries, baseline="base")
    judged.save("panel.json"), judged.plot("panel.png"), print(judged.markdown())
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, ValidationError

from ..errors import ConfigError
from ..files import path_of, save_json
from ..parsing import load_json, read_text
from ..settings import Settings, mistakes
from ..types import FORMAT_VERSION
from .compare import same_tasks
from .curves import Curve, draw
from .figures import Against, Difference, Exchange, Figure, Figures, Row
from .panel_tables import markdown, tables
from .resampling import Rates, numpy, task_weights, two_level_means
from .results import RESAMPLES, Result
from .statistics import interval, mean_interval

if TYPE_CHECKING:
    from rich.table import Table

KS = (1, 8, 32, 128)
"""The k of the tables, as far as there are samples; the largest k is always shown."""
TAUS = (0.01, 0.1, 0.25, 0.5, 0.75)
"""Success rates of Cover@τ."""
REFITS = 300
"""Resamples for the intervals of Cover@τ: each fits the spread of success rates anew."""
FLOOR = "random policy"
"""The method's name of a floor."""
WORLD = ("env", "env_options", "split", "levels", "max_turns")
"""Settings of a result that all policies of a panel should share."""
PLAYED = (*WORLD, "history", "prompts", "temperature", "top_p")
"""The same, of policies that are models."""
POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
"""Standard errors that a true difference has to have for its 95% interval to exclude 0 in 80% of repetitions."""


class Entry(Settings):
    """One policy of a method, judged on the held-out tasks."""

    method: str
    seed: int | None = None
    """Of its training; None where nothing was trained, as for the base: it may then stand once for all seeds."""
    result: Result
    """On the held-out tasks: the same for all entries."""
    cost: dict[str, float] = Field(default_factory=dict)
    """Of making the policy, judging not counted: the fields of `leafe_graph.types.Cost`, and ``target_tokens``, the
    tokens that were trained on."""
    chosen: dict[str, Any] = Field(default_factory=dict)
    """What was chosen for it by tuning, by name: ``{"train.learning_rate": 1e-3}``."""


class Panel(Figures):
    """Methods side by side; what `panel` makes, saved as JSON."""

    def save(self, file: str | Path) -> Path:
        """Write as JSON; replaces the file whole."""
        return save_json(path_of(file), self.model_dump(mode="json"))

    @classmethod
    def load(cls, file: str | Path) -> "Panel":
        """Read what `save` wrote.

        Raises:
            ConfigError: it is no panel, or of another format version.
        """
        try:
            found = cls.model_validate(load_json(read_text(path_of(file)), str(file)))
        except ValidationError as error:
            raise ConfigError(f"{file} is not a saved panel: {mistakes(error)}") from error
        if found.version != FORMAT_VERSION:
            raise ConfigError(f"{file} has format version {found.version}; this release reads {FORMAT_VERSION}")
        return found

    def markdown(self) -> str:
        """All tables as Markdown, with what to know about them."""
        return markdown(self)

    def tables(self) -> "list[Table]":
        """All tables for the terminal: rich prints them."""
        return tables(self)

    def plot(self, file: str | Path) -> Path:
        """Draw Pass@k over k, a curve and band a method, and beside it the differences to the first baseline.

        The file's suffix says the format.

        Raises:
            MissingDependency: matplotlib is not installed.
        """

        def curve(name: str, figures: Mapping[int, Figure]) -> Curve:
            return Curve(name, {k: (figure.mean, figure.low, figure.high) for k, figure in figures.items()})

        base = self.baselines[0]
        return draw(
            [curve(row.method, row.pass_at) for row in [*self.rows, *([self.floor] if self.floor else [])]],
            file,
            differences=[curve(each.method, each.differences) for each in self.against if each.baseline == base],
            baseline=base,
        )


class _Method(NamedTuple):
    """A method's values of each seed and task, and their resampled means."""

    entries: list[Entry]
    values: Any  # seeds x tasks x ks
    means: Any  # ks x resamples
    counts: list[list[tuple[int, int]]]  # of each seed, (n, c) of each task


def panel(
    entries: Iterable[Entry],
    *,
    baseline: str | Sequence[str] = "base",
    ks: Iterable[int] | None = None,
    floor: Result | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Panel:
    """Methods side by side, with 95% intervals by a bootstrap over tasks and training seeds.

    Args:
        entries: the policies, in the order in which the methods are to be shown; those of equal ``method`` are its
            seeds. Seeds of two methods are resampled independently of each other, equal numbers or not.
        baseline: the method, or methods, that the others are held against.
        ks: which Pass@k the tables show; `KS` unless given.
        floor: how a policy that acts at random did on the same tasks.
        resamples: of tasks and seeds.
        seed: of the random numbers.

    Raises:
        ConfigError: the tasks differ, a baseline is no method, a method has a seed twice, or k is larger than n.
        NothingPlayed: all samples of an entry failed.
        MissingDependency: numpy is not installed.
    """
    np = numpy()
    entries = list(entries)
    baselines = [baseline] if isinstance(baseline, str) else list(baseline)
    methods: dict[str, list[Entry]] = {}
    for entry in entries:
        if any(entry.seed == other.seed for other in methods.setdefault(entry.method, [])):
            raise ConfigError(f"method {entry.method!r} has seed {entry.seed} twice; expected each seed of it once")
        methods[entry.method].append(entry)
    if absent := [name for name in baselines if name not in methods]:
        raise ConfigError(f"there is no method {absent[0]!r} to compare with; expected one of {', '.join(methods)}")
    if floor is not None:
        methods[FLOOR] = [Entry(method=FLOOR, result=floor)]
    order = same_tasks([each.result for group in methods.values() for each in group])
    n = min(entry.result.n for entry in entries)
    shown = sorted({k for k in KS if k <= n} | {n}) if ks is None else list(ks)
    # Between those of the tables, enough k for a smooth curve.
    drawn = sorted({*shown, *(min(n, round(2 ** (i / 2))) for i in range(2 * n.bit_length() + 1))})

    weights = task_weights(len(order), resamples, np.random.default_rng([seed, 0]))
    measured: dict[str, _Method] = {}
    for number, (name, group) in enumerate(methods.items(), 1):
        at = [k for k in drawn if k <= min(each.result.n for each in group)] if name == FLOOR else drawn
        found = [[each.result.per_task(k) for k in at] for each in group]
        values = np.array([[[of[task] for of in each] for task in order] for each in found])
        counted = [{task.task_id: (task.n, task.c) for task in each.result.tasks} for each in group]
        means = two_level_means(values, weights, np.random.default_rng([seed, number]))
        measured[name] = _Method(group, values, means, [[each[task] for task in order] for each in counted])

    rows = {name: _row(method, drawn, weights[:REFITS]) for name, method in measured.items()}
    chance = {name: Rates([pair for each in measured[name].counts for pair in each]) for name in baselines}
    return Panel(
        tasks=len(order),
        ks=shown,
        baselines=baselines,
        rows=[row for name, row in rows.items() if name != FLOOR],
        floor=rows.get(FLOOR),
        against=[
            _against(measured[name], measured[base], drawn, chance[base])
            for base in baselines
            for name in measured
            if name not in (base, FLOOR)
        ],
        warnings=[
            *_settings_differ(methods),
            *(
                f"{name}{'' if each.seed is None else f', seed {each.seed}'}: {warning}"
                for name, group in methods.items()
                for each in group
                if (warning := each.result.warning)
            ),
        ],
    )


def _settings_differ(methods: Mapping[str, list[Entry]]) -> list[str]:
    """What was not the same for all, where results say it."""
    told = []
    for setting in PLAYED:
        values: dict[str, list[str]] = {}
        for name, group in methods.items():
            for entry in group:
                if setting in entry.result.settings and (name != FLOOR or setting in WORLD):
                    values.setdefault(repr(entry.result.settings[setting]), []).append(name)
        if len(values) > 1:
            played = "; ".join(f"{value} for {', '.join(dict.fromkeys(names))}" for value, names in values.items())
            told.append(f"not all were played alike: {setting} was {played}")
    return told


def _row(method: _Method, ks: list[int], weights: Any) -> Row:
    np = numpy()
    seeds, tasks = len(method.entries), len(method.counts[0])
    pooled = [pair for each in method.counts for pair in each]
    fit, refits = Rates(pooled), Rates(pooled, np.tile(weights, seeds) / seeds)
    cover = {}
    for tau in TAUS:
        share, (low, high) = float(fit.cover(tau)[0]), interval(refits.cover(tau).tolist())
        cover[tau] = Figure(mean=share, low=low, high=high)
        if min(share, 1 - share) < 0.5 / tasks:  # no whole task is on one side: resampling cannot know of any
            _, lowest, highest, alike = mean_interval([share] * tasks, [], 0.0, 1.0)
            cover[tau] = Figure(mean=share, low=min(low, lowest), high=max(high, highest), alike=alike)
    figures = [_figure(method.values[:, :, i].mean(axis=0), means, 0.0) for i, means in enumerate(method.means)]
    return Row(
        method=method.entries[0].method,
        seeds=[entry.seed for entry in method.entries],
        n=min(entry.result.n for entry in method.entries),
        pass_at=dict(zip(ks, figures, strict=False)),
        per_seed=dict(zip(ks, method.values.mean(axis=1).T.tolist(), strict=False)),
        cover=cover,
        costs=[entry.cost for entry in method.entries],
        chosen=[entry.chosen for entry in method.entries],
    )


def _figure(values: Any, means: Any, lowest: float) -> Figure:
    mean, low, high, alike = mean_interval(values.tolist(), means.tolist(), lowest, 1.0)
    return Figure(mean=mean, low=low, high=high, alike=alike)


def _against(method: _Method, base: _Method, ks: list[int], chance: Rates) -> Against:
    differences = {}
    for i, k in enumerate(ks):
        means = method.means[i] - base.means[i]
        figure = _figure((method.values[:, :, i].mean(axis=0) - base.values[:, :, i].mean(axis=0)), means, -1.0)
        beyond = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
        error = (figure.high - figure.low) / 2 / NormalDist().inv_cdf(0.975) if figure.alike else means.std()
        differences[k] = Difference(
            **figure.model_dump(), p=min(1.0, 2 * (1 + beyond) / (1 + len(means))), detectable=POWER * error
        )

    def exchange(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> Exchange:
        tasks, ns = len(one), [round(fmean(n for n, _ in each)) for each in (one, other)]
        return Exchange(
            won=sum(a[1] > 0 == b[1] for a, b in zip(one, other, strict=True)),
            lost=sum(b[1] > 0 == a[1] for a, b in zip(one, other, strict=True)),
            won_by_chance=tasks * chance.solved_only_by(*ns),
            lost_by_chance=tasks * chance.solved_only_by(*reversed(ns)),
        )

    def together(counts: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
        return [(sum(n for n, _ in each), sum(c for _, c in each)) for each in zip(*counts, strict=True)]

    def mean(exchanges: list[Exchange]) -> Exchange:
        return Exchange(**{field: fmean(getattr(e, field) for e in exchanges) for field in Exchange.model_fields})

    return Against(
        method=method.entries[0].method,
        baseline=base.entries[0].method,
        differences=differences,
        exchanges=[mean([exchange(own, other) for other in base.counts]) for own in method.counts],
        pooled=exchange(together(method.counts), together(base.counts)),
    )
