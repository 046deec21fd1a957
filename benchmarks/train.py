"""Training: target tokens a second and memory of plain TRL, ours on PEFT, and ours on Unsloth, on the same rows.

python benchmarks/train.py --python VENV/bin/python

VENV holds leafe-graph with its train extra and TRL, and Unsloth if it is to be measured. alfworld_tree.parquet beside
this file has the rows of the ALFWorld run in docs/trees.md, as `leafe export` wrote them; any other export will do.

Each contender trains in a process of its own, one after the other: the same base model and LoRA, AdamW at a constant
learning rate, all rows in every step. Rows are weighted so that our objective is TRL's: the mean over all target
tokens. TRL also has the newline after the stop token as a target; it is run, but taken out of the labels, so that both
have the same targets. The losses of the steps can then be compared one by one. In the end, plain transformers gives
each saved adapter's loss, row by row.

A target token is one that has a loss. The first step is not timed. Memory is the most that the process held (Linux:
ru_maxrss; CUDA: what torch allocated), and how much of it came after the model was loaded.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from training_arms import Setting, device, load, memory, ours, rows_of, targets, trl

from leafe_graph.models.folders import model_folder

SHARED = (
    "model",
    "data",
    "tasks",
    "steps",
    "micro_batch_size",
    "learning_rate",
    "max_length",
    "gradient_checkpointing",
)
CONTENDERS = {"trl": "TRL SFTTrainer", "peft": "ours on PEFT", "unsloth": "ours on Unsloth"}
PACKAGES = ("torch", "transformers", "peft", "trl", "unsloth")


def judge(setting: Setting) -> dict[str, Any]:
    """The loss a target token, of the base model and of each adapter in ``out``, one row after the other."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, rows, _ = rows_of(setting)
    folder = model_folder(setting.model)

    def loss(adapter: Path | None) -> float:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, str(adapter))
        model, total = model.to(device()).eval(), 0.0
        for row in rows:
            ids, reply = row.prompt_ids + row.completion_ids, torch.tensor(row.completion_ids, device=device())
            with torch.no_grad():
                output = model(torch.tensor([ids], device=device()), logits_to_keep=len(reply) + 1)
            total += torch.nn.functional.cross_entropy(output.logits[0, :-1].float(), reply, reduction="sum").item()
        return total / targets(rows)

    adapters = {name: setting.out / name for name in CONTENDERS}
    found = {name: path for name, path in adapters.items() if (path / "adapter_model.safetensors").exists()}
    return {"before": loss(None), **{name: loss(path) for name, path in found.items()}}


def trained(setting: Setting, name: str) -> dict[str, Any]:
    """A contender's measurements."""
    load(setting, "unsloth" if name == "unsloth" else "peft")
    gc.collect()
    loaded = memory()
    result = asdict(trl(setting) if name == "trl" else ours(setting, name))
    import torch

    on = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    versions = {package: metadata.version(package) for package in PACKAGES if package in sys.modules}
    return {**result, "loaded": loaded, "peak": memory(), "on": on, "versions": versions}


def contend(arguments: argparse.Namespace) -> None:
    """What a contender's process does: its measurements go to result.json."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(out=arguments.out, **{name: getattr(arguments, name) for name in SHARED})
    try:
        result = judge(setting) if arguments.contender == "judge" else trained(setting, arguments.contender)
    except ImportError as error:
        result = {"skipped": str(error)}
    (arguments.out / "result.json").write_text(json.dumps(result))


def run(name: str, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """A contender in a process of its own."""
    command = [arguments.python, __file__, *sys.argv[1:], "--contender", name, "--out", str(out)]
    threads = {k: str(arguments.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        command, env=os.environ | threads, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-3000:]}")
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter with TRL (and Unsloth)")
    parser.add_argument("--model", default="local:smollm2-135m", help="what `leafe train --model` takes")
    parser.add_argument("--data", type=Path, default=Path(__file__).with_name("alfworld_tree.parquet"))
    parser.add_argument("--tasks", type=int, help="take the rows of so many tasks only")
    parser.add_argument("--steps", type=int, default=2, help="timed optimiser steps, after one that is not")
    parser.add_argument("--rounds", type=int, default=1, help="of all contenders; the table has medians")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="rows (TRL) or chains (ours) a forward pass")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--gradient-checkpointing", action="store_true", help="in all; TRL's own default is on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contender", choices=[*CONTENDERS, "judge"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments)
        return
    found: dict[str, list[dict[str, Any]]] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                result = run(name, arguments, Path(folder, name))
                if "skipped" in result:
                    print(f"{CONTENDERS[name]} skipped: {result['skipped']}", file=sys.stderr)
                else:
                    print(name, json.dumps(result), file=sys.stderr, flush=True)
                    found.setdefault(name, []).append(result)
        losses = run("judge", arguments, Path(folder))
    report(found, losses, arguments)
    print(f"\nload {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; {arguments.rounds} round(s)")


def report(found: dict[str, list[dict[str, Any]]], losses: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The table, and what is to be said below it."""
    print(
        "| | steps | target tokens/s | × TRL | tokens run a target token | peak MiB (after loading) "
        "| loss by step | judged before → after |\n|---|" + "---:|" * 7
    )
    speeds = {
        name: [arguments.steps * result["targets"] / sum(result["seconds"][1:]) for result in results]
        for name, results in found.items()
    }
    plain = found["trl"][-1] if "trl" in found else None
    for name, results in found.items():
        last, speed = results[-1], statistics.median(speeds[name])
        times = (
            f"{statistics.median(a / b for a, b in zip(speeds[name], speeds['trl'], strict=True)):.2f}"
            if plain
            else "–"
        )
        peak, after = max((result["peak"], result["peak"] - result["loaded"]) for result in results)
        print(
            f"| {CONTENDERS[name]} | 1 + {arguments.steps} | {speed:.2f} | {times} "
            f"| {last['tokens_run'] / last['targets']:.1f} | {peak:,.0f} ({after:,.0f}) "
            f"| {', '.join(f'{loss:.4f}' for loss in last['loss'])} | {losses['before']:.4f} → {losses[name]:.4f} |"
        )
    print()
    for name, results in found.items():
        if plain and name != "trl":
            gaps = [abs(a - b) for a, b in zip(plain["loss"], results[-1]["loss"], strict=True)]
            print(f"{CONTENDERS[name]}: loss off TRL's by {gaps[0]:.1e} at the first step, by {max(gaps):.1e} at most")
        seen = ", ".join(f"{package} {version}" for package, version in results[-1]["versions"].items())
        print(f"{CONTENDERS[name]}: {results[-1]['on']}; {seen}")
    if plain:
        print(f"{plain['targets']} target tokens; TRL's own labels have {plain['extra']} more, taken out here")


if __name__ == "__main__":
    main()
