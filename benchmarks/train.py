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
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from leafe_graph.finetune import TrainConfig, backends
from leafe_graph.finetune.batches import chains, micro_batches
from leafe_graph.finetune.tokens import IGNORED, SourceRow, TokenRow, read_examples, tokenize
from leafe_graph.finetune.train import train

CONTENDERS = {"trl": "TRL SFTTrainer", "peft": "ours on PEFT", "unsloth": "ours on Unsloth"}
PACKAGES = ("torch", "transformers", "peft", "trl", "unsloth")


def rows_of(arguments: argparse.Namespace) -> tuple[list[SourceRow], list[TokenRow], Any]:
    """The rows as they stand in the file and as token ids, and the tokenizer."""
    source = read_examples([arguments.data])
    tasks = list(dict.fromkeys(row.example["task_id"] for row in source))[: arguments.tasks]
    source = [row for row in source if row.example["task_id"] in tasks]
    folder = backends.model_folder(arguments.model)
    tokenizer = backends.load_tokenizer(folder)
    stops = backends.stop_ids(folder, tokenizer)
    rows = tokenize(source, tokenizer, stop_ids=stops, max_length=arguments.max_length, use_token_ids=False)
    return source, rows, tokenizer


def targets(rows: Sequence[TokenRow]) -> int:
    """Target tokens of all rows."""
    return sum(label != IGNORED for row in rows for label in row.labels)


def device() -> str:
    """Where all contenders train."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def memory() -> float:
    """The most memory held so far, in MiB."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def config_of(arguments: argparse.Namespace, backend: Any, data: Path, n_rows: int = 1) -> TrainConfig:
    """The settings that all contenders share, as ours has them."""
    return TrainConfig(
        model=arguments.model,
        data=[data],
        out=arguments.out,
        objective="demonstrations",
        learning_rate=arguments.learning_rate,
        lr_schedule="constant",
        warmup_ratio=0,
        max_steps=1 + arguments.steps,
        batch_size=n_rows,
        micro_batch_size=arguments.micro_batch_size,
        max_length=arguments.max_length,
        use_token_ids=False,
        save_steps=2 + arguments.steps,
        resume=False,
        gradient_checkpointing=arguments.gradient_checkpointing,
        backend=backend,
    )


def ours(arguments: argparse.Namespace, backend: str) -> dict[str, Any]:
    """`leafe train`; what `trl` returns."""
    data = arguments.out / "rows.jsonl"
    backends.start_unsloth_first(config_of(arguments, backend, data))
    source, rows, _ = rows_of(arguments)
    weight = len(rows) / targets(rows)  # the mean over rows of an action's sum becomes the mean over tokens
    data.write_text("".join(json.dumps({**row.example, "weight": weight}) + "\n" for row in source))
    config = config_of(arguments, backend, data, len(rows))
    backends.load(config, backends.model_folder(config.model), device())
    gc.collect()
    loaded = memory()
    train(config)
    steps = [json.loads(line) for line in (arguments.out / "metrics.jsonl").read_text().splitlines()]
    units = chains(rows, longest=len(rows))
    passes = [
        [len(rows[chain[-1]]) for chain in batch] for batch in micro_batches(rows, units, config.micro_batch_size)
    ]
    return {
        "loss": [step["loss"] for step in steps],
        "seconds": [step["seconds"] for step in steps],
        "tokens_run": sum(len(lengths) * max(lengths) for lengths in passes),
        "targets": targets(rows),
        "loaded": loaded,
        "peak": memory(),
    }


def trl(arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's SFTTrainer on prompt/completion rows: losses and seconds by step, tokens a step, memory in MiB."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    source, rows, tokenizer = rows_of(arguments)
    config = config_of(arguments, "peft", arguments.data)
    torch.manual_seed(config.seed)
    model, _ = backends.load(config, backends.model_folder(config.model), device())
    loaded = memory()
    losses: list[float] = []
    seconds: list[float] = []
    run: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(perf_counter() - self.started)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(arguments.out),
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=-(-len(rows) // config.micro_batch_size),
            max_steps=config.max_steps or 0,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            max_length=config.max_length,
            gradient_checkpointing=config.gradient_checkpointing,
            bf16=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{k: row.example[k] for k in ("prompt", "completion")} for row in source]),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    extra = 0

    def our_labels(row: dict[str, Any], i: int) -> dict[str, Any]:
        nonlocal extra
        n, labels = len(rows[i]), rows[i].labels
        if row["input_ids"][:n] != rows[i].prompt_ids + rows[i].completion_ids or row["labels"][:n] != labels:
            raise RuntimeError(f"row {i}: TRL's tokens or labels differ from ours before the end")
        extra += sum(label != IGNORED for label in row["labels"][n:])
        return {"labels": labels + [IGNORED] * (len(row["labels"]) - n)}

    trainer.train_dataset = trainer.train_dataset.map(our_labels, with_indices=True, load_from_cache_file=False)
    collate = trainer.data_collator

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        run.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted
    trainer.train()
    peak = memory()
    trainer.save_model(str(arguments.out))
    return {
        "loss": losses,
        "seconds": seconds,
        "tokens_run": sum(run) / len(seconds),
        "targets": targets(rows),
        "extra": extra,
        "loaded": loaded,
        "peak": peak,
    }


def judge(arguments: argparse.Namespace) -> dict[str, Any]:
    """The loss a target token, of the base model and of each adapter in ``out``, one row after the other."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, rows, _ = rows_of(arguments)
    folder = backends.model_folder(arguments.model)

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

    adapters = {name: arguments.out / name for name in CONTENDERS}
    found = {name: path for name, path in adapters.items() if (path / "adapter_model.safetensors").exists()}
    return {"before": loss(None), **{name: loss(path) for name, path in found.items()}}


def contend(arguments: argparse.Namespace) -> None:
    """What a contender's process does: its measurements go to result.json."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        name = arguments.contender
        result = trl(arguments) if name == "trl" else judge(arguments) if name == "judge" else ours(arguments, name)
    except ImportError as error:
        result = {"skipped": str(error)}
    else:
        import torch

        result["on"] = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
        )
        loaded = {package: metadata.version(package) for package in PACKAGES if package in sys.modules}
        result["versions"] = loaded
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
