"""What `gpu_check.py` trains on, how large all is, and what the device can do; the model and its rows are made here."""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "examples")]  # behind the packages: the checkout is none

Line = dict[str, Any]
"""What was measured: ``what``, and figures by name. ``failed`` or ``skipped`` says why there are none, or are wrong."""

QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
"""The shape of Qwen2.5-7B, from its config.json."""
TOY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|> ' + message['role'] + '\n' + message['content'] + ' <|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|> assistant\n' }}{% endif %}"
)
PLACES = "bed cabinet countertop desk diningtable drawer dresser fridge garbagecan microwave shelf sidetable sinkbasin"
THINGS = "apple book bowl cellphone cup egg knife laptop mug pencil pillow plate tomato vase watch"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is."""

    shape: dict[str, Any]
    """Of the Qwen2 model that is trained."""
    tasks: int
    """Whose rows are trained on; each has two branches."""
    turns: int
    """Of a branch; a prompt grows by about 40 tokens a turn."""
    steps: int
    """Timed optimiser steps of an arm, after one that is not."""
    lora_r: int
    micro_batches: tuple[int, ...]
    """Swept by our trainer; the other arms run at the last but one, where nothing else is said."""
    product: int
    """Rows and columns of the matrices whose product tells the device's peak."""
    room: dict[str, Any]
    """Of Sokoban."""
    policy: tuple[str, ...]
    """Flags of examples/tiny_policy.py beside those of the room."""
    levels: int
    """Of Sokoban, that policies are judged on."""
    samples: int
    """Of each level."""
    played: int
    """Levels at hand to learn from."""
    methods: tuple[str, ...]
    """Those that are judged beside the policy as it is."""
    env_steps: int
    """That a method may spend to learn from."""
    seeds: int
    """Of each method that learns."""
    jobs: int
    """Processes of the bench."""
    concurrency: int
    """Episodes at once in each."""

    @property
    def micro_batch(self) -> int:
        """Of all arms that do not sweep it."""
        return self.micro_batches[-2]


FULL = Sizes(
    shape=QWEN_7B,
    tasks=4,
    turns=20,
    steps=2,
    lora_r=32,
    micro_batches=(1, 2, 4, 8),
    product=8192,
    room={"size": 7, "boxes": 2, "min_moves": 6, "max_moves": 22},
    policy=("--width=192", "--layers=4", "--levels=800", "--acting-levels=200", "--steps=500", "--at-once=512"),
    levels=200,
    samples=256,
    played=20_000,
    methods=("rejection", "leafe"),
    env_steps=200_000,
    seeds=8,
    jobs=16,
    concurrency=512,
)
DRY = Sizes(
    shape=TOY,
    tasks=2,
    turns=4,
    steps=1,
    lora_r=4,
    micro_batches=(1, 2, 4),
    product=256,
    room={"size": 5, "boxes": 1, "min_moves": 2, "max_moves": 5},
    policy=(
        "--width=32",
        "--layers=2",
        "--levels=40",
        "--steps=120",
        "--rate=0.01",
        "--act=24",
        "--follow=4",
        "--reflect=8",
    ),
    levels=2,
    samples=2,
    played=8,
    methods=("leafe",),
    env_steps=400,
    seeds=1,
    jobs=2,
    concurrency=8,
)
"""The dry run's: toys."""


