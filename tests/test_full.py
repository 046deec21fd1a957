"""Training all weights of a model: the trainer keeps its promises, and leaves a folder like any other model's."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rows import row, unequal, write
from test_train import killed_after, lines, same

from leafe_graph.errors import ConfigError
from leafe_graph.finetune import TrainConfig, TrainResult
from leafe_graph.finetune.train import train
from leafe_graph.models import load_model
from leafe_graph.models.identity import identity

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')


@pytest.fixture
def config(tiny_model_path: Path, tmp_path: Path) -> TrainConfig:
    """Four steps of four rows, and a checkpoint each step."""
    return TrainConfig(
        model=str(tiny_model_path),
        data=[write(tmp_path / "rows.jsonl", unequal())],
        out=tmp_path / "out",
        tune="full",
        learning_rate=1e-2,
        batch_size=4,
        micro_batch_size=3,
        max_steps=4,
        save_steps=1,
        backend="peft",
    )


def weights(folder: Path | str) -> dict[str, Any]:
    """The tensors of a model's folder."""
    from safetensors.torch import load_file

    return dict(load_file(Path(folder) / "model.safetensors"))


def trained(config: TrainConfig, name: str, **other: Any) -> tuple[Path, TrainResult]:
    """The same with other settings, in a folder of that name beside: the model's folder."""
    result = train(config.model_copy(update={"out": config.out.with_name(name), **other}))
    assert result.model == config.out.with_name(name) and result.adapter is None
    return result.model, result


def test_a_resumed_run_ends_like_an_undisturbed_one(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, stop, resume: the same losses and the same weights, bit for bit; every weight has moved."""
    straight, undisturbed = trained(config, "straight")
    killed_after(2, config, monkeypatch)
    assert not (config.out / "model.safetensors").exists()
    resumed = train(config)
    assert (undisturbed.resumed_from, resumed.resumed_from, resumed.backend) == (0, 2, "transformers")
    assert lines(config.out) == lines(straight) and len(lines(straight)) == 4
    assert same(weights(config.out), weights(straight))
    before = weights(config.model)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights(straight).items())


def test_what_is_left_is_a_models_folder(config: TrainConfig) -> None:
    """Plain transformers reads it, `local:` plays with it, it is trained on, and its card says how to load it."""
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, result = trained(config, "model")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {"checkpoints", "metrics.jsonl", "train_config.json", "result.json"} <= names
    assert not [name for name in names if name.startswith("adapter") or name.endswith(".tmp")]
    assert AutoTokenizer.from_pretrained(folder).chat_template
    for name, parameter in AutoModelForCausalLM.from_pretrained(folder).named_parameters():
        assert torch.equal(parameter, weights(folder)[name]), name
    assert identity(str(folder))["base"].keys() == identity(config.model)["base"].keys()
    assert identity(str(folder))["base"]["weights"] != identity(config.model)["base"]["weights"]

    said = asyncio.run(load_model(f"local:{folder}", max_tokens=4).ainvoke("a b c"))
    assert isinstance(said.content, str)

    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["leafe-graph"],
    }  # fmt: skip
    for told in (
        "# Fine-tuned model of tiny",
        "| weights | all |",
        'from_pretrained("MODEL-FOLDER")',
        "7 rows of 1 task",
    ):
        assert told in card.text
    assert str(config.out.parent) not in str(card) and "LoRA" not in card.text
    assert json.loads((folder / "result.json").read_text())["model"] == str(folder) == result.summary()["model"]

    on, _ = trained(config, "on", model=str(folder))
    assert lines(on)[0]["loss"] < lines(folder)[0]["loss"]
    on, _ = trained(config, "anew", model=f"local:{folder}", resume=False)
    assert same(weights(on), weights(config.out.with_name("on")))


def test_it_goes_on_from_an_adapter(config: TrainConfig) -> None:
    """The adapter is in the weights from which training starts."""
    lora = config.model_copy(update={"tune": "lora", "out": config.out.with_name("lora")})
    adapter = train(lora).adapter
    after = train(lora.model_copy(update={"out": config.out.with_name("more"), "adapter": adapter}))
    folder, _ = trained(config, "full", adapter=adapter)
    assert after.adapter
    assert lines(folder)[0]["loss"] == pytest.approx(lines(after.adapter)[0]["loss"], abs=1e-4)
    assert lines(folder)[0]["loss"] < lines(lora.out)[0]["loss"]


def test_the_weights_with_the_lowest_held_out_loss_are_kept(config: TrainConfig) -> None:
    """Held-out rows of which training teaches a little and then unlearns more: the best step's weights are put back."""
    others = [row(user, "up", task_id="other") for user in ("1 2 3", "4 5", "a b c")]
    held = write(config.out.with_name("held.jsonl"), others)
    watched = {"eval_data": [held], "eval_steps": 1, "lr_schedule": "constant", "batch_size": 7}
    folder, result = trained(config, "watched", **watched, patience=2, max_steps=20)
    losses = [m["eval_loss"] for m in lines(folder) if "eval_loss" in m]
    assert result.eval_loss == min(losses) and result.kept_step == result.steps - 2
    assert 0 < result.kept_step < result.steps
    stopped, _ = trained(config, "stopped", lr_schedule="constant", batch_size=7, max_steps=result.kept_step)
    assert same(weights(stopped), weights(folder))


def test_what_makes_no_sense_is_refused(config: TrainConfig, tiny_model_path: Path) -> None:
    """Merging what is whole, training 4-bit weights, an adapter beside a model, and the base's own folder."""
    given = config.model_dump()
    for setting, said in (({"merge": True}, "no adapter to merge"), ({"load_in_4bit": True}, "do not train")):
        with pytest.raises(ValidationError, match=said):
            TrainConfig.model_validate(given | setting)
    copy = config.out.with_name("copy")
    shutil.copytree(tiny_model_path, copy)
    with pytest.raises(ConfigError, match="the folder of the model that is trained"):
        train(config.model_copy(update={"model": str(copy), "out": copy}))
    with pytest.raises(ConfigError, match='holds a whole model, which tune="lora" would lie beside'):
        train(config.model_copy(update={"tune": "lora", "out": copy}))
    lora = train(config.model_copy(update={"tune": "lora"}))
    with pytest.raises(ConfigError, match='holds an adapter, which tune="full" would lie beside'):
        train(config.model_copy(update={"resume": False}))
    assert lora.model is None and lora.adapter == config.out
