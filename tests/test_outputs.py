"""What a training leaves: a model card without this machine's paths, GGUF files, and an upload that loses nothing."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import Hub
from rows import row, unequal, write

from leafe_graph.errors import ConfigError, LeafeError, MissingDependency
from leafe_graph.evaluation.model_card import add_result
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.finetune import TrainConfig, TrainResult
from leafe_graph.finetune import train as train_module
from leafe_graph.finetune.card import write_card
from leafe_graph.finetune.gguf import INSTALL, SCRIPT
from leafe_graph.finetune.hub import push
from leafe_graph.finetune.train import train
from leafe_graph.models.hub import check_hub

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')


@pytest.fixture(scope="module")
def trained(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, TrainResult]:
    """One step, merged; a folder to copy, not to change."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [*unequal(), row("b", "down") | {"task_id": "another"}]
    config = TrainConfig(
        model=str(tiny_model_path),
        data=[write(folder / "some.jsonl", rows)],
        eval_data=[write(folder / "held-out.jsonl", [r | {"task_id": "held out"} for r in rows[:3]])],
        out=folder / "out",
        lora_r=4,
        beta=0.5,
        max_steps=1,
        backend="peft",
        merge=True,
    )
    return config, train(config)


@pytest.fixture
def config(trained: tuple[TrainConfig, TrainResult], tmp_path: Path) -> TrainConfig:
    """The same in a folder of one's own, trained already."""
    shutil.copytree(trained[0].out, tmp_path / "out")
    return trained[0].model_copy(update={"out": tmp_path / "out"})


def names(folder: Path) -> set[str]:
    """What lies there."""
    return {path.name for path in folder.iterdir()}


# --- the model card ---------------------------------------------------------------------------------------------------


def test_the_card_tells_what_it_was_trained_on(trained: tuple[TrainConfig, TrainResult]) -> None:
    """Rows, tasks, files, objective, settings, losses, versions, warnings: and no path of this machine."""
    from huggingface_hub import ModelCard

    config, result = trained
    card = ModelCard.load(config.out / "README.md")
    assert card.data.to_dict() == {
        "library_name": "peft", "pipeline_tag": "text-generation", "tags": ["leafe-graph", "lora"],
    }  # fmt: skip
    for told in (
        "8 rows of 2 task(s), from `some.jsonl`. Held out: `held-out.jsonl`.",
        "| counterfactual | 2 |\n| rehearsal | 6 |",
        "L = L_cf + β · L_reh with β = 0.5",
        "| LoRA | rank 4, alpha 32, dropout 0 |",
        "| LoRA on | down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj |",
        "| learning_rate | 0.0002 |",
        f"| training loss, last epoch | {result.loss:.4f} |",
        f"| held-out loss | {result.eval_loss:.4f} |",
        f"| tokens run | {result.tokens} |",
        "| backend | peft |",
        f"torch {torch.__version__}",
        "- only 2 of 8 rows are counterfactual",
        "`merged/` is base and adapter in one model of plain transformers, in bfloat16.",
        'PeftModel.from_pretrained(base, "ADAPTER-FOLDER")',
        "vllm serve FOLDER/tiny --enable-lora --max-lora-rank 8",
    ):
        assert told in card.text
    assert str(config.out.parent) not in str(card) and config.model not in str(card)


def test_the_card_names_a_base_that_the_hub_has(trained: tuple[TrainConfig, TrainResult], tmp_path: Path) -> None:
    """The embedded model and its licence are known; a folder's README tells its licence; of other hub names none is."""
    from huggingface_hub import ModelCard

    config, result = trained
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    for model, name, licence in (
        ("local:smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", None),
        (f"local:{base}", None, "mit"),
    ):
        out = tmp_path / "card"
        out.mkdir(exist_ok=True)
        shutil.copy(config.out / "adapter_config.json", out)
        write_card(config.model_copy(update={"model": model, "out": out}), result, tasks=1)
        data = ModelCard.load(out / "README.md").data
        assert (data.base_model, data.license) == (name, licence)


def test_held_out_results_come_into_the_card(config: TrainConfig) -> None:
    """As a table and as the hub's model-index; judged again, they are replaced."""
    from huggingface_hub import ModelCard

    before = (config.out / "README.md").read_text()
    for solved in (1, 2):
        tasks = [TaskResult(task_id=str(i), n=2, c=c) for i, c in enumerate((0, solved))]
        add_result(config.out, Result(policy="round-1", n=2, tasks=tasks), [1, 2], env="sokoban", split="test")
    card = ModelCard.load(config.out / "README.md")
    found = [(e.metric_name, e.metric_value, e.dataset_name, e.dataset_split) for e in card.data.eval_results]
    assert found == [("Pass@1", 0.5, "sokoban", "test"), ("Pass@2", 0.5, "sokoban", "test")]
    assert card.text.count("## Held-out tasks") == 1 and "| Pass@1 | 50.0 [0.0, 100.0] |" in card.text
    assert before.partition("---\n\n")[2].strip() in card.text