def model(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """Make the rows, and a model with random weights and a tokenizer of their words."""
    import torch
    from training_arms import device
    from transformers import AutoModelForCausalLM, Qwen2Config

    started = time.perf_counter()
    rows = [*_rows(sizes)]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    tokenizer = _tokenizer([message["content"] for row in rows for message in row["prompt"] + row["completion"]])
    end, config = tokenizer.eos_token_id, dict(sizes.shape, tie_word_embeddings=False)
    torch.manual_seed(0)
    with torch.device(device()):
        made = AutoModelForCausalLM.from_config(
            Qwen2Config(**config, eos_token_id=end, bos_token_id=end, pad_token_id=0),
            dtype=torch.bfloat16 if device() == "cuda" else torch.float32,
        )
    made.save_pretrained(folder / "model", max_shard_size="2GB")  # shards are read and digested side by side
    tokenizer.save_pretrained(folder / "model")
    parameters = sum(weight.numel() for weight in made.parameters())
    yield {"what": "made and saved", "parameters": parameters, "rows": len(rows), "seconds": since(started)}
    yield {"what": "peak", "TFLOP/s of a matrix product": peak(sizes.product) / 1e12, "memory, GiB": _total_memory()}


def _rows(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Trees of two branches as ALFWorld's: all turns of a successful path, and of another that leaves it half way."""
    rng = random.Random(0)

    def place() -> str:
        return f"{rng.choice(PLACES.split())} {rng.randint(1, 9)}"

    def things(n: int) -> str:
        return ", ".join(f"a {rng.choice(THINGS.split())} {rng.randint(1, 3)}" for _ in range(n))

    def turn() -> list[dict[str, str]]:
        there = place()
        said = f"You arrive at {there}. On the {there}, you see {things(rng.randint(1, 4))}, and {things(1)}."
        return [{"role": "assistant", "content": f"go to {there}"}, {"role": "user", "content": said}]

    for number in range(sizes.tasks):
        room = ", ".join(f"a {place()}" for _ in range(14))
        start = f"You are in the middle of a room. Looking quickly around you, you see {room}.\n\n"
        start += f"Your task is to: put {things(1)} in {place()}."
        path = [{"role": "user", "content": start}]
        for branch, leaves in enumerate((0, sizes.turns // 2)):
            path = path[: 1 + 2 * leaves]
            for point in range(leaves, sizes.turns):
                done = turn()
                yield {
                    "version": 1,
                    "kind": "counterfactual" if branch and point == leaves else "rehearsal",
                    "prompt": path,
                    "completion": done[:1],
                    "task_id": f"room-{number}",
                    "branch_id": str(branch),
                    "decision_point": point,
                    "weight": 1.0,
                    "prompt_token_ids": None,
                    "completion_token_ids": None,
                }
                path = path + done


def _tokenizer(texts: Sequence[str]) -> Any:
    """One token a word, a number, a mark: about as many as Qwen's has for such texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator([*texts, "system user assistant tool"], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def flops(shape: dict[str, Any], r: int, lengths: Sequence[int], targets: int) -> float:
    """Operations that a step of LoRA needs on sequences of these lengths: padding, recomputation not among them.

    Forward, and backward to the inputs of the frozen layers and to the weights of LoRA's: 4 operations a frozen
    parameter and token, 6 for LoRA's; causal attention's two products three times; the output layer at targets alone.
    """
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    kept = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    linear = [(hidden, hidden), (hidden, kept), (hidden, kept), (hidden, hidden), *[(hidden, inner)] * 3]
    frozen, lora = (layers * sum(map(count, linear)) for count in (lambda io: io[0] * io[1], lambda io: r * sum(io)))
    attention = 6 * layers * hidden * sum(length**2 for length in lengths)
    return (4 * frozen + 6 * lora) * sum(lengths) + attention + 4 * hidden * shape["vocab_size"] * targets


def peak(n: int) -> float:
    """FLOP/s that a product of two n×n matrices reaches: in bfloat16 on a GPU, in float32 on a CPU."""
    import torch
    from training_arms import device

    dtype = torch.bfloat16 if device() == "cuda" else torch.float32
    one, other = (torch.randn(n, n, dtype=dtype, device=device()) for _ in range(2))
    rates = []
    for _ in range(5):
        wait()
        started = time.perf_counter()
        for _ in range(5):
            one @ other
        wait()
        rates.append(5 * 2 * n**3 / (time.perf_counter() - started))
    return max(rates)


def wait() -> None:
    """Until the device has done all that it was told."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _total_memory() -> float | None:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None


def since(started: float) -> float:
    """Seconds since a time of `time.perf_counter`."""
    return time.perf_counter() - started
