"""A bench: which cells there are, what each is told, what is shared and chosen, what goes on, and clear mistakes."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from test_rounds import Phases
from viewed import viewed

from leafe_graph.bench import bench, cells, read_bench
from leafe_graph.bench import loop as benches
from leafe_graph.bench.choice import chosen
from leafe_graph.bench.config import BenchConfig, Cell
from leafe_graph.budget import no_cost
from leafe_graph.errors import ConfigError, LeafeError
from leafe_graph.evaluation import Panel
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.finetune import TrainConfig
from leafe_graph.methods import Policy
from leafe_graph.phases.config import EvalConfig, ExploreConfig, ExportConfig
from leafe_graph.processes.side_by_side import Job
from leafe_graph.tree.run_folder import RunFolder

FILE = """\
model: local:smollm2-135m
max_turns: 9
seeds: [0, 5]
env_steps: 100
explore: {tasks: 10, env_steps: 20}
eval: {tasks: 4, samples: 2}
tune:
  tasks: 3
  samples: 2
  k: 1
  grid:
    - {train.learning_rate: 1e-4}
    - {train.learning_rate: 1e-3}
methods:
  base: {method: none}
  rejection:
  rehearsal:
  leafe: {train: {beta: 10}}
  no-rewind: {method: leafe, choice: leafe, seeds: [0], explore: {max_depth: 1}}
  after: {method: leafe, start: rejection, grid: [{train.beta: 3}]}
"""


def serial(ready: Callable[[], Iterable[Job]], at_once: int) -> dict[str, str]:
    """Jobs in this process, one after the other."""
    failed: dict[str, str] = {}
    while (job := next((job for job in ready() if job.name not in failed), None)) is not None:
        try:
            job.function(*job.args)
        except LeafeError as error:
            failed[job.name] = str(error)
    return failed


class Stand:
    """Stands in for the four commands: notes what they were told, and lets policies be as good as a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phases = Phases(monkeypatch)
        self.good: Callable[[EvalConfig], int] = lambda config: 1
        """Solved of two samples of each task."""
        monkeypatch.setattr(cells, "run_eval", self.eval)
        monkeypatch.setattr(cells, "_weights", lambda policy, reflector: {"policy": str(policy)})
        monkeypatch.setattr(benches, "side_by_side", serial)
        monkeypatch.setattr(Panel, "plot", lambda panel, file: file)  # pictures take time

    def of(self, kind: type) -> list[Any]:
        """What the commands of this kind were told."""
        return self.phases.of(kind)

    def eval(self, config: EvalConfig) -> Result:
        """As good as wanted."""
        self.phases.told.append(config)
        config.out.mkdir(parents=True)
        c = self.good(config)
        tasks = [TaskResult(task_id=f"{config.split} {i}", n=2, c=c) for i in range(config.tasks or 0)]
        result = Result(policy=str(config.name), n=2, tasks=tasks)
        result.save(config.out.with_suffix(".json"))
        return result


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    stand = Stand(monkeypatch)
    stand.phases.rows = [2] * 99
    return stand


def config(only: dict[str, Any] | None = None, **changes: Any) -> BenchConfig:
    """The file above, changed; with these methods alone and nothing to choose if any are given."""
    Path("b.yaml").write_text(FILE)
    changes |= {"methods": only, "tune": None} if only else {}
    return read_bench("b.yaml", changes)