# --- GGUF -------------------------------------------------------------------------------------------------------------

STAND_IN = """
import json, pathlib, sys
model, _, outfile, *flags = sys.argv[1:]
here, held = pathlib.Path(__file__).parent, sorted(p.name for p in pathlib.Path(model).iterdir())
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps([model, outfile, flags, held]) + "\\n")
pathlib.Path(outfile).write_text("GGUF")
if "--vocab-only" not in flags and (here / "broken").exists():
    sys.exit("no space left")
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of llama.cpp with a stand-in for the converter, which fails while there is a file "broken"."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / SCRIPT).write_text(STAND_IN)
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path / "none"))
    return folder


def calls(converter: Path) -> list[Any]:
    """What the stand-in was called with, since last asked."""
    file = converter / "calls.jsonl"
    held = [json.loads(line) for line in file.read_text().splitlines()]
    file.unlink()
    return held


def test_a_gguf_file_is_made_of_the_merged_model(config: TrainConfig, converter: Path) -> None:
    """Of out/merged, or of one that is made for it and goes again; the converter saw the tokenizer before."""
    result = train(config.model_copy(update={"gguf": "q8_0"}))
    (_, _, early, held), (model, outfile, flags, _) = calls(converter)
    assert early == ["--vocab-only"] and {"config.json", "tokenizer.json", "chat_template.jinja"} <= set(held)
    assert not [name for name in held if "safetensors" in name]
    assert (result.resumed_from, result.gguf) == (1, config.out / "model-Q8_0.gguf")
    assert result.gguf and result.gguf.read_text() == "GGUF"
    assert model == str(config.out / "merged")
    assert flags == ["--outtype", "q8_0", "--model-name", "tiny-leafe"] and outfile != str(result.gguf)
    assert "llama-cli -m model-Q8_0.gguf" in (config.out / "README.md").read_text()

    shutil.rmtree(config.out / "merged")
    train(config.model_copy(update={"gguf": "f16", "merge": False}))
    _, (model, _, flags, held) = calls(converter)
    assert "model.safetensors" in held and not Path(model).exists() and flags[1] == "f16"
    assert {"model-Q8_0.gguf", "model-F16.gguf"} <= names(config.out)
    assert not {"merged", "gguf.tmp"} & names(config.out)


def test_a_failed_conversion_loses_nothing(config: TrainConfig, converter: Path) -> None:
    """The adapter and its card are there, no half file is; the same call converts without training."""
    asked = config.model_copy(update={"gguf": "bf16"})
    (converter / "broken").touch()
    with pytest.raises(LeafeError, match=r"failed on .*merged \(exit code 1\):\nno space left"):
        train(asked)
    assert {"README.md", "adapter_model.safetensors", "merged"} <= names(config.out)
    assert not [name for name in names(config.out) if "gguf" in name]
    (converter / "broken").unlink()
    assert train(asked).resumed_from == 1 and "model-BF16.gguf" in names(config.out)


def test_a_missing_converter_is_told_before_the_training(
    config: TrainConfig, converter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install, and what a script said that is there but cannot run alone."""
    monkeypatch.setattr(train_module.backends, "load", lambda *_: pytest.fail("the model was loaded"))
    asked = config.model_copy(update={"gguf": "f32"})
    monkeypatch.delenv("LLAMA_CPP")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingDependency, match="git clone --depth 1 https://github"):
        train(asked)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / SCRIPT).write_text("from other_half import convert")
    with pytest.raises(MissingDependency, match=rf"(?s)bin/{SCRIPT} failed on .*No module named 'other_half'"):
        train(asked)


def test_other_weights_take_with_them_what_was_made_of_the_old_ones(config: TrainConfig) -> None:
    """A merged model or a GGUF file of another adapter would be served or uploaded as this one's."""
    (config.out / "model-F16.gguf").touch()
    train(config.model_copy(update={"merge": False}))
    assert {"merged", "model-F16.gguf"} <= names(config.out)
    train(config.model_copy(update={"merge": False, "seed": 1, "resume": False}))
    assert not {"merged", "model-F16.gguf"} & names(config.out)


