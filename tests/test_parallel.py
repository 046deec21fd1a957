"""Several processes, as `accelerate launch` starts them, train the adapter that one would; trackers get the metrics."""

import json
import re
import shutil
from pathlib import Path

import pytest
from rows import unequal, write

from leafe_graph.errors import LeafeError, MissingDependency
from leafe_graph.finetune import TrainConfig, parallel
from leafe_graph.finetune.train import train
from leafe_graph.phases.learn import run_train_apart as _train

pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("accelerate", reason='the trainer is not installed: pip install ".[train]"')

EXAMPLE = Path(__file__).parents[1] / "examples" / "multi_gpu.yaml"


@pytest.fixture
def config(tiny_model_path: Path, tmp_path: Path) -> TrainConfig:
    """Four steps, the last ones with fewer passes than processes, and held-out rows."""
    return TrainConfig(
        model=str(tiny_model_path),
        data=[write(tmp_path / "rows.jsonl", unequal())],
        eval_data=[write(tmp_path / "held.jsonl", [r | {"task_id": "other"} for r in unequal()[:3]])],
        eval_steps=2,
        out=tmp_path / "one",
        lora_r=4,
        learning_rate=1e-2,
        batch_size=4,
        micro_batch_size=1,
        max_steps=4,
        save_steps=2,
        backend="peft",
    )


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The example's file, for two processes; they find no GPU here and talk by gloo."""
    file = tmp_path / "two.yaml"
    file.write_text(re.sub("num_processes: .*", "num_processes: 2", EXAMPLE.read_text()))
    return file


def losses(out: Path) -> list[float]:
    """All losses of metrics.jsonl, held-out ones too, in their order."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record.get("loss", record.get("eval_loss")) for record in records]


def test_two_processes_train_what_one_does(config: TrainConfig, two: Path) -> None:
    """The same losses and adapter but for rounding, also where they go on from what one process began."""
    from safetensors.torch import load_file

    alone = train(config)
    began = config.out.with_name("both")
    shutil.copytree(config.out / "checkpoints", began / "checkpoints")
    (began / "checkpoints" / "step-0000004.pt").unlink()
    shutil.copy(config.out / "metrics.jsonl", began)
    both = _train(config.model_copy(update={"out": began}), two)
    assert (alone.processes, both.processes) == (1, 2)  # did both do all of it, their sums would be double
    assert (both.resumed_from, both.steps, both.rows, both.kept_step) == (2, 4, alone.rows, alone.kept_step)
    assert losses(both.adapter) == pytest.approx(losses(alone.adapter), rel=1e-4) and len(losses(both.adapter)) == 7
    ours, theirs = (load_file(result.adapter / "adapter_model.safetensors") for result in (alone, both))
    assert all(theirs[name].allclose(tensor, atol=1e-4) for name, tensor in ours.items())


def test_a_launched_training_that_fails_is_said(config: TrainConfig, two: Path) -> None:
    """What went wrong stands above, from each process; here it is the exit code."""
    with pytest.raises(LeafeError, match="exit code 1, see above; the same command again goes on"):
        _train(config.model_copy(update={"data": [config.out / "missing.jsonl"]}), two)


def test_tensorboard_gets_the_metrics(config: TrainConfig) -> None:
    """Every number of metrics.jsonl, at its step."""
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config.model_copy(update={"report_to": ["tensorboard"], "project": "here"}))
    events = EventAccumulator(str(config.out / "tracking" / "here")).Reload()
    told = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    records = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "eval_loss", "l_cf", "lr", "tokens_per_second"):
        expected = [(record["step"], pytest.approx(record[name], rel=1e-5)) for record in records if name in record]
        assert told[name] == expected != []


def test_a_tracker_that_is_not_installed_is_said(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained."""
    monkeypatch.setattr(parallel, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="report_to='mlflow' needs mlflow: pip install mlflow"):
        train(config.model_copy(update={"report_to": ["mlflow"]}))
    assert not (config.out / "metrics.jsonl").exists()
