"""Rounds: what each phase is told, when they stop, what goes on, and files that say what is wrong and where."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from viewed import viewed

from leafe_graph.cli.main import main
from leafe_graph.dataset.summary import Summary
from leafe_graph.errors import ConfigError, LeafeError, NothingPlayed, RunFolderError
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.files import lock_folder
from leafe_graph.finetune import TrainConfig, TrainResult
from leafe_graph.methods import distilled
from leafe_graph.phases import learn
from leafe_graph.phases.config import EvalConfig as Eval
from leafe_graph.phases.config import ExploreConfig as Explore
from leafe_graph.phases.config import ExportConfig as Export
from leafe_graph.processes.apart import apart
from leafe_graph.rounds import loop as rounds
from leafe_graph.rounds import summary
from leafe_graph.rounds.config import Estimate, RunConfig
from leafe_graph.rounds.folder import mark, result_file
from leafe_graph.rounds.loop import run
from leafe_graph.rounds.yaml_file import read_config
from leafe_graph.tree.run_folder import RunFolder

FILE = """\
model: local:smollm2-135m
adapter: warm
seed: 7
max_turns: 9
rounds: 3
patience: null
explore:
  tasks: 10
  max_branches: 3
eval:
  tasks: 4
  samples: 2
"""


WEIGHTS = rounds._weights


class Phases:
    """Stands in for the four commands: notes what they were told, and gives what a test wants them to find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[Any] = []
        self.solved = [4, 5, 6, 7]
        """Of eight held-out samples, for each round from 0."""
        self.rows = [2, 2, 2]
        """Rehearsal rows of each round."""
        for module, name in ((distilled, "explore"), (distilled, "export"), (learn, "train"), (rounds, "eval")):
            monkeypatch.setattr(module, f"run_{name}", getattr(self, name))

    def of(self, kind: type) -> list[Any]:
        return [config for config in self.told if isinstance(config, kind)]

    def explore(self, config: Explore) -> RunFolder:
        self.told.append(config)
        run = RunFolder(config.out)
        with run.open({"settings": {"tasks": ["a"]}}):
            return run

    def export(self, config: Export) -> Summary:
        self.told.append(config)
        return Summary(history=None, rehearsal=self.rows[len(self.of(Export)) - 1])

    def train(self, config: TrainConfig) -> TrainResult:
        self.told.append(config)
        config.out.mkdir(parents=True)
        (config.out / "adapter_model.safetensors").write_text(str(config.data))
        return TrainResult(
            adapter=config.out, merged=None, backend="peft", steps=1, resumed_from=0, rows={}, loss=1.0, eval_loss=None,
            kept_step=1, tokens=5, seconds=1.0,
        )  # fmt: skip

    def eval(self, config: Eval) -> Result:
        self.told.append(config)
        solved = self.solved[int(config.out.name.removeprefix("round-"))]
        tasks = [TaskResult(task_id=str(i), n=2, c=solved // 4 + (i < solved % 4)) for i in range(4)]
        result = Result(policy=config.out.name, n=2, tasks=tasks)
        result.save(config.out.with_suffix(".json"))
        return result


def warm_adapter() -> None:
    """The folder that the file names."""
    Path("warm").mkdir()
    Path("warm/adapter_config.json").write_text("{}")
    Path("warm/adapter_model.safetensors").touch()


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Phases:
    """The commands' stand-ins; their folders hold nothing that a report could show."""
    monkeypatch.chdir(tmp_path)
    warm_adapter()
    monkeypatch.setattr(rounds, "write_report", lambda folder, rows: None)
    monkeypatch.setattr(summary, "_plot", lambda told, file: None)
    monkeypatch.setattr(rounds, "_weights", lambda config, start: {"base": {}, "adapters": [str(start)]})
    return Phases(monkeypatch)


def config(**changes: Any) -> RunConfig:
    """The file above, changed."""
    file = Path("three.yaml")
    file.write_text(FILE)
    return read_config(file, changes)


def test_each_round_explores_fresh_tasks_with_the_last_adapter(phases: Phases) -> None:
    """And is judged on the same held-out ones."""
    told = run(config(out="o"))
    assert [each["round"] for each in viewed(Path("o/report.html"))[0]["rounds"]] == [0, 1, 2, 3]
    explored, judged = phases.of(Explore), phases.of(Eval)
    assert [(e.start, e.tasks, e.seed, e.split) for e in explored] == [(10 * n, 10, 8 + n, "train") for n in range(3)]
    adapters = [Path("warm"), Path("o/round-1/adapter"), Path("o/round-2/adapter"), Path("o/round-3/adapter")]
    assert [e.adapter for e in explored] == adapters[:3]
    assert [e.adapter for e in judged] == adapters
    assert {(e.start, e.tasks, e.samples, e.seed, e.split, e.max_turns) for e in judged} == {(0, 4, 2, 7, "test", 9)}
    assert [e.run for e in phases.of(Export)] == [e.out for e in explored] == [Path(f"o/round-{n}") for n in (1, 2, 3)]
    assert (told["best"], told["adapter"], told["model"]) == (3, "o/round-3/adapter", "local:smollm2-135m")
    assert told == json.loads(Path("o/rounds.json").read_text())
    first = [entry["pass_at_k"][0] for entry in told["rounds"]]
    assert [estimate["mean"] for estimate in first] == [4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert all(estimate["low"] <= estimate["mean"] <= estimate["high"] for estimate in first)
    assert list(told["rounds"][1]["seconds"]) == ["explore", "export", "train", "eval"]
    assert told["rounds"][1]["spent"]["explore"]["env_steps"] == 0


def test_the_best_adapter_is_uploaded(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the end, with what it did on the held-out tasks in its card; also if that is asked for later."""
    hub = pytest.importorskip("huggingface_hub", reason='pip install ".[train]"')
    phases.solved = [4, 5, 6, 5]
    phases.rows = [2] * 4
    uploaded: list[Any] = []
    monkeypatch.setattr(rounds, "check_hub", lambda repo: None)
    monkeypatch.setattr(rounds, "push", lambda out, repo, model: uploaded.append((out, repo, model)))

    def train(config: TrainConfig) -> TrainResult:
        result = phases.train(config)
        (config.out / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# A card\n")
        return result

    monkeypatch.setattr(learn, "run_train", train)
    run(config(out="o"))
    assert uploaded == []
    played = len(phases.told)
    run(config(out="o", **{"train.push_to_hub": "us/walker"}))
    assert uploaded == [(Path("o/round-2/adapter"), "us/walker", "local:smollm2-135m")] and len(phases.told) == played
    run(config(out="p", rounds=1, **{"train.push_to_hub": "us/other"}))
    assert uploaded[1:] == [(Path("p/round-1/adapter"), "us/other", "local:smollm2-135m")]
    assert {told.push_to_hub for told in phases.of(TrainConfig)} == {None}
    results = hub.ModelCard.load("o/round-2/adapter/README.md").data.eval_results
    assert [(e.metric_name, e.metric_value) for e in results] == [("Pass@1", 0.75), ("Pass@2", 1.0)]


def test_all_weights_may_be_trained_round_after_round(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round's policy is then a model of its own, which is played, gone on with, told and uploaded."""
    uploaded: list[Any] = []
    monkeypatch.setattr(rounds, "check_hub", lambda repo: None)
    monkeypatch.setattr(rounds, "push", lambda out, repo, model: uploaded.append(out))
    whole = {"train.tune": "full", "train_from": "last", "train.push_to_hub": "us/walker"}
    told = run(config(out="o", **whole))
    made = [Path(f"o/round-{n}/model") for n in (1, 2, 3)]
    models = ["local:smollm2-135m", *(f"local:{folder}" for folder in made)]
    assert [e.model for e in phases.of(Eval)] == models
    assert [e.adapter for e in phases.of(Eval)] == [Path("warm"), None, None, None]
    assert [(t.model, t.out) for t in phases.of(TrainConfig)] == [*zip(models[:3], made, strict=True)]
    assert (told["model"], told["adapter"], told["trained"]) == (models[3], None, str(made[2]))
    assert uploaded == made[2:]


def test_grpo_goes_on_with_its_optimiser_after_a_round_that_taught_nothing(phases: Phases) -> None:
    """Each update is from the last one's weights and its rows alone; such a round is judged, and not the end."""
    phases.rows = [2, 0, 2]
    told = run(config(out="o", method="grpo", patience=None))
    first = Path("o/round-1/adapter")
    assert [(t.adapter, t.optimizer, len(t.data)) for t in phases.of(TrainConfig)] == [
        (Path("warm"), None, 1),
        (first, first, 1),
    ]
    assert [e.adapter for e in phases.of(Eval)] == [Path("warm"), first, first, Path("o/round-3/adapter")]
    assert ["train" in entry for entry in told["rounds"]] == [False, True, False, True]
    explored = phases.of(Explore)[0]
    assert (explored.strategy, explored.stop_on_success, explored.logprobs) == ("independent", False, True)


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    """A line for each k, over the rounds."""
    pytest.importorskip("matplotlib", reason='pip install ".[report]"')
    estimates = [{"k": k, "mean": 0.5, "low": 0.4, "high": 0.6} for k in (1, 8)]
    summary._plot([{"round": n, "pass_at_k": estimates} for n in range(3)], tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().count("<!-- Pass@") == 2


def test_the_same_tasks_again_where_that_is_asked_for(phases: Phases) -> None:
    """Then only the seed differs."""
    run(config(fresh_tasks=False))
    assert [(e.start, e.seed) for e in phases.of(Explore)] == [(0, 8), (0, 9), (0, 10)]


@pytest.mark.parametrize(("keep", "expected"), [("all", ["1", "12", "123"]), (1, ["1", "12", "23"]), (0, list("123"))])
def test_rows_of_earlier_rounds_are_kept_as_asked(phases: Phases, keep: Any, expected: list[str]) -> None:
    """All, the last so many, or none."""
    run(config(keep_rows=keep))
    files = [
        [file.parent.parent.name.removeprefix("round-") for file in train.data] for train in phases.of(TrainConfig)
    ]
    assert ["".join(numbers) for numbers in files] == expected


@pytest.mark.parametrize(
    ("train_from", "expected"), [("start", ["warm"] * 3), ("last", ["warm", "o/round-1/adapter", "o/round-2/adapter"])]
)
def test_training_starts_anew_or_goes_on(phases: Phases, train_from: str, expected: list[str]) -> None:
    """From what the run began with, or from the last adapter."""
    run(config(out="o", train_from=train_from))
    assert [str(train.adapter) for train in phases.of(TrainConfig)] == expected


@pytest.mark.parametrize(
    ("solved", "changes", "played", "best"),
    [
        ([4, 5, 5, 6], {"patience": 1}, 2, 1),  # equal is no help
        ([4, 3, 5, 6], {"patience": 1}, 1, 0),
        ([4, 3, 5, 6], {"patience": 2}, 3, 3),
        ([4, 5, 6, 8], {"patience": 1, "min_gain": 0.2}, 1, 0),  # 5/8 is better, but by less than 0.2
        ([8, 1, 1, 1], {"patience": None}, 3, 0),
    ],
)
def test_it_stops_when_rounds_no_longer_help(
    phases: Phases, solved: list[int], changes: dict[str, Any], played: int, best: int
) -> None:
    """Judged task by task against the best round so far."""
    phases.solved = solved
    told = run(config(**changes))
    assert (len(told["rounds"]) - 1, told["best"]) == (played, best)
    assert ("without help" in told["stopped"]) == (played < 3)
    assert told["rounds"][1]["gain"]["difference"] == pytest.approx((solved[1] - solved[0]) / 8)


def test_a_round_without_a_success_ends_the_run(phases: Phases) -> None:
    """There is nothing to train on; what was learned before stays."""
    phases.rows = [2, 0, 2]
    told = run(config())
    assert len(phases.of(TrainConfig)) == 1 and len(told["rounds"]) == 2
    assert told["stopped"].startswith("Round 2 found nothing to learn from")


def test_a_finished_run_plays_nothing_and_more_rounds_go_on(phases: Phases) -> None:
    """Marks decide what is left to do; when to stop may be asked anew."""
    phases.solved, phases.rows = [4, 5, 5, 6, 6], [2] * 4
    run(config(rounds=2))
    phases.told = []
    for rounds_asked in (2, 1):
        assert run(config(rounds=rounds_asked))["stopped"] == "All 2 rounds are played"
    assert len(run(config(rounds=4, patience=1))["rounds"]) == 3  # the second round did not help
    assert phases.told == []
    Path("runs/three/round-2/done/eval.json").unlink()  # as if killed before its mark
    run(config(rounds=2))
    assert [type(told) for told in phases.told] == [Eval]
    phases.told = []
    assert len(run(config(rounds=4))["rounds"]) == 5
    assert [type(told) for told in phases.told] == [Explore, Export, TrainConfig, Eval] * 2


def test_rounds_do_not_go_on_from_an_evaluation_in_which_nothing_was_played(phases: Phases) -> None:
    """Neither now, nor from one that an earlier release took for a score: it is played anew."""

    def failed(config: Eval) -> Result:
        raise NothingPlayed("all failed", causes={})

    judge, rounds.run_eval = rounds.run_eval, failed  # type: ignore[assignment]
    with pytest.raises(NothingPlayed):
        run(config(rounds=1))
    folder = config().out / "round-0"
    assert not phases.of(Explore) and not mark(folder, "eval").exists()
    rounds.run_eval = judge
    result_file(folder).parent.mkdir(parents=True)
    tasks = [{"task_id": str(i), "n": 2, "c": 0, "errors": 2} for i in range(4)]
    result_file(folder).write_text(json.dumps({"policy": "round-0", "n": 2, "tasks": tasks, "pass_at_k": []}))
    mark(folder, "eval").parent.mkdir(exist_ok=True)
    mark(folder, "eval").write_text('{"seconds": 1}')
    assert [entry["pass_at_k"][0]["mean"] for entry in run(config(rounds=1))["rounds"]] == [0.5, 0.625]


def test_a_folder_of_other_settings_is_refused(phases: Phases) -> None:
    """The difference is named; memory and speed may be others, as after an overflow of the first."""
    run(config())
    run(config(**{"train.micro_batch_size": 1, "explore.concurrency": 2, "eval.timeout": 5, "serve": {}}))
    with pytest.raises(ConfigError, match=r"train\.beta: 1\.0 there, 2\.0 now"):
        run(config(**{"train.beta": 2}))


def test_rounds_belong_to_the_weights_that_they_started_from(
    phases: Phases, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others at the same place are refused by their digest, the same ones elsewhere go on; an adapter counts too."""
    pytest.importorskip("torch")
    monkeypatch.setattr(rounds, "_weights", WEIGHTS)
    shutil.copytree(tiny_model_path, "base")
    from_base = {"rounds": 1, "adapter": None, "model": "local:base"}
    run(config(**from_base))
    played = len(phases.told)
    shutil.copytree("base", "moved")
    run(config(**from_base | {"model": "local:moved"}))
    Path("base/generation_config.json").write_text('{"eos_token_id": 9}')
    with pytest.raises(ConfigError, match=r"weights\.base\.config: '\w{16}' there, '\w{16}' now"):
        run(config(**from_base))
    Path("warm/adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="warm is not a PEFT adapter folder"):
        run(config(**from_base | {"adapter": "warm", "out": "other"}))
    assert not Path("other").exists() and len(phases.told) == played
    known = json.loads(Path("runs/three/run.json").read_text())
    del known["weights"]
    Path("runs/three/run.json").write_text(json.dumps(known))
    run(config(**from_base))
    assert "does not tell the weights it started from" in caplog.text


def test_a_rounds_adapter_that_was_written_anew_is_not_gone_on_with(phases: Phases) -> None:
    """Its results and the next round belong to what its own training left."""
    run(config(rounds=1))
    Path("runs/three/round-1/adapter/adapter_model.safetensors").write_text("of another training")
    with pytest.raises(ConfigError, match=r"round-1/adapter has other weights .* then, \w{16} now"):
        run(config(rounds=2))


def test_two_runs_do_not_write_to_one_folder(phases: Phases) -> None:
    """The second is told who does."""
    with lock_folder(Path("runs/three")), pytest.raises(RunFolderError, match=f"written by process {os.getpid()}"):
        run(config())


def test_an_adapter_can_be_named_as_an_attribute(phases: Phases) -> None:
    """So a file finds the one that this package brings, wherever that is installed."""
    from leafe_graph.envs.sokoban.warm_start import WARM_START

    run(config(adapter="leafe_graph.envs.sokoban.warm_start:WARM_START", rounds=1))
    assert phases.of(TrainConfig)[0].adapter == WARM_START
    with pytest.raises(ConfigError, match="expected the path of a PEFT folder"):
        run(config(adapter="leafe_graph.settings:MAX_TURNS", out="other"))


class Server:
    """Stands in for vLLM's: notes when it starts, loads and stops."""

    noted: ClassVar[list[str]] = []
    cpu: bool

    def __init__(self, model: str, *, adapter: Path | None, folder: Path, port: int, **settings: Any) -> None:
        assert folder == Path("o/serve")
        self.name, self.base, self.port = str(adapter or "base"), None if self.cpu and adapter else "base", port
        self.noted.append(f"start {self.name}")

    def start(self) -> "Server":
        return self

    def load_adapter(self, path: Path) -> str:
        self.noted.append(f"load {path}")
        return str(path)

    def spec(self, name: str) -> str:
        return f"vllm:{name}@{self.port}"

    def stop(self) -> None:
        self.noted.append("stop")


ROUND_1, ROUND_2 = "o/round-1/adapter", "o/round-2/adapter"


@pytest.mark.parametrize(
    ("cpu", "while_training", "expected"),
    [
        (False, False, ["start warm", "stop", f"start {ROUND_1}", "stop", f"start {ROUND_2}", "stop"]),
        (False, True, ["start warm", f"load {ROUND_1}", f"load {ROUND_1}", f"load {ROUND_2}", "stop"]),
        (True, True, ["start warm", "stop", f"start {ROUND_1}", "stop", f"start {ROUND_2}", "stop"]),
    ],
)
def test_a_served_policy(
    phases: Phases, monkeypatch: pytest.MonkeyPatch, cpu: bool, while_training: bool, expected: list[str]
) -> None:
    """It is stopped for a training unless it may stay; merged weights are served by a fresh server for each adapter."""
    monkeypatch.setattr("leafe_graph.rounds.access.VllmServer", Server)
    monkeypatch.setattr(Server, "cpu", cpu, raising=False)
    Server.noted.clear()
    served = {"serve.while_training": while_training, "serve.port": 1234}
    run(config(out="o", rounds=2, **served))
    assert Server.noted == expected
    assert {(play.model, play.adapter) for play in phases.of(Explore)} == {
        ("vllm:warm@1234", None),
        (f"vllm:{ROUND_1}@1234", None),
    }
    assert phases.of(TrainConfig)[0].model == "local:smollm2-135m"


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What `leafe run` says of a file, without the folder's name."""

    def said(text: str, *flags: str) -> list[str]:
        file = tmp_path / "f.yaml"
        file.write_text(text)
        assert main(["run", str(file), "--dry-run", *flags]) == 2
        return capsys.readouterr().err.replace(f"{tmp_path}/", "").splitlines()

    return said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rounds: 1\n", "f.yaml:1: model: Field required"),
        ("model: local:m\nmax_turns: 0\n", "f.yaml:2: max_turns: Input should be greater than or equal to 1, got 0"),
        ("model: local:m\n\nexplor: {}\n", "f.yaml:3: explor: there is no such field; did you mean 'explore'?"),
        ("model: local:m\ntrain:\n  bata: 1\n", "f.yaml:3: train.bata: there is no such field; did you mean 'beta'?"),
        (
            "model: local:m\neval:\n  n: x\n",
            "f.yaml:3: eval.n: Input should be a valid integer, unable to parse string as an ",
        ),
        (
            "model: local:m\nexplore: 3\n",
            "f.yaml:2: explore: Input should be a valid dictionary or instance of ExploreConfig, got",
        ),
        ("model: local:m\ntrain:\n  out: x\n", "f.yaml:3: train.out: the run decides this itself: leave it out"),
        ("model: local:m\nmodel: local:n\n", "f.yaml:2: model: given twice"),
        ("model: local:m\nenv: chess\n", "f.yaml:2: env: expected one of sokoban, alfworld"),
        ("model: local:m\ntrain:\n  patience: 1\n", "f.yaml:2: train: patience needs eval_data"),
        ("model: local:m\nseed: null\n", "f.yaml:2: seed: Input should be a valid integer, got None"),
        ("model: local:m\nk: 9\n", "f.yaml:1: k is 9, but eval.samples is 8: take more samples or a smaller k"),
        (
            "model: m\nserve: {}\ntrain:\n  lora_r: 64\n",
            "f.yaml:1: train.lora_r is 64, but the server takes adapters up to rank 32: write serve.max_lora_rank: 64",
        ),
        ("model: local:m\nkeep_rows: -1\n", "f.yaml:2: keep_rows: expected "),
        ("model: m\n", "f.yaml:1: model 'm': write \"local:FOLDER\", or a serve section to have vLLM serve it"),
        ("model: [\n", "f.yaml:2: not YAML: while parsing a flow node expected the node content"),
        ("- model\n", "f.yaml holds list, expected fields: model, env, explore, ..."),
    ],
)
def test_a_mistake_is_told_with_its_line_and_field(wrong: Callable[..., list[str]], text: str, says: str) -> None:
    """One line of it."""
    (line,) = wrong(text)
    assert line.startswith(f"leafe: {says}")


def test_the_rank_that_is_trained_is_one_that_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter to start from keeps its own; merged weights have none; vLLM's own argument wins. The dry run tells."""
    file, start = tmp_path / "f.yaml", tmp_path / "start"
    start.mkdir()
    (start / "adapter_config.json").write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 48}}))
    file.write_text(f"model: m\nadapter: {start}\nserve:\n  max_loras: 1\ntrain:\n  lora_r: 64\n")
    assert main(["run", str(file), "--dry-run"]) == 2
    assert f"the rank of {start} is 48, but the server takes adapters up to rank 32" in capsys.readouterr().err
    for enough in (
        {"serve.max_lora_rank": 33},
        {"serve.merge": True},
        {"serve.arguments": ["--max-lora-rank=128"]},
        {"adapter": None, "train.lora_r": 20},
    ):
        read_config(file, enough)
    with pytest.raises(ConfigError, match="up to rank 16"):
        read_config(file, {"adapter": None, "train.lora_r": 20, "serve.max_lora_rank": 9})


