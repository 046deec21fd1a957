"""Training a tiny policy whole: rows a second of processor time, and where it goes.

OMP_NUM_THREADS=1 python benchmarks/train_small.py

A Llama of 0.6 million parameters with a word tokenizer learns rows of about 20 tokens that share no history: states
of a 7x7 Sokoban room as 10 words and a move, drawn with repetition as play repeats them. All is made here, from a seed.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.prepare import prepare
from leafe_graph.finetune.train import train

MOVES = ["up", "down", "left", "right"]
CELLS = [f"{row}{column}" for row in range(1, 6) for column in range(1, 6)]
WORDS = [*MOVES, *(kind + cell for kind in "PXO" for cell in CELLS), *(f"W{line:05b}" for line in range(32))]
TEMPLATE = (
    "{% for message in messages %}{{ '<s> ' + message['role'] + ' ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant' }}{% endif %}"
)


def make_model(folder: Path) -> None:
    """A random Llama with one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "system", "user", "assistant", "tool"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)


def write_rows(file: Path, n: int) -> None:
    """Rows of n decisions in 0.6 n states, a twentieth of them counterfactual."""
    rng = random.Random(0)

    def state() -> str:
        places = [kind + rng.choice(CELLS) for kind in "PXXOO"]
        return " ".join([*places, *(f"W{rng.getrandbits(5):05b}" for _ in range(5))])

    states = [state() for _ in range(max(1, n * 6 // 10))]
    with file.open("w", encoding="utf-8") as lines:
        for i in range(n):
            row = {
                "version": 1,
                "kind": "rehearsal" if i % 20 else "counterfactual",
                "prompt": [{"role": "user", "content": rng.choice(states)}],
                "completion": [{"role": "assistant", "content": rng.choice(MOVES)}],
                "task_id": f"level-{i % 1000}",
                "branch_id": "0",
                "decision_point": 0,
                "weight": 1.0,
                "prompt_token_ids": None,
                "completion_token_ids": None,
            }
            lines.write(json.dumps(row) + "\n")


def main() -> None:
    """Print a line for reading and tokenising, one for the whole training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--micro-batch-size", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder, "model"))
        write_rows(Path(folder, "rows.jsonl"), arguments.rows)
        config = TrainConfig(
            model=str(Path(folder, "model")),
            data=[Path(folder, "rows.jsonl")],
            out=Path(folder, "out"),
            tune="full",
            learning_rate=1e-3,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            micro_batch_size=arguments.micro_batch_size,
            save_steps=500,
            backend="peft",
        )
        prepare(config)  # imports are not counted
        started = time.process_time()
        prepare(config)
        prepared = time.process_time() - started
        print(f"reading and tokenising: {prepared:.1f} CPU s, {arguments.rows / prepared:,.0f} rows/CPU s")
        started = time.process_time()
        result = train(config)
        spent, seen = time.process_time() - started, arguments.rows * arguments.epochs
        print(f"the whole training: {spent:.1f} CPU s, {seen / spent:,.0f} rows/CPU s, {result.steps} steps")


if __name__ == "__main__":
    main()
