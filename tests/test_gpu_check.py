"""`scripts/gpu_check.py`: all of it at toy size on a CPU, and what it says of a part that failed or had no time."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")
SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.append(str(SCRIPTS))

import gpu_carry  # noqa: E402
import gpu_check  # noqa: E402
import gpu_parts  # noqa: E402
from gpu_shapes import DRY, flops  # noqa: E402


def found(tmp_path: Path, part: str, share: float) -> dict[str, Any]:
    """What results.json holds after a part that ran by itself, in a folder where no other has left anything."""
    told = gpu_check.run(multiprocessing.get_context("spawn"), part, (tmp_path, DRY, []), share, tmp_path)
    all_of_it: dict[str, Any] = {"command": "", "device": "", "dry_run": True, "versions": {}, "parts": {part: told}}
    gpu_check.judge(all_of_it, None)
    gpu_check.save(all_of_it, tmp_path)
    written: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    return written


def test_the_dry_run_passes_through_every_part(tmp_path: Path) -> None:
    """All arms have the same losses, number formats the same objective, and the bench judges what it learned."""
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--dry-run", "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["ok"] and [*results["parts"]] == [*gpu_parts.PARTS]
    assert {part["status"] for part in results["parts"].values()} == {"ok"}
    lines = {name: part["lines"] for name, part in results["parts"].items()}
    trained = [line for part in ("plain", "ours", "trl") for line in lines[part] if "loss" in line]
    assert len(trained) == 2 + 4 + 3 and max(line["off the first's losses by"] for line in trained) < 1e-4
    assert trained[0]["loss"][0] > trained[0]["loss"][1]
    least, *_, most = sorted(trained, key=lambda line: line["tokens run a target token"])
    assert (least["what"], most["what"]) == ("ours", "TRL, padded")
    assert most["tokens run a target token"] > 2 * least["tokens run a target token"]
    assert 0 < abs(lines["numerics"][2]["off float32's by, share"]) < 1e-3
    along, alone, across = lines["tree"]
    assert across["tokens run"] < along["tokens run"] < alone["tokens run"]
    assert [(line["what"], line["policies"]) for line in lines["loop"]] == [("base", 1), ("leafe", 1), ("all", 2)]
    table = (tmp_path / "table.md").read_text()
    assert "toy sizes" in table and all(f"## {name}: ok" in table for name in gpu_parts.PARTS)


def test_a_part_that_failed_is_no_result(tmp_path: Path) -> None:
    """It says why, in JSON and in the table, and the whole is not ok."""
    results = found(tmp_path, "loop", share=600)
    part = results["parts"]["loop"]
    assert (results["ok"], part["status"], part["lines"]) == (False, "failed", [])
    assert "the part `policy` has to make it" in part["error"]
    assert (
        f"| loop | failed | {part['seconds']} | FileNotFoundError: there is no policy"
        in (tmp_path / "table.md").read_text()
    )


def test_a_part_is_stopped_when_its_share_of_the_time_is_spent(tmp_path: Path) -> None:
    """Which is no result either."""
    results = found(tmp_path, "policy", share=0.0)
    assert (results["ok"], results["parts"]["policy"]["status"]) == (False, "stopped")


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ({"loss": [2.0, 1.0]}, "ok", None),
        ({"loss": [2.0, 1.02]}, "failed", "its losses are others than those of the first arm by more than 0.01"),
        ({"loss": [2.0, float("nan")]}, "failed", "its losses are others"),
        ({"loss": [9.0, 9.0], "4 bits": True}, "ok", None),
        ({"failed": "OutOfMemoryError: CUDA out of memory"}, "failed", "OutOfMemoryError: CUDA out of memory"),
        ({"skipped": "trl is not installed"}, "skipped", "trl is not installed"),
    ],
)
def test_arms_with_other_losses_fail(line: dict[str, Any], status: str, says: str | None) -> None:
    """So does a part one of whose lines did; what is not installed is skipped; another base has other losses."""
    measured = {"what": "it", "4 bits": False, "model TFLOP/s": 1.0}
    arm = {**measured, **line} if "loss" in line else {"what": "it", **line}
    told: dict[str, Any] = {
        "parts": {
            "plain": {"status": "ok", "lines": [{**measured, "loss": [2.0, 1.0]}]},
            "trl": {"status": "ok", "lines": [arm]},
        }
    }
    gpu_check.judge(told, peak=10.0)
    assert told["parts"]["plain"]["status"] == "ok" and told["parts"]["plain"]["lines"][0]["share of the peak"] == 0.1
    assert told["parts"]["trl"]["status"] == status and (says or "") in told["parts"]["trl"].get("error", "")
    assert told["ok"] == (status != "failed")


def test_operations_are_those_that_torch_counts() -> None:
    """Of a step of LoRA with loss at all positions; attention, whose masked half torch counts, is small here."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {**DRY.shape, "num_hidden_layers": 16, "hidden_size": 64, "intermediate_size": 256}
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(Qwen2ForCausalLM(Qwen2Config(**shape)), lora)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 8, dtype=torch.long)).logits.sum().backward()
    assert flops(shape, 4, [8, 8], 16) == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_what_is_carried_is_what_is_not_there() -> None:
    """All that leafe-graph needs in a Python with torch, transformers, peft and accelerate."""
    needed = gpu_carry.closure(["leafe-graph"], "3.12")
    assert {"langgraph", "pydantic-core", "orjson", "rich"} <= needed
    assert not {"torch", "transformers", "trl"} & needed
    assert {"torch", "datasets", "pandas"} <= gpu_carry.closure(["trl"], "3.12")
