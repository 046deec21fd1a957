"""An adapter on a base: what does not fit is refused by name before anything is played, and merging changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import unequal, write

from leafe_graph.cli.main import main
from leafe_graph.errors import ConfigError, ModelError
from leafe_graph.finetune import TrainConfig
from leafe_graph.models.load import load_model

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402

from leafe_graph.finetune.train import train  # noqa: E402
from leafe_graph.models.adapters import check_adapter, ends_seen_to, merged  # noqa: E402
from leafe_graph.models.folders import load_tokenizer, merge  # noqa: E402

Tensors = dict[str, Any]


def base_model(folder: Path) -> Any:
    """The model without any of this package."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def adapter(base: Path, out: Path, *, seed: int = 0, **settings: Any) -> Any:
    """Save an adapter with random weights; the model with it beside the base's weights."""
    model = peft.get_peft_model(
        base_model(base),
        peft.LoraConfig(**{"r": 2, "task_type": "CAUSAL_LM", "target_modules": "all-linear"} | settings),
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(out)
    return model.eval()


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """An adapter whose tensors are others."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return folder


def logits(model: Any) -> Any:
    """Of a few tokens."""
    with torch.no_grad():
        return model(torch.arange(4, 16)[None]).logits


@pytest.fixture(scope="module")
def wide(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of other sizes, whose embeddings are two tensors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(shutil.copytree(tiny_model_path, tmp_path_factory.mktemp("models") / "wide"))
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.tie_word_embeddings, config.head_dim = 48, False, 12
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


FITTING: dict[str, dict[str, Any]] = {
    "all linear": {},
    "some modules": {"target_modules": ["q_proj", "v_proj"]},
    "a pattern": {"target_modules": r".*\.1\..*q_proj", "rank_pattern": {"q_proj": 1}},
    "one layer, rsLoRA": {"target_modules": ["up_proj"], "layers_to_transform": [1], "use_rslora": True},
    "DoRA": {"use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both ends": {"target_modules": ["lm_head", "embed_tokens"]},
    "whole head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "whole embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "whole tied ends": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tied ends": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]},
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's of tied embeddings, where the test makes one
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("settings", FITTING.values(), ids=FITTING)
def test_merging_changes_nothing(
    settings: dict[str, Any], tied: bool, tiny_model_path: Path, wide: Path, tmp_path: Path
) -> None:
    """An adapter that covers what it says fits; beside the weights, in them and exported the model is the same."""
    base = tiny_model_path if tied else wide
    beside = logits(adapter(base, tmp_path / "adapter", **settings))
    assert check_adapter(tmp_path / "adapter", str(base)) == []
    assert not torch.allclose(beside, logits(base_model(base)), atol=1e-2)
    assert torch.allclose(logits(merged(base_model(base), tmp_path / "adapter", str(base))), beside, atol=1e-4)
    merge(
        tmp_path / "adapter",
        tmp_path / "merged",
        folder=str(base),
        tokenizer=load_tokenizer(str(base)),
        dtype="float32",
    )
    assert torch.allclose(logits(base_model(tmp_path / "merged")), beside, atol=1e-4)


def test_a_trained_head_answers_the_same_in_this_process_and_exported(tiny_model_path: Path, tmp_path: Path) -> None:
    """Trained on the output layer of a model that ties its embeddings, then played with, and loaded as merged/."""
    out = tmp_path / "out"
    rows = write(tmp_path / "rows.jsonl", unequal())
    train(
        TrainConfig(
            model=str(tiny_model_path),
            data=[rows],
            out=out,
            target_modules=["q_proj", "lm_head"],
            learning_rate=0.1,
            max_steps=3,
            merge=True,
            merged_dtype="float32",
            backend="peft",
        )
    )
    settings = {"temperature": 0, "logprobs": True, "max_tokens": 6}
    here = load_model(f"local:{tiny_model_path}", adapter=str(out), **settings)
    exported = load_model(f"local:{out / 'merged'}", **settings)
    answers = [model.invoke("up a b").response_metadata for model in (here, exported)]
    assert answers[0]["token_ids"] == answers[1]["token_ids"]
    assert answers[0]["logprobs"] == pytest.approx(answers[1]["logprobs"], abs=1e-5)
    with ends_seen_to():
        beside = peft.PeftModel.from_pretrained(base_model(tiny_model_path), str(out)).eval()
    assert torch.allclose(logits(beside), logits(base_model(out / "merged")), atol=1e-4)


def prefixed(tensors: Tensors) -> Tensors:
    """As an adapter of the same layers inside a larger model has them."""
    return {name.replace("model.layers", "model.language_model.layers"): tensor for name, tensor in tensors.items()}


def half(tensors: Tensors) -> Tensors:
    """The first layer's alone."""
    return {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}


def of_nan(tensors: Tensors) -> Tensors:
    """One value is none."""
    name = min(tensors)
    tensors[name].view(-1)[3] = float("nan")
    return tensors


WRONG: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "another prefix": (
        prefixed,
        r"28 of its 28 tensors have no place in it: \S+language_model\.layers\.0.*28 .*missing",
    ),
    "half": (half, r"14 that it should have are missing: \S+layers\.1\.self_attn"),
    "NaN": (of_nan, r"not numbers .*in 1 of its 28 tensors: \S+layers\.0\.mlp\.down_proj\.lora_A\.weight"),
    "none": (lambda tensors: {}, "28 that it should have are missing"),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused_by_its_keys(
    change: Callable[[Tensors], Tensors],
    says: str,
    tiny_model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In judging, in a training that starts from it and in merging; nothing is played, and no folder is left."""
    adapter(tiny_model_path, tmp_path / "adapter")
    folder = str(changed(tmp_path / "adapter", change))
    with pytest.raises(ConfigError, match=says):
        check_adapter(folder, str(tiny_model_path))
    with pytest.raises(ConfigError, match=says):
        load_model(f"local:{tiny_model_path}", adapter=folder).invoke("a")
    with pytest.raises(ConfigError, match=says):
        merged(base_model(tiny_model_path), folder, str(tiny_model_path))
    rows = write(tmp_path / "rows.jsonl", unequal())
    out = ["--adapter", folder, "--out", str(tmp_path / "out"), "--model"]
    assert main(["eval", "--tasks", "1", "--samples", "1", *out, f"local:{tiny_model_path}"]) == 2
    assert main(["train", "--data", str(rows), *out, str(tiny_model_path)]) == 2
    told = capsys.readouterr().err
    assert told.count(f"the adapter {folder} ") == 2 and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_model_is_refused_by_its_shapes(
    tiny_model_path: Path, wide: Path, tmp_path: Path
) -> None:
    """With what they are, and what they should be."""
    adapter(wide, tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"q_proj\.lora_A\.weight is \(2, 48\), expected \(2, 32\).* and \d+ more"):
        check_adapter(tmp_path / "adapter", str(tiny_model_path))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="cannot be read"):
        check_adapter(tmp_path / "adapter", str(tiny_model_path))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no adapter_model"):
        check_adapter(tmp_path / "adapter", str(tiny_model_path))


def test_another_base_of_the_same_shapes_is_warned_of(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: by name for an adapter from elsewhere; by the digest of the base's weights for one trained here."""
    adapter(tiny_model_path, tmp_path / "adapter")
    other = shutil.copytree(tiny_model_path, tmp_path / "other")
    [told] = check_adapter(tmp_path / "adapter", str(other))
    assert f"names another base ({tiny_model_path})" in told
    load_model(f"local:{other}", adapter=str(tmp_path / "adapter")).invoke("a")
    assert caplog.text.count(told) == 1
    same = shutil.copytree(tiny_model_path, tmp_path / "elsewhere" / tiny_model_path.name)
    assert check_adapter(tmp_path / "adapter", str(same)) == []
    rows = write(tmp_path / "rows.jsonl", unequal())
    out = tmp_path / "out"
    start = TrainConfig(model=str(tiny_model_path), data=[rows], out=out, max_steps=1, lora_r=2, backend="peft")
    train(start)
    assert check_adapter(out, str(other)) == []  # the same weights, whatever they are called
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    [told] = check_adapter(out, str(other))
    assert "was trained on another base: the digest of its weights is" in told
    further = start.model_copy(update={"model": str(other), "adapter": out, "out": tmp_path / "further"})
    assert told in train(further).warnings


def test_logits_that_are_not_numbers_are_told(tiny_model_path: Path, tmp_path: Path) -> None:
    """A base with NaN in its weights says nothing at all, sampled or greedy."""
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "nan"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for temperature in (0, 1):
        with pytest.raises(ModelError, match="not numbers"):
            load_model(f"local:{folder}", temperature=temperature).invoke("a b")


def test_no_training_leaves_values_that_are_not_numbers(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that is none stops it, also at the last step, which no further loss would tell of."""
    rows = write(tmp_path / "rows.jsonl", unequal())
    config = TrainConfig(model=str(tiny_model_path), data=[rows], out=tmp_path / "out", max_steps=1, backend="peft")
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a: clip(*a) * float("nan"))
    with pytest.raises(ConfigError, match=r"gradient's norm nan at step 1"):
        train(config)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


@pytest.fixture
def trained(tiny_model_path: Path, tmp_path: Path) -> tuple[TrainConfig, Path, Path]:
    """A training of two steps from an adapter, finished; its base and the adapter may be changed."""
    base = Path(shutil.copytree(tiny_model_path, tmp_path / "base"))
    adapter(base, tmp_path / "start")
    config = TrainConfig(
        model=str(base),
        data=[write(tmp_path / "rows.jsonl", unequal())],
        adapter=tmp_path / "start",
        out=tmp_path / "out",
        max_steps=2,
        save_steps=1,
        backend="peft",
    )
    train(config)
    return config, base, tmp_path / "start"


def test_a_training_goes_on_from_its_own_weights_alone(trained: tuple[TrainConfig, Path, Path]) -> None:
    """Another adapter to start from, or another base, at the same place is refused with old and new digest."""
    config, base, start = trained
    kept = (start / "adapter_model.safetensors").read_bytes()
    adapter(base, start, seed=9)
    with pytest.raises(ConfigError, match=r"weights\.adapters\.0\.weights: '\w{16}' there, '\w{16}' now.*--no-resume"):
        train(config)
    (start / "adapter_model.safetensors").write_bytes(kept)
    moved = base.rename(base.with_name("moved"))  # the same weights elsewhere
    elsewhere = {"model": str(moved), "adapter": start.rename(start.with_name("begin"))}
    assert train(config.model_copy(update=elsewhere)).resumed_from == 2
    weights = load_file(moved / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights\.base\.weights: '\w{16}' there"):
        train(config.model_copy(update=elsewhere))


def test_a_training_of_an_earlier_release_goes_on_with_a_warning(
    trained: tuple[TrainConfig, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Its checkpoints tell the base's and the adapter's place alone, which must be the same."""
    config, base, start = trained
    for file in (config.out / "checkpoints").glob("*.pt"):
        held = torch.load(file, weights_only=True)
        del held["fingerprint"]["weights"]
        torch.save(held, file)
    assert train(config).resumed_from == 2 and "does not tell which weights" in caplog.text
    with pytest.raises(ConfigError, match=r"other settings or rows \(model\)"):
        train(config.model_copy(update={"model": str(shutil.copytree(base, base.with_name("copy")))}))
    assert json.loads((config.out / "train_config.json").read_text())["adapter"] == str(start)
