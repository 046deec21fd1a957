"""The arms of `benchmarks/train.py` and `scripts/gpu_check.py`: the same rows by our trainer, by TRL, by a plain loop.

All start from the same base model and LoRA matrices, run all rows in every step, and step by AdamW at a constant rate.
Rows are weighted so that our objective is the mean over all target tokens, which is that of the others. So the losses
of all steps can be compared one by one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from leafe_graph.finetune import TrainConfig, backends
from leafe_graph.finetune.batches import chains, micro_batches
from leafe_graph.finetune.tokens import IGNORED, SourceRow, TokenRow, read_examples, tokenize
from leafe_graph.finetune.train import train
from leafe_graph.models.folders import load_tokenizer, model_folder, stop_ids


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms share."""

    model: str
    """What `leafe train --model` takes."""
    data: Path
    """An export of rows."""
    out: Path
    """A folder for what is left behind; an arm wants one of its own."""
    tasks: int | None = None
    """Take the rows of so many tasks only."""
    steps: int = 2
    """Timed optimiser steps, after one that is not."""
    micro_batch_size: int = 8
    """Rows (chains of rows, packs of rows) a forward pass."""
    learning_rate: float = 2e-4
    max_length: int = 2048
    """Longest row, and the length of a pack."""
    gradient_checkpointing: bool = False
    lora_r: int = 16
    load_in_4bit: bool = False


@dataclass(kw_only=True)
class Trained:
    """What an arm measured."""

    loss: list[float]
    """Of each step, the one that is not timed included."""
    seconds: list[float]
    """Likewise."""
    passes: list[list[int]]
    """Lengths of the sequences that a step runs, a list a forward pass."""
    tokens_run: float
    """Tokens that go through the model in a step, padding included."""
    targets: int
    """Tokens of a step that have a loss."""
    extra: int = 0
    """Targets that TRL would have had beside these."""

    def rate(self, per_step: float) -> float:
        """So much a step, in a second of the timed ones."""
        return per_step * (len(self.seconds) - 1) / sum(self.seconds[1:])


def rows_of(setting: Setting) -> tuple[list[SourceRow], list[TokenRow], Any]:
    """The rows as they stand in the file and as token ids, and the tokenizer."""
    source = read_examples([setting.data])
    tasks = list(dict.fromkeys(row.example["task_id"] for row in source))[: setting.tasks]
    source = [row for row in source if row.example["task_id"] in tasks]
    folder = model_folder(setting.model)
    tokenizer = load_tokenizer(folder)
    stops = stop_ids(folder, tokenizer)
    rows = tokenize(source, tokenizer, stop_ids=stops, max_length=setting.max_length, use_token_ids=False)
    return source, rows, tokenizer


def targets(rows: Sequence[TokenRow]) -> int:
    """Target tokens of all rows."""
    return sum(label != IGNORED for row in rows for label in row.labels)