def test_the_dry_run_warns_of_prompts_that_the_context_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the model, or of the server as it is started."""
    file = tmp_path / "f.yaml"
    file.write_text(FILE.replace("adapter: warm\n", ""))
    flags = ["--set", "estimate.turn_tokens=1000,max_turns=8,train.max_length=9999"]
    for more, told in (([], "context holds 8,192"), (["--set", 'serve.arguments=["--max-model-len","4096"]'], "4,096")):
        assert main(["run", str(file), "--dry-run", *flags, *more]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "the longest prompt with its answer has about 8,3" in said and told in said


def test_the_dry_run_tells_the_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of trees that a server's model grows, without a word to it; of rounds, by phase; nothing where none is given."""
    flags = ["--model", "openai:gpt-5-mini", "--tasks", "100", "--env-steps", "100", "--out", str(tmp_path / "none")]
    prices = ["--estimate", "prompt_price=0.25,completion_price=2,cached=0.5,cached_price=0.025"]
    assert main(["explore", "--dry-run", *flags, "--max-turns", "30", *prices]) == 0
    said = " ".join(capsys.readouterr().out.split())
    # 10,000 steps of 1,170 tokens and 16 new ones; 1,600 reflections, of 16 branches in 100 trees, of 2,100 and 100.
    prompt, new = 10_000 * 1170 + 1600 * 2100, 10_000 * 16 + 1600 * 100
    assert f"Price, at most: {(prompt * (0.25 + 0.025) / 2 + new * 2) / 1e6:,.2f}." in said
    assert not (tmp_path / "none").exists()
    assert main(["explore", "--dry-run", *flags, "--max-turns", "30", "--total-env-steps", "1000", *prices]) == 0
    assert f"Price, at most: {(prompt * (0.25 + 0.025) / 2 + new * 2) / 1e7:,.2f}." in capsys.readouterr().out
    levels = tmp_path / "levels.txt"
    levels.write_text("\n\n".join(f"#######\n#{' ' * n}.$@{' ' * (2 - n)}#\n#######" for n in range(3)))
    more = ["--levels", str(levels), "--max-turns", "30", *prices]
    assert main(["explore", "--dry-run", *flags[:2], *flags[4:], *more]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Price, at most: {(prompt * (0.25 + 0.025) / 2 + new * 2) * 0.03 / 1e6:,.2f}." in told
    assert main(["explore", "--dry-run", *flags, *prices, "--expert"]) == 0
    assert "Price, at most: 0.00." in capsys.readouterr().out
    assert main(["explore", "--dry-run", *flags]) == 0 and "Price" not in capsys.readouterr().out
    assert main(["explore", "--dry-run", *flags, "--estimate", "promt_price=1"]) == 2
    assert "promt_price='1'" in capsys.readouterr().err
    file = tmp_path / "f.yaml"
    file.write_text(FILE.replace("adapter: warm\n", ""))
    assert main(["run", str(file), "--dry-run", "--set", "estimate.prompt_price=1,estimate.completion_price=1"]) == 0
    assert re.search(r"Price, at most: [\d.,]+: [\d.,]+ for 0 eval, [\d.,]+ for 1 explore", capsys.readouterr().out)


def test_the_dry_run_counts_all_weights_where_all_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their gradients and the optimiser's moments, in float32 unless told; no adapter."""
    file = tmp_path / "f.yaml"
    file.write_text(FILE.replace("adapter: warm\n", ""))
    for dtype, base, moments in (("auto", "0.5", "1.5"), ("bfloat16", "0.3", "0.8")):  # of 134.5 million parameters
        assert main(["run", str(file), "--dry-run", "--set", f"train.tune=full,train.dtype={dtype}"]) == 0
        said = capsys.readouterr().out
        assert re.search(rf"training: base model +│ +{base} ", said) and "LoRA" not in said
        assert re.search(rf"gradients of all parameters, AdamW +│ +{moments} ", said)


def test_all_mistakes_are_told_at_once(wrong: Callable[..., list[str]]) -> None:
    """Those of flags as well."""
    lines = wrong("model: local:m\nmax_turns: x\nexplore:\n  tusks: 1\n", "--set", "train.beta=-1,eval.k=3")
    assert [line.split(": ")[:3] for line in lines[:2]] == [
        ["leafe", "f.yaml:2", "max_turns"],
        ["f.yaml:4", "explore.tusks", "there is no such field; did you mean 'tasks'?"],
    ]
    assert [line.split(": ")[0] for line in lines[2:]] == ["--set train.beta", "--set eval.k"]


def test_flags_change_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shared reaches the phases that have such a flag, unless their section says otherwise."""
    monkeypatch.chdir(tmp_path)
    warm_adapter()
    file = tmp_path / "f.yaml"
    file.write_text(FILE + "  max_turns: 5\nexport:\n")
    changed = read_config(file, {"env_options.size": "5", "train.learning_rate": "8e-4", "explore.prune": "true"})
    assert (changed.explore.max_turns, changed.eval.max_turns) == (9, 5)
    assert changed.explore.env_options == changed.eval.env_options == {"size": 5}
    assert (changed.train.learning_rate, changed.explore.prune, changed.train.seed) == (8e-4, True, 7)
    assert changed.out == Path("runs/f")
    assert main(["run", str(file), "--dry-run", "--rounds", "5", "--out", "elsewhere"]) == 0
    assert "elsewhere" in (said := capsys.readouterr().out) and "5 train" in said


def test_what_is_not_there_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the plan, which is printed all the same, and by the run before it plays anything: all of it, a line each."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("f.yaml").write_text(
        "model: local:empty\nadapter: nowhere\nprompts: no_such:PROMPTS\nmethod: no_such:Method\n"
        "env_options: {size: wide}\n"
        "explore:\n  strategy: no_such:s\n  reflector: local:gone\n"
        "train:\n  eval_data: [rows]\nserve:\n  python: venv/bin/python\n"
    )
    said = [
        "model: ", "adapter: nowhere is not a PEFT adapter folder", "method: ",
        "explore.strategy: strategy 'no_such:s' cannot be",
        "explore.reflector: no model folder at gone", "explore.prompts: prompts 'no_such:PROMPTS' cannot be found",
        "eval.prompts: ", "explore.env_options: option size='wide': ", "eval.env_options: ",
        "train.eval_data: no example rows at rows", "serve.python: there is no file venv/bin/python",
    ]  # fmt: skip
    for flags in (["--dry-run"], []):
        assert main(["run", "f.yaml", *flags]) == 2
        lines = capsys.readouterr().err.removeprefix("leafe: ").splitlines()
        assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said, lines
        assert "empty is not a Hugging Face model folder: it has no config.json" in lines[0]
    assert not Path("runs").exists()
    assert main(["run", "f.yaml", "--dry-run", "--set", "explore.strategy=leafe"]) == 2
    assert "at most, by the file's estimates" in capsys.readouterr().out


def test_the_page_on_rounds_shows_a_file_that_is_valid(tmp_path: Path) -> None:
    """And names every field, and the settings of the served policy and of the plan."""
    page = (Path(__file__).parents[1] / "docs" / "rounds.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "my.yaml").write_text(block)
    assert read_config(tmp_path / "my.yaml").explore.reflect_every == 5
    fields = (
        RunConfig.model_fields.keys() | Estimate.model_fields.keys() | {"while_training", "merge", "port", "python"}
    )
    assert [name for name in fields if f"`{name}`" not in page and f"{name}:" not in page] == []


# --- a call in a process of its own -----------------------------------------------------------------------------------


def fails(error: Exception) -> None:
    """Raises it."""
    raise error


def test_a_call_apart_gives_back_its_answer_and_its_error() -> None:
    """It is another process, and an error keeps what it carries."""
    assert apart(os.getpid) not in (os.getpid(), None)
    with pytest.raises(ConfigError, match="wrong") as raised:
        apart(fails, ConfigError("wrong", field="beta"))
    assert raised.value.field == "beta"  # type: ignore[attr-defined]


def test_a_process_that_dies_is_an_error_that_says_how() -> None:
    """As by the system's out-of-memory killer."""
    with pytest.raises(LeafeError, match="exit code 3") as raised:
        apart(os._exit, 3)
    assert raised.value.exitcode == 3  # type: ignore[attr-defined]
