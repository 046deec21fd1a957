"""Training for a few steps: resumed runs end like undisturbed ones, and the results load without this package."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rows import row, unequal, write

from leafe_graph.cli.main import main
from leafe_graph.errors import ConfigError, ExampleError, MissingDependency
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune import train as train_module
from leafe_graph.finetune.checkpoint import State
from leafe_graph.finetune.rows import read_examples, split_tasks
from leafe_graph.finetune.train import learning_rate, train
from leafe_graph.types import ExampleKind

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')


@pytest.fixture
def config(tiny_model_path: Path, tmp_path: Path) -> TrainConfig:
    """Four steps of four rows, with dropout so that random state matters, and a checkpoint each step."""
    return TrainConfig(
        model=str(tiny_model_path),
        data=[write(tmp_path / "rows.jsonl", unequal())],
        out=tmp_path / "out",
        lora_r=4,
        lora_dropout=0.2,
        learning_rate=1e-2,
        batch_size=4,
        micro_batch_size=3,
        max_steps=4,
        save_steps=1,
        backend="peft",
    )


def lines(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the clock's part."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "tokens_per_second")} for r in records]


def adapter(out: Path) -> dict[str, Any]:
    """The saved adapter's tensors."""
    from safetensors.torch import load_file

    return dict(load_file(out / "adapter_model.safetensors"))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def killed_after(step: int, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the checkpoint of ``step`` is written, then stop as Ctrl-C does."""
    save = State.save

    def save_then_stop(self: State, *arguments: Any) -> None:
        save(self, *arguments)
        if self.step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert not (config.out / "adapter_model.safetensors").exists()


def test_a_resumed_run_ends_like_an_undisturbed_one(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, stop, resume: the same losses and the same weights, bit for bit."""
    straight = config.model_copy(update={"out": config.out.with_name("straight")})
    undisturbed = train(straight)
    killed_after(2, config, monkeypatch)
    resumed = train(config)
    assert (undisturbed.resumed_from, resumed.resumed_from, resumed.steps) == (0, 2, 4)
    assert [m["step"] for m in lines(config.out)] == [1, 2, 3, 4]
    assert lines(config.out) == lines(straight.out)
    assert same(adapter(config.out), adapter(straight.out))
    assert (resumed.loss, resumed.tokens) == (undisturbed.loss, undisturbed.tokens)
    assert resumed.target_tokens == undisturbed.target_tokens > 0


def test_a_torn_checkpoint_is_ignored(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before it is taken, and lines of steps that are done again are dropped."""
    straight = config.model_copy(update={"out": config.out.with_name("straight")})
    train(straight)
    killed_after(3, config, monkeypatch)
    last = config.out / "checkpoints" / "step-0000003.pt"
    last.write_bytes(last.read_bytes()[:1000])
    (config.out / "checkpoints" / "writing.tmp").write_bytes(b"torn")
    with (config.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert train(config).resumed_from == 2
    assert lines(config.out) == lines(straight.out)
    assert same(adapter(config.out), adapter(straight.out))


def test_a_finished_run_is_not_trained_again(config: TrainConfig) -> None:
    """The same command saves the same adapter; other settings are refused; resume=False starts anew."""
    train(config)
    before = adapter(config.out)
    again = train(config.model_copy(update={"merge": True}))
    assert again.resumed_from == again.steps == 4 and len(lines(config.out)) == 4
    assert same(adapter(config.out), before) and again.merged == config.out / "merged"
    for change in ({"beta": 2.0}, {"data": [write(config.out.with_name("others.jsonl"), unequal()[1:])]}):
        with pytest.raises(ConfigError, match=rf"other settings or rows \({next(iter(change))}\).*--no-resume"):
            train(config.model_copy(update=change))
    assert train(config.model_copy(update={"beta": 2.0, "resume": False})).resumed_from == 0


def test_a_training_of_a_release_with_fewer_settings_goes_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that its checkpoints do not know had its default then; another value is refused."""
    killed_after(2, config, monkeypatch)
    for file in (config.out / "checkpoints").glob("*.pt"):
        held = torch.load(file, weights_only=True)
        del held["fingerprint"]["max_grad_norm"]
        torch.save(held, file)
    with pytest.raises(ConfigError, match=r"other settings or rows \(max_grad_norm\)"):
        train(config.model_copy(update={"max_grad_norm": 0.5}))
    assert train(config).resumed_from == 2


def test_adapter_and_merged_model_load_without_this_package(config: TrainConfig) -> None:
    """Plain PEFT and plain transformers, in a process that does not import leafe_graph; both say the same."""
    result = train(config.model_copy(update={"merge": True, "merged_dtype": "float32", "adapter_dtype": "bfloat16"}))
    code = """
import sys, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, merged = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(merged)
prompt = [{"role": "user", "content": "a b c"}]
ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=False)
with torch.no_grad():
    a = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()(ids).logits
    b = AutoModelForCausalLM.from_pretrained(merged).eval()(ids).logits
assert torch.allclose(a, b, atol=1e-3), (a - b).abs().max()
assert "leafe_graph" not in sys.modules
print("same")
"""
    command = [sys.executable, "-c", code, str(result.adapter), str(result.merged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "same", done.stderr
    assert {t.dtype for t in adapter(config.out).values()} == {torch.bfloat16}


def test_training_lowers_the_loss_and_leaves_a_record(config: TrainConfig) -> None:
    """metrics.jsonl, loss.png, train_config.json and a flat result."""
    result = train(config.model_copy(update={"max_steps": None, "epochs": 6.0, "batch_size": 7, "beta": 0.5}))
    records = lines(config.out)
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[0].keys() == {"step", "epoch", "loss", "l_cf", "l_reh", "lr", "grad_norm", "tokens"}
    assert records[-1]["epoch"] == 6 and result.steps == 6
    assert result.rows == {"counterfactual": 2, "rehearsal": 5} and len(result.warnings) == 1
    assert TrainConfig.model_validate_json((config.out / "train_config.json").read_text()).epochs == 6
    if find_spec("matplotlib"):
        assert (config.out / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads(json.dumps(result.summary()))["adapter"] == str(config.out)


def test_an_adapter_is_trained_further(config: TrainConfig) -> None:
    """The second adapter starts where the first ended, keeps its shape, and stands alone on the same base."""
    first = train(config)
    second = train(
        config.model_copy(update={"out": config.out.with_name("second"), "adapter": first.adapter, "lora_r": 8})
    )
    assert lines(second.adapter)[0]["loss"] < 0.9 * lines(first.adapter)[0]["loss"]
    one, two = (json.loads((r.adapter / "adapter_config.json").read_text()) for r in (first, second))
    for saved in (one, two):  # a set has another order in each process: the same adapter would be another one
        assert saved["target_modules"] == sorted(saved["target_modules"])
    assert two["r"] == 4 and two["base_model_name_or_path"] == one["base_model_name_or_path"] == config.model
    assert not same(adapter(first.adapter), adapter(second.adapter))


def test_the_adapter_with_the_lowest_held_out_loss_is_kept(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out rows that contradict the training rows: training stops early and the start's weights are kept."""
    contrary = [row(r["prompt"][0]["content"], "z", kind=r["kind"], task_id="other") for r in unequal()]
    held_out = write(config.out.with_name("held.jsonl"), contrary)
    watched = config.model_copy(
        update={"eval_data": [held_out], "eval_steps": 1, "patience": 2, "max_steps": 20, "learning_rate": 0.1}
    )
    straight = train(watched.model_copy(update={"out": config.out.with_name("straight")}))
    assert straight.steps < 20 and straight.kept_step == straight.steps - 2
    losses = [m["eval_loss"] for m in lines(straight.adapter) if "eval_loss" in m]
    assert straight.eval_loss == min(losses) == losses[-3]
    killed_after(1, watched, monkeypatch)
    resumed = train(watched)
    assert resumed.kept_step == straight.kept_step and same(adapter(resumed.adapter), adapter(straight.adapter))


def test_whole_tasks_are_held_out(config: TrainConfig, tmp_path: Path) -> None:
    """eval_share takes all rows of some tasks, the same ones when other tasks come; eval_data may share none."""
    rows = [row(action=word, task_id=f"task {i % 5}", kind=kind) for i, (word, kind) in enumerate(KINDS)]
    read = read_examples([write(tmp_path / "five.jsonl", rows)])
    kept, held = split_tasks(read, 0.4)
    assert len(kept) + len(held) == len(rows) and len({r.example["task_id"] for r in held}) == 2
    assert not {r.example["task_id"] for r in kept} & {r.example["task_id"] for r in held}
    more = [*rows, *(row(task_id=f"new {i}") for i in range(5))]
    sides = split_tasks(read_examples([write(tmp_path / "ten.jsonl", more)]), 0.4)
    for before, later in zip((kept, held), sides, strict=True):
        assert {r.example["task_id"] for r in before} <= {r.example["task_id"] for r in later}

    shared = config.model_copy(update={"data": [tmp_path / "five.jsonl"], "eval_share": 0.4, "max_steps": 2})
    result = train(shared)
    assert sum(result.rows.values()) == len(kept) and result.eval_loss is not None
    with pytest.raises(ConfigError, match=r"rows of 5 task.* trained on as well, such as 'task 0'"):
        train(config.model_copy(update={"data": [tmp_path / "five.jsonl"], "eval_data": [tmp_path / "ten.jsonl"]}))
    with pytest.raises(ConfigError, match=r"eval_share=0.9 of 1 task\(s\) leaves nothing"):
        train(config.model_copy(update={"eval_share": 0.9}))


KINDS: list[tuple[str, ExampleKind]] = [
    (word, kind) for kind in ("rehearsal", "counterfactual") for word in ("up", "down", "left", "right", "up down")
]


def test_settings_come_from_a_file_and_flags(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said beside the file wins; a run's train_config.json is such a file."""
    file = tmp_path / "train.yaml"
    file.write_text(f"model: {config.model}\ndata: [{config.data[0]}]\nout: {tmp_path / 'o'}\nbeta: 3\nmax_steps: 1\n")
    assert main(["train", "--config", str(file), "--beta", "0.5", "--backend", "peft"]) == 0
    told = TrainConfig(config=tmp_path / "o" / "train_config.json", lora_r=2)  # type: ignore[call-arg]
    assert (told.beta, told.max_steps, told.lora_r, told.config) == (0.5, 1, 2, None)
    assert json.loads((tmp_path / "o" / "result.json").read_text())["steps"] == 1
    for text, said in (("- a", "holds list, expected fields"), ("a: [", "not YAML")):
        file.write_text(text)
        with pytest.raises(ValidationError, match=said):
            TrainConfig(config=file)  # type: ignore[call-arg]
    assert main(["train", "--data", "d"]) == 2
    assert "--model: it is required" in capsys.readouterr().err


def test_only_chosen_layers_are_trained(config: TrainConfig) -> None:
    """layers_to_transform limits LoRA to those blocks."""
    train(config.model_copy(update={"layers_to_transform": [1], "max_steps": 1}))
    assert {name.split(".layers.")[1][0] for name in adapter(config.out)} == {"1"}


def test_demonstrations(config: TrainConfig, tmp_path: Path) -> None:
    """A warm start takes rows of the kind "demonstration"; the leafe objective does not."""
    data = [write(tmp_path / "warm.jsonl", [row(kind="demonstration"), row("d", "left", kind="demonstration")])]
    with pytest.raises(ConfigError, match="train on those with objective="):
        train(config.model_copy(update={"data": data}))
    train(config.model_copy(update={"data": data, "objective": "demonstrations", "max_steps": 2}))
    assert lines(config.out)[0]["l_demo"] == pytest.approx(lines(config.out)[0]["loss"])


def test_bad_rows_stop_before_the_model_is_loaded(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row's error comes at once, and nothing is written."""
    monkeypatch.setattr(train_module.backends, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ExampleError, match="more than max_length=6"):
        train(config.model_copy(update={"max_length": 6}))
    with pytest.raises(ConfigError, match="nothing to train on"):
        train(config.model_copy(update={"data": [write(config.out.with_name("r.jsonl"), [row()])], "beta": 0.0}))
    assert not config.out.exists()


def test_the_learning_rates_course(config: TrainConfig) -> None:
    """It rises over the warm-up and falls to (almost) zero, or stays."""
    linear = config.model_copy(update={"learning_rate": 1.0, "warmup_ratio": 0.2})
    assert [learning_rate(linear, step, 10) for step in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    cosine = linear.model_copy(update={"lr_schedule": "cosine"})
    assert [learning_rate(cosine, step, 10) for step in (0, 2, 6)] == [0.5, 1.0, pytest.approx(0.5)]
    assert learning_rate(linear.model_copy(update={"lr_schedule": "constant"}), 9, 10) == 1.0


def test_importing_the_config_needs_no_torch() -> None:
    """--help and `import leafe_graph.finetune` stay fast."""
    code = (
        "import sys, leafe_graph.finetune.train as t; assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unsloth_that_cannot_be_used_is_said(config: TrainConfig) -> None:
    """Asked for by name it is an error with the reason; "auto" goes on with PEFT."""
    if "unsloth" in sys.modules:
        pytest.skip("unsloth is loaded in this process")
    with pytest.raises(MissingDependency, match=r"not installed|was imported before it"):
        train(config.model_copy(update={"backend": "unsloth"}))
    assert train(config.model_copy(update={"backend": "auto", "max_steps": 1})).backend == "peft"


def test_both_backends_are_given_the_same_batches(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever builds the model, it is called with the same ids; only building and saving know the back end's name."""

    def batches(backend: str) -> list[Any]:
        seen: list[Any] = []
        build = train_module.backends._peft

        def load(config: TrainConfig, folder: str, device: Any) -> tuple[Any, str]:
            model = build(config, folder, device)
            model.register_forward_pre_hook(
                lambda _, args, kwargs: seen.append(kwargs["input_ids"].tolist()),
                with_kwargs=True,
            )
            return model, backend

        with monkeypatch.context() as patch:
            patch.setattr(train_module.backends, "load", load)
            settings = {"out": config.out.with_name(backend), "backend": backend}
            assert train(config.model_copy(update=settings)).backend == backend
        return seen

    assert batches("peft") == batches("unsloth") != []


def test_the_summary_tells_of_recorded_token_ids(config: TrainConfig, tmp_path: Path) -> None:
    """How many rows were trained on as sampled, and how many were not; the latter is a warning, too."""
    rows = [row(), row("d", completion_token_ids=[8, 2]), row("e", completion_token_ids=[9, 2])]
    result = train(config.model_copy(update={"data": [write(tmp_path / "ids.jsonl", rows)], "max_steps": 1}))
    assert result.summary()["token_ids"] == {"from_text": 1, "recorded": 1}
    assert any("1 of 3 rows have recorded token ids" in warning for warning in result.warnings)