@pytest.mark.embedded
def test_llama_cpps_converter_makes_the_same_model(tmp_path: Path) -> None:
    """The real one on a random Llama with SmolLM2's tokenizer: read back, its logits are the merged model's."""
    if "LLAMA_CPP" not in os.environ:
        pytest.skip(f"LLAMA_CPP names no checkout of llama.cpp. To install it:\n{INSTALL}")
    pytest.importorskip("gguf", reason='pip install ".[hf]"')
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from leafe_graph.models.embedded import embedded_model_path

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path())
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        tie_word_embeddings=True,
        eos_token_id=2,
    )
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = TrainConfig(
        model=str(tmp_path / "base"), data=[write(tmp_path / "rows.jsonl", unequal())], out=tmp_path / "out",
        learning_rate=1e-2, max_steps=2, backend="peft", merge=True, merged_dtype="float32", gguf="f32",
    )  # fmt: skip
    result = train(config)
    assert result.gguf and result.merged
    alone = shutil.copy(result.gguf, tmp_path)  # beside adapter_config.json transformers looks for the base
    merged = AutoModelForCausalLM.from_pretrained(result.merged).eval()
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=Path(alone).name).eval()
    ids = tokenizer("Push the box to the left.", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, again(ids).logits, atol=1e-3)


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_an_upload_holds_what_others_need_and_no_path_of_ours(config: TrainConfig, hub: Hub) -> None:
    """One commit to a private repository: adapter, card, curve, merged model; base and adapter by the hub's names."""
    (config.out / "model-Q8_0.gguf").write_bytes(b"GGUF")
    (config.out / "merged.tmp").mkdir()
    url = push(config.out, "us/walker", model="local:smollm2-135m")
    assert url == f"{hub.url}/us/walker" and hub.tokens == {"Bearer hf_stand_in"}
    assert hub.repositories["us/walker"]["visibility"] == "private"
    assert {name for name in hub.files if not name.startswith("merged/")} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "model-Q8_0.gguf",
    } | ({"loss.png"} & names(config.out))  # fmt: skip
    assert {"merged/model.safetensors", "merged/tokenizer.json", "merged/config.json"} <= set(hub.files)
    assert hub.files["adapter_model.safetensors"] == (config.out / "adapter_model.safetensors").read_bytes()
    base = json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"]
    assert base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert b'PeftModel.from_pretrained(base, "us/walker")' in hub.files["README.md"]
    ours = [str(Path(config.model).parent).encode(), str(config.out.parent).encode()]
    assert not [name for name, content in hub.files.items() for path in ours if path in content]
    shutil.rmtree(config.out / "merged")
    hub.files["notes.md"] = b"by hand"
    push(config.out, "us/walker", model="local:smollm2-135m")
    assert "notes.md" in hub.files and not [name for name in hub.files if name.startswith("merged/")]


def test_a_failed_upload_loses_nothing(config: TrainConfig, hub: Hub) -> None:
    """The same call uploads, and trains nothing; a third one finds the repository there."""
    asked = config.model_copy(update={"push_to_hub": "us/walker"})
    hub.refuses = 403
    with pytest.raises(LeafeError, match=rf"(?s)upload to us/walker failed .*lies in {re.escape(str(config.out))}"):
        train(asked)
    assert not hub.files and {"README.md", "adapter_model.safetensors", "merged"} <= names(config.out)
    hub.refuses = None
    assert train(asked).resumed_from == 1 and "adapter_model.safetensors" in hub.files
    push(config.out, "us/walker", model=config.model)


def test_what_cannot_be_uploaded_is_told_before_the_training(
    config: TrainConfig, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token, the hub switched off, a name that it does not take."""
    import huggingface_hub

    monkeypatch.setattr(train_module.backends, "load", lambda *_: pytest.fail("the model was loaded"))
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "get_token", lambda: None)
        with pytest.raises(ConfigError, match="set HF_TOKEN"):
            train(config.model_copy(update={"push_to_hub": "us/walker"}))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
            check_hub("us/walker")
    with pytest.raises(ConfigError, match="us/walk--er"):
        check_hub("us/walk--er")
    with pytest.raises(ValueError, match="push_to_hub"):
        TrainConfig.model_validate(config.model_dump() | {"push_to_hub": "walker"})
    assert not hub.repositories


def test_a_whole_model_is_uploaded_as_one(config: TrainConfig, hub: Hub, tmp_path: Path) -> None:
    """What transformers needs, the card with the repository's name, and no path, checkpoint or adapter."""
    whole = config.model_copy(update={"tune": "full", "merge": False, "out": tmp_path / "w", "push_to_hub": "us/whole"})
    result = train(whole)
    assert result.model == whole.out
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"} <= set(
        hub.files
    )
    assert {"tokenizer_config.json", "chat_template.jinja", "metrics.jsonl"} <= set(hub.files)
    assert not [name for name in hub.files if "adapter" in name or "checkpoint" in name or "train_config" in name]
    assert b'AutoModelForCausalLM.from_pretrained("us/whole")' in hub.files["README.md"]
    ours = [str(Path(config.model).parent).encode(), str(tmp_path).encode()]
    assert not [name for name, content in hub.files.items() for path in ours if path in content]


def test_a_gguf_file_is_made_of_a_whole_model(config: TrainConfig, converter: Path, tmp_path: Path) -> None:
    """Of the model's own folder."""
    whole = config.model_copy(update={"tune": "full", "merge": False, "out": tmp_path / "w", "gguf": "q8_0"})
    assert train(whole).gguf == tmp_path / "w" / "model-Q8_0.gguf"
    _, (model, *_) = calls(converter)
    assert model == str(whole.out) and not {"merged", "gguf.tmp"} & names(whole.out)