def device() -> str:
    """Where all arms train."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def memory() -> float:
    """The most memory held so far, in MiB."""
    import resource

    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def config_of(setting: Setting, backend: Any, data: Path, n_rows: int = 1) -> TrainConfig:
    """The settings that all arms share, as ours has them."""
    return TrainConfig(
        model=setting.model,
        data=[data],
        out=setting.out,
        objective="demonstrations",
        learning_rate=setting.learning_rate,
        lr_schedule="constant",
        warmup_ratio=0,
        max_steps=1 + setting.steps,
        batch_size=n_rows,
        micro_batch_size=setting.micro_batch_size,
        max_length=setting.max_length,
        use_token_ids=False,
        save_steps=2 + setting.steps,
        resume=False,
        gradient_checkpointing=setting.gradient_checkpointing,
        lora_r=setting.lora_r,
        load_in_4bit=setting.load_in_4bit,
        backend=backend,
    )


def load(setting: Setting, backend: Any = "peft") -> Any:
    """The base with its LoRA, as all arms start from it."""
    config = config_of(setting, backend, setting.data)
    backends.start_unsloth_first(config)
    import torch

    torch.manual_seed(config.seed)
    return backends.load(config, model_folder(config.model), device())[0]


def ours(setting: Setting, backend: str) -> Trained:
    """`leafe train`."""
    setting.out.mkdir(parents=True, exist_ok=True)
    data = setting.out / "rows.jsonl"
    backends.start_unsloth_first(config_of(setting, backend, data))
    source, rows, _ = rows_of(setting)
    weight = len(rows) / targets(rows)  # the mean over rows of an action's sum becomes the mean over tokens
    data.write_text("".join(json.dumps({**row.example, "weight": weight}) + "\n" for row in source))
    config = config_of(setting, backend, data, len(rows))
    train(config)
    steps = [json.loads(line) for line in (setting.out / "metrics.jsonl").read_text().splitlines()]
    units = chains(rows, longest=len(rows))
    passes = [
        [len(rows[chain[-1]]) for chain in batch] for batch in micro_batches(rows, units, config.micro_batch_size)
    ]
    return Trained(
        loss=[step["loss"] for step in steps],
        seconds=[step["seconds"] for step in steps],
        passes=passes,
        tokens_run=padded(passes),
        targets=targets(rows),
    )


def padded(passes: Sequence[Sequence[int]]) -> int:
    """Tokens that passes of sequences of these lengths run."""
    return sum(len(lengths) * max(lengths) for lengths in passes)


def plain(setting: Setting) -> Trained:
    """A plain loop over PEFT's model: padded rows, transformers' own loss, AdamW."""
    import torch

    _, rows, _ = rows_of(setting)
    config, model, n = config_of(setting, "peft", setting.data), load(setting), targets(rows)
    weights = [*backends.trainable(model).values()]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    ordered = sorted(rows, key=len)  # of about one length: little padding
    batches = [ordered[at : at + config.micro_batch_size] for at in range(0, len(rows), config.micro_batch_size)]

    def padded_tensor(lists: Sequence[Sequence[int]], filling: int) -> Any:
        longest = max(map(len, lists))
        return torch.tensor([[*ids, *[filling] * (longest - len(ids))] for ids in lists], device=device())

    losses, seconds = [], []
    for _ in range(1 + setting.steps):
        started, loss = perf_counter(), 0.0
        for batch in batches:
            ids = [row.prompt_ids + row.completion_ids for row in batch]
            part = model(
                input_ids=padded_tensor(ids, 0),
                attention_mask=padded_tensor([[1] * len(row) for row in batch], 0),
                labels=padded_tensor([row.labels for row in batch], IGNORED),
                num_items_in_batch=n,
                use_cache=False,
            ).loss
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm).item()  # .item() waits for the GPU
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(perf_counter() - started)
        losses.append(loss)
    passes = [[*map(len, batch)] for batch in batches]
    return Trained(loss=losses, seconds=seconds, passes=passes, tokens_run=padded(passes), targets=n)


def trl(setting: Setting, *, packing: bool = False) -> Trained:
    """TRL's SFTTrainer: on prompt/completion rows as its documentation has it, or on packs of our token ids.

    Packs are run by FlashAttention where the package ``flash_attn`` is there; else by PyTorch's attention with a mask
    that parts the rows of a pack.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from transformers.utils import is_flash_attn_2_available
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset

    source, rows, tokenizer = rows_of(setting)
    config, model = config_of(setting, "peft", setting.data), load(setting)
    losses: list[float] = []
    seconds: list[float] = []
    run: list[int] = []
    if packing:
        examples = [{"input_ids": row.prompt_ids + row.completion_ids, "labels": row.labels} for row in rows]
        packs = pack_dataset(Dataset.from_list(examples), setting.max_length)["seq_lengths"]
        at_once = range(0, len(packs), config.micro_batch_size)
        passes = [[length for pack in packs[at : at + config.micro_batch_size] for length in pack] for at in at_once]
        if is_flash_attn_2_available():
            model.get_base_model().set_attn_implementation("flash_attention_2")
    else:
        examples = [{k: row.example[k] for k in ("prompt", "completion")} for row in source]
        at_once = range(0, len(rows), config.micro_batch_size)
        passes = [[*map(len, rows[at : at + config.micro_batch_size])] for at in at_once]

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(perf_counter() - self.started)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(setting.out),
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=len(passes),
            max_steps=config.max_steps or 0,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            max_length=config.max_length,
            packing=packing,
            gradient_checkpointing=config.gradient_checkpointing,
            bf16=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(examples),
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

    if not packing:
        trainer.train_dataset = trainer.train_dataset.map(our_labels, with_indices=True, load_from_cache_file=False)
    collate = trainer.data_collator

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        run.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted
    trainer.train()
    trainer.save_model(str(setting.out))
    return Trained(
        loss=losses,
        seconds=seconds,
        passes=passes,
        tokens_run=sum(run) / len(seconds),
        targets=targets(rows),
        extra=extra,
    )