def test_what_is_played_alike_is_played_once(stand: Stand) -> None:
    """Trees for three methods, once a seed; each method learns from them by itself."""
    bench(config())
    played = [
        (told.strategy, told.seed, told.start, told.max_depth, told.total_env_steps) for told in stand.of(ExploreConfig)
    ]
    assert sorted(played) == sorted(
        [
            *[("independent", 5_000_001 * (seed == 5) or 1, 1_000_000 * (seed == 5), 4, 100) for seed in (0, 5)],
            *[("leafe", 5_000_001 * (seed == 5) or 1, 1_000_000 * (seed == 5), 4, 100) for seed in (0, 5)],
            ("leafe", 1, 0, 1, 100),
            *[("leafe", 5_000_001 * (seed == 5) or 1, 1_000_000 * (seed == 5), 4, 100) for seed in (0, 5)],  # after
        ]
    )  # fmt: skip
    # Two settings with seed 0, and the chosen one with the other seed; two cells of "after", one of "no-rewind".
    assert len(stand.of(TrainConfig)) == 3 * 3 + 2 + 1 == len(stand.of(ExportConfig))
    kinds = {str(told.out).split("/")[3]: (told.objective, told.beta) for told in stand.of(TrainConfig)}
    assert kinds["rejection"] == kinds["rehearsal"] == ("rejection", 1) and kinds["leafe"] == ("leafe", 10)


def test_the_setting_that_does_best_is_chosen(stand: Stand) -> None:
    """On tasks of their own, by the first seed; a method may take the choice of another."""
    stand.good = lambda told: 2 if "setting-1" in str(told.out) and "leafe" in str(told.out) else 1
    settings = config()
    bench(settings)
    assert [chosen(settings, name) for name in settings.methods] == [0, 0, 0, 1, 1, 0]
    told = [each for each in stand.of(EvalConfig) if each.split == "validation"]
    assert {(each.tasks, each.samples, each.seed) for each in told} == {(3, 2, 1_000_000)} and len(told) == 6
    rates = {
        str(each.out).split("/")[3]: each.learning_rate
        for each in stand.of(TrainConfig)
        if "setting-1" in str(each.out)
    }
    assert rates["no-rewind"] == 1e-3
    judged = [each for each in stand.of(EvalConfig) if each.split == "test"]
    assert len(judged) == 1 + 2 * 4 + 1 and not any(each.keep_samples for each in judged)
    kept = config(**{"eval.keep_samples": True})
    assert kept.rounds(Cell("leafe", 0, 0)).eval.keep_samples


def test_one_method_goes_on_from_another(stand: Stand) -> None:
    """Seed by seed, from what it learned; what that spent counts."""
    settings = config()
    bench(settings)
    before = cells.learned(settings, Cell("rejection", 0, 5))
    told = [each for each in stand.of(TrainConfig) if "/after/" in str(each.out)]
    assert [each.adapter for each in told] == [
        Path(f"runs/b/cells/rejection/setting-0/seed-{s}/round-1/adapter") for s in (0, 5)
    ]
    assert before.adapter == told[1].adapter
    alone, both = (cells.spent(settings, Cell(name, 0, 5))[0] for name in ("rejection", "after"))
    assert both["env_steps"] == 2 * alone["env_steps"]


