"""Exported files in the hands of those that they are for: their own code loads them."""

import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_export import lost_and_recovered
from test_formats import KINDS, exported
from tool_trees import TOOLS, flight

LOAD = """
import json, os, sys
os.environ["DISABLE_VERSION_CHECK"] = "1"  # of packages that its loader does not call
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import TrainingArguments
folder, cache, *names = sys.argv[1:]
arguments = DataArguments(dataset_dir=folder, template="empty"), TrainingArguments(output_dir=cache)
model = ModelArguments(model_name_or_path="none", cache_dir=cache)
found = {}
for name, told in zip(names, get_dataset_list(names, folder), strict=True):
    rows = _load_single_dataset(told, model, *arguments)
    found[name] = [{k: row[k] for k in ("_prompt", "_response", "_system", "_tools")} for row in rows]
print(json.dumps(found))
"""


def test_trls_dpo_trainer_takes_the_pairs(tiny_model_path: Path, tmp_path: Path) -> None:
    """As `datasets` loads them; its tokens are the row's prompt and answers by the model's own template."""
    datasets, transformers = pytest.importorskip("datasets"), pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some options of its own dependencies are older
        trl = pytest.importorskip("trl", reason="pip install --group dev")
    rows, folder = exported(tmp_path, lost_and_recovered(), kinds=["preference"], formats=["trl-dpo"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_path)
    trainer = trl.DPOTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(tiny_model_path),
        args=trl.DPOConfig(str(tmp_path / "trl"), use_cpu=True, report_to="none", max_steps=1),
        train_dataset=datasets.load_dataset(
            "json", data_files=str(folder / "trl_dpo.jsonl"), split="train", cache_dir=str(tmp_path)
        ),
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == len(rows) > 0
    for row, held in zip(rows, trainer.train_dataset, strict=True):
        told: dict[str, Any] = dict(row)
        prompt = tokenizer.apply_chat_template(told["prompt"], add_generation_prompt=True, return_dict=False)
        assert held["prompt_ids"] == prompt
        for ids, answer in (("chosen_ids", "completion"), ("rejected_ids", "rejected")):
            whole = tokenizer.apply_chat_template(told["prompt"] + told[answer], return_dict=False)
            assert prompt + held[ids] == whole
    assert trainer.train().training_loss > 0


@pytest.mark.skipif("LEAFE_LLAMA_FACTORY" not in os.environ, reason="LEAFE_LLAMA_FACTORY names no python that has it")
@pytest.mark.parametrize("tree", [lost_and_recovered(), flight()], ids=["text", "tools"])
def test_llama_factory_loads_chats_and_pairs(tree: Any, tmp_path: Path) -> None:
    """Its own loader, parser and converter, told by ``dataset_info.json`` alone; no row is taken for a broken one."""
    rows, folder = exported(tmp_path, tree, kinds=KINDS, formats=["llama-factory"])
    command = [os.environ["LEAFE_LLAMA_FACTORY"], "-c", LOAD, str(folder), str(tmp_path / "cache")]
    done = subprocess.run([*command, "sharegpt", "sharegpt_preferences"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    chats, pairs = found["sharegpt"], found["sharegpt_preferences"]
    assert len(chats) + len(pairs) == len(rows) and all(each["_prompt"] and each["_response"] for each in chats + pairs)
    for row, chat in zip((row for row in rows if row["kind"] != "preference"), chats, strict=True):
        assert chat["_system"] == row["prompt"][0]["content"]
        (answer,), (said,) = chat["_response"], row["completion"]
        calls = [call["function"] for call in said.get("tool_calls", ())]
        assert (json.loads(answer["content"]) if calls else answer["content"]) == (calls or said["content"])
        assert answer["role"] == ("function" if calls else "assistant")
        assert (json.loads(chat["_tools"]) if chat["_tools"] else []) == row.get("tools", [])
    assert [len(pair["_response"]) for pair in pairs] == [2] * len(pairs)
    assert any(chat["_tools"] == json.dumps(TOOLS) for chat in chats) == any("tools" in row for row in rows)
