"""Make a policy of a third of a million parameters from scratch: a fast stand-in for an LLM in tests and benchmarks.

A Llama architecture, 96 wide, with a tokenizer of its own (one token a grid cell, one a word), taught to imitate the
solver on noisy Sokoban episodes. Saved as an ordinary Hugging Face folder: ``local:FOLDER`` plays with it, ``leafe
train`` tunes it, plain transformers loads it. It cannot reflect in words.

    python examples/tiny_policy.py --out runs/tiny-policy
"""

import argparse
import random
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from leafe_graph.envs import sokoban
from leafe_graph.prompts import Prompts
from leafe_graph.terminal.console import errors

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<' + message['role'] + '> ' + message['content'] + ' <end> ' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>"]
WORDS = [*"#_O√XPS", *sokoban.ACTIONS]
FEEDBACK = (
    "moved pushed blocked by wall: box against wall two boxes in a row on off target stuck corner at deadlock solved"
)


def main() -> None:
    """Make, teach, save, and say how well it imitates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to save the model in")
    parser.add_argument("--levels", type=int, default=300)
    parser.add_argument("--size", type=int, default=7)
    parser.add_argument("--boxes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400, help="how long to teach it, in batches")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer, model = new_policy()
    rows = demonstrations(arguments.levels, arguments.size, arguments.boxes, arguments.seed)
    accuracy = imitate(
        model, tokenizer, rows, steps=arguments.steps, batch_size=arguments.batch_size, seed=arguments.seed
    )
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(
        f"{parameters:,} parameters, {len(rows)} states, agrees with the solver on {accuracy:.0%} of the last batches"
    )


def new_policy() -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM]:
    """An untaught policy and its tokenizer."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *FEEDBACK.split()]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", bos_token="<user>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=vocabulary["<user>"],
        eos_token_id=vocabulary["<end>"],
        pad_token_id=vocabulary["<pad>"],
    )
    return tokenizer, LlamaForCausalLM(config)


def demonstrations(levels: int, size: int, boxes: int, seed: int) -> list[tuple[list[dict[str, str]], str]]:
    """Prompts and best moves along noisy solutions: a third of the moves is random, so that slips are met too."""
    rng, prompts = random.Random(seed), Prompts()
    rows = []
    tasks = sokoban.tasks("train", levels, size=size, boxes=boxes, min_moves=3, max_moves=22)
    for task in track(tasks, "the solver's play", console=errors):
        env = sokoban.SokobanEnv()
        observation, _ = env.reset(options=task["options"])
        for _ in range(40):
            best = sokoban.optimal_actions(env.state)
            if not best:
                break
            rows.append((prompts.act_messages(task, [], observation), rng.choice(best)))
            observation, _, over, _, _ = env.step(rng.choice(best if rng.random() > 0.3 else sokoban.ACTIONS))
            if over:
                break
    return rows


def imitate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[tuple[list[dict[str, str]], str]],
    *,
    steps: int,
    batch_size: int,
    seed: int,
) -> float:
    """Teach by so many batches; the share of right moves in the last twenty."""
    rng = random.Random(seed)
    chats = [[*prompt, {"role": "assistant", "content": move}] for prompt, move in rows]
    ids = [tokenizer(tokenizer.apply_chat_template(chat, tokenize=False).rstrip()).input_ids for chat in chats]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    right = []
    for step in track(range(steps), "imitating it", console=errors):
        batch = [ids[i] for i in rng.sample(range(len(ids)), min(batch_size, len(ids)))]
        longest = max(map(len, batch))
        padded = torch.tensor([[tokenizer.pad_token_id] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.05, 1 - step / steps)
        logits = model(padded, attention_mask=mask, position_ids=positions, logits_to_keep=3).logits[:, :2]
        targets = padded[:, -2:]  # the move and the end
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = [*right[-19:], float((logits[:, 0].argmax(-1) == targets[:, 0]).float().mean())]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