def test_a_cell_that_fails_leaves_the_others_alone(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, no result is made up for it, and the same command does it again."""
    train = cells.learn_cell

    def fails(settings: BenchConfig, cell: Cell) -> None:
        if cell.entry == "rehearsal":
            raise LeafeError("no room left")
        train(settings, cell)

    monkeypatch.setattr(benches, "learn_cell", fails)
    with pytest.raises(LeafeError, match=r"2 job\(s\) failed.*(\n.*)*learn rehearsal setting 0 seed 0: no room left"):
        bench(config())
    done = {path.parts[3] for path in Path("runs/b").glob("cells/*/*/*/test.json")}
    assert done == {"base", "rejection", "leafe", "no-rewind", "after"}
    before = len(stand.of(TrainConfig))
    monkeypatch.setattr(benches, "learn_cell", train)
    bench(config())
    assert len(stand.of(TrainConfig)) == before + 3
    bench(config())
    assert len(stand.of(TrainConfig)) == before + 3


def test_a_reflectors_weights_are_of_what_is_played(tmp_path: Path) -> None:
    """Other weights in the same folder play other trees; a provider's model is known by name."""
    folder, own = tmp_path / "reflector", tmp_path / "policy"
    folder.mkdir()
    own.mkdir()
    policy = Policy(model=f"local:{own}", adapter=None)
    told = []
    for words in ("one", "two"):
        (folder / "model.safetensors").write_text(words)
        told.append(cells._weights(policy, f"local:{folder}"))
    assert told[0]["reflector"] != told[1]["reflector"]
    assert cells._weights(policy, None) == cells._weights(policy, "openai:gpt-4o")


def test_some_methods_alone_are_worked_on_and_all_that_is_there_is_told(stand: Stand) -> None:
    """The tables keep the methods that this command has nothing to do with."""
    settings = config(seeds=[0])
    bench(settings, only=["base", "rejection"])
    bench(settings, only=["leafe"])
    table = Path("runs/b/table.md").read_text()
    shown, missing = table.split("## Settings")[0], table.split("## Not there yet")[1]
    assert [f"| {name} |" in shown for name in ("base", "rejection", "leafe", "rehearsal")] == [True, True, True, False]
    assert "rehearsal" in missing


def test_a_cell_does_not_go_on_with_other_settings(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another learning rate in the same place of the grid is another cell; methods and seeds may come.

    The same weights at another place go on, others at the same place do not.
    """
    bench(config(seeds=[0]).only(["leafe"]))
    bench(config())
    before = len(stand.phases.told)
    for other in ({"train.epochs": 2}, {"tune.samples": 1}, {"eval.tasks": 3}, {"rounds": 2}):
        with pytest.raises(ConfigError, match=r"seed-0 holds a run with other settings \("):
            bench(config(**other).only(["leafe"]))
    monkeypatch.setattr(benches, "absent", lambda config: ())
    weights = str(cells.start_of(config(), Cell("leafe", 0, 0)))
    monkeypatch.setattr(cells, "_weights", lambda *_: {"policy": weights})
    bench(config(model="local:moved").only(["leafe"]))
    monkeypatch.setattr(cells, "_weights", lambda *_: {"policy": "others"})
    with pytest.raises(ConfigError, match=r"seed-0 holds a run with other settings \(weights.policy"):
        bench(config().only(["leafe"]))
    assert len(stand.phases.told) == before


def test_a_method_that_found_nothing_to_learn_from_paid_for_looking(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its policy is what it started from, which the tables say; GRPO goes on after such a round."""
    stand.phases.rows = [0] * 99
    monkeypatch.setattr(RunFolder, "cost", no_cost() | {"env_steps": 60})
    settings = config(only={"rejection": {}, "base": {"method": "none"}}, seeds=[0])
    bench(settings)
    assert cells.spent(settings, Cell("rejection", 0, 0))[0]["env_steps"] == 60
    why = "rejection setting 0 seed 0: Round 1 found nothing to learn from"
    assert why in Path("runs/b/table.md").read_text()
    stand.phases.rows = [0, 2] * 99
    settings = config(only={"grpo": {"rounds": 4}}, seeds=[0], env_steps=1000, out="grpo")
    trained, played = len(stand.of(TrainConfig)), len(stand.of(ExploreConfig))
    bench(settings)
    assert (len(stand.of(TrainConfig)) - trained, len(stand.of(ExploreConfig)) - played) == (2, 4)
    assert cells.spent(settings, Cell("grpo", 0, 0))[0]["env_steps"] == 240


def test_many_rounds_ask_for_the_first_ones_folder_once(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round asks for those before it: looked up anew, the questions would double with every round."""
    key, asked = cells._key, []
    monkeypatch.setattr(cells, "_key", lambda *about: asked.append(about) or key(*about))
    settings = config(only={"grpo": {"rounds": 12}}, seeds=[0], env_steps=1000)
    cells.learn_cell(settings, Cell("grpo", 0, 0))
    assert len(stand.of(TrainConfig)) == 12
    assert len(asked) == 1


def test_more_settings_for_what_another_starts_from(stand: Stand) -> None:
    """It waits for them to be tried; if another is chosen then, what started from the first is not taken for its."""
    grid = [{"train.learning_rate": rate} for rate in (1e-4, 1e-3, 1e-2)]
    bench(config(**{"tune.grid": grid[:2]}))
    bench(config(**{"tune.grid": grid}))
    stand.good = lambda told: 1 + ("rejection/setting-3" in str(told.out))
    with pytest.raises(ConfigError, match=r"cells/after/setting-0/seed-0 holds a run with other settings \(weights"):
        bench(config(**{"tune.grid": [*grid, {"train.learning_rate": 1e-1}]}))
    told = json.loads(Path("runs/b/table.json").read_text())
    assert [row["name"] for row in viewed(Path("runs/b/report.html"))[0]["methods"]] == [
        row["method"] for row in told["panel"]["rows"]
    ]
    assert "after" not in [row["method"] for row in told["panel"]["rows"]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tune.split": "test"}, r"b.yaml:7: tune: test tasks 0 to 2 would be compared on and chosen by"),
        ({"eval.split": "validation"}, r"tune: validation tasks 0 to 2 would be compared on and chosen by"),
        ({"tune.split": "train"}, r"tune: train tasks 0 to 2 would be learned from and chosen by"),
        ({"methods.leafe.explore": {"split": "validation", "start": 2}}, r"validation tasks 2 to 2 would be learned"),
        ({"methods.leafe.eval": {"tasks": 3}}, r"leafe.eval: judged on other tasks than base"),
        ({"methods.rejection.seeds": [0]}, r"after.start: rejection has no seed 5 to start from"),
        ({"methods.leafe.start": "random", "methods.random": {}}, r"leafe.start: expected a method that stands above"),
        ({"methods.no-rewind.grid": [{}]}, r"no-rewind.grid: the setting is the one that is chosen for leafe"),
        ({"env_steps": 10}, r"env_steps is 10, but explore.env_steps is 20, which one task may take"),
        ({"train.seed": 3}, r"train.seed: it follows from the training seeds: leave it out"),
        ({"seeds": [1, 1]}, r"seeds: expected each seed once"),
        ({"explore.start": "x"}, r"explore.start: .*valid integer"),
        ({"explore": 5}, r"explore: .*got 5"),
        (
            {"methods.leafe.train.betta": 1},
            r"--set methods.leafe.train.betta: there is no such field; did you mean 'beta'",
        ),
        ({"methods.sft": {}}, r"methods.sft: expected one of leafe, .*none, or random; got 'sft'"),
        (
            {"methods.leafe.choice": "after"},
            r"methods.leafe.choice: expected a method that stands above it .*got 'after'",
        ),
        ({"baselines": ["grpo"]}, r"baselines: expected some of base, .*got 'grpo'"),
        ({"tune.k": 3}, r"tune: k is 3, but samples is 2"),
        ({"tune.grid": [{"train.rate": 1}]}, r"train.rate: there is no such field"),
        ({"explore.tasks": 0}, r"--set explore.tasks: .*greater than or equal to 1"),
        ({"seeds": []}, r"seeds: .*at least 1 item"),
    ],
)
def test_a_mistake_is_told_where_it_stands(change: dict[str, Any], says: str, stand: Stand) -> None:
    """Before anything is played."""
    with pytest.raises(ConfigError, match=says):
        config(**change)
    assert stand.phases.told == []


def test_folders_of_what_was_played_keep_their_names(stand: Stand) -> None:
    """Also where settings have come since: what a bench has played is found by the next release."""
    settings = config()
    cell = Cell("rejection", 0, 0)
    played = cells.learning(settings, cell).played(1)
    assert played.name == "f1cf014ae06d", "give a new setting of exploring a place in SINCE, so that benches go on"
    anchored = config(**{"explore.anchors": True})
    assert cells.learning(anchored, cell).played(1) != played
