r"""Make from scratch a language policy of 160,000 parameters that acts, follows advice and reflects in Sokoban.

A Llama architecture with a tokenizer of its own: one token a word of the game, so that a 7×7 room is ten tokens and an
answer one. The solver's play teaches it three skills, each in an amount that can be chosen:

- *act*: what to do in a state;
- *follow*: what to do there when an experience says what not to do;
- *reflect*: which step of a failed attempt to take back, in words.

Taught to reflect on many levels and to act in few, it is what an LLM is in a world that is new to it: a fast stand-in
for one in comparisons of methods. Saved as an ordinary Hugging Face folder: ``local:FOLDER`` plays with it, ``leafe
train`` tunes it, plain transformers loads it. It knows these texts and this view:

    python examples/tiny_policy.py --out runs/tiny-policy
    leafe explore --model local:runs/tiny-policy --prompts leafe_graph.envs.sokoban.coordinates:PROMPTS \
        --env-options size=7,boxes=2,min_moves=6,max_moves=22,view=coordinates,end_on_deadlock=true \
        --max-turns 40 --history 0 --max-tokens 1 --experience-turns 1 --reflect-max-tokens 6 --out runs/tiny
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from leafe_graph.dataset.demonstrate import Episode
from leafe_graph.envs import sokoban
from leafe_graph.envs.sokoban.coordinates import PROMPTS
from leafe_graph.terminal.console import errors
from leafe_graph.types import Message, Task

Skill = Literal["act", "follow", "reflect"]
Row = tuple[list[Message], str]
"""A prompt, and what to answer."""

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<' + message['role'] + '> ' + message['content'] + ' <end> ' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>"]
FEEDBACK = [
    "moved",
    "pushed box",
    "box on target",
    "box off target",
    "blocked by wall",
    "blocked: box against wall",
    "blocked: two boxes in a row",
    "box stuck: deadlock",
    "box stuck in corner: deadlock",
    "box stuck at wall: deadlock",
    "boxes stuck together: deadlock",
    "solved",
]
REFLECTION = ['{"step":', ', "experience": "Do not go', '"}']
"""What stands around the step and the action; the tokens with spaces between them are still JSON."""
ADVICE = "Do not go {action}"
TURNS = 40
"""Moves of the longest attempt that it is taught to reflect on."""


def main(given: Sequence[str] | None = None) -> None:
    """Make, teach, save, and say how well it does each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to save the model in")
    parser.add_argument("--levels", type=int, default=4000, help="training levels that the solver plays")
    parser.add_argument("--acting-levels", type=int, default=600, help="how many of them it is taught to act in")
    parser.add_argument("--size", type=int, default=7)
    parser.add_argument("--boxes", type=int, default=2)
    parser.add_argument("--min-moves", type=int, default=6)
    parser.add_argument("--max-moves", type=int, default=22)
    parser.add_argument("--steps", type=int, default=1200, help="how long to teach it, in batches")
    parser.add_argument("--act", type=int, default=32, help="rows of acting in a batch")
    parser.add_argument("--follow", type=int, default=16, help="rows of following an experience in a batch")
    parser.add_argument("--reflect", type=int, default=40, help="rows of reflecting in a batch")
    parser.add_argument("--slips", type=float, default=0.0, help="share of acting rows that teach just any move")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--start", type=int, default=500_000_000, help="where in the training levels to begin")
    parser.add_argument("--device", default="cpu", help="where it is taught; a larger one may want cuda")
    parser.add_argument("--at-once", type=int, default=24, help="rows a forward pass; a GPU wants more")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)  # more slow so small a model down
    tokenizer, model = new_policy(arguments.size, arguments.width, arguments.layers)
    model.to(arguments.device)
    tasks = sokoban.tasks(
        "train",
        arguments.levels,
        size=arguments.size,
        boxes=arguments.boxes,
        min_moves=arguments.min_moves,
        max_moves=arguments.max_moves,
        start=arguments.start,
    )
    held_out = max(1, len(tasks) // 20)
    rng = random.Random(arguments.seed)
    taught, unseen = (
        tokenized(tokenizer, lessons(part, rng, arguments.slips, acting))
        for part, acting in ((tasks[held_out:], arguments.acting_levels), (tasks[:held_out], held_out))
    )
    amounts: dict[Skill, int] = {"act": arguments.act, "follow": arguments.follow, "reflect": arguments.reflect}
    teach(model, taught, amounts, steps=arguments.steps, rate=arguments.rate, rng=rng, at_once=arguments.at_once)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    parameters = sum(weight.numel() for weight in model.parameters())
    right = ", ".join(f"{skill} {share(model, rows):.0%}" for skill, rows in unseen.items())
    print(f"{parameters:,} parameters; answers as taught on levels that it has not seen: {right}")


def new_policy(size: int, width: int = 64, layers: int = 3) -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM]:
    """An untaught policy for rooms of this size, and its tokenizer."""
    inside = range(1, size - 1)
    words = [f"{symbol}{row},{column}" for symbol in "PX√O" for row in inside for column in inside]
    words += [f"{walls:0{size - 2}b}".replace("0", "_").replace("1", "#") for walls in range(2 ** (size - 2))]
    words += [*sokoban.ACTIONS, PROMPTS.failed, PROMPTS.unfinished, "Mistake?", "Experience:", *map(str, range(TURNS))]
    phrases = [*FEEDBACK, *REFLECTION, "Do not go"]
    longest_first = sorted([*phrases, *sokoban.ACTIONS], key=len, reverse=True)
    pieces = "|".join([*map(re.escape, longest_first), r"\d+", r"\S+"])
    return worded([*words, *phrases], pieces, width, layers)


def worded(
    words: Sequence[str], pieces: str, width: int = 64, layers: int = 3
) -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM]:
    """An untaught policy with a token for each of the words, and its tokenizer: a text is what matches ``pieces``."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    wordy = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    wordy.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordy, pad_token="<pad>", eos_token="<end>", bos_token="<user>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        initializer_range=width**-0.5,  # at 0.02, as for large models, so small a one does not learn to copy for long
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=vocabulary["<user>"],
        eos_token_id=vocabulary["<end>"],
        pad_token_id=vocabulary["<pad>"],
    )
    return tokenizer, LlamaForCausalLM(config)


def lessons(tasks: list[Task], rng: random.Random, slips: float, acting: int) -> Iterator[tuple[Skill, Row]]:
    """At the first levels what to do along a noisy attempt of the solver's; at all what to take back of some."""
    for number, task in enumerate(track(tasks, "the solver's play", console=errors)):
        for noise in (0.3, *rng.choices((0.4, 0.6, 0.8, 1.0), k=6)):
            env = sokoban.SokobanEnv(view="coordinates", end_on_deadlock=True)
            played = Episode(env, task)
            states = [env.state]
            while len(played.turns) < TURNS and not played.ended:
                after = moves_left(env.state)
                good = fewest(after)
                if good and noise == 0.3 and number < acting:
                    taught = rng.choice(sokoban.ACTIONS if rng.random() < slips else good)
                    yield "act", (PROMPTS.act_messages(task, [], played.observation), taught)
                    wrong = rng.choice([action for action in sokoban.ACTIONS if action not in good] or good)
                    if better := fewest({action: left for action, left in after.items() if action != wrong}):
                        told = ADVICE.format(action=wrong)
                        prompt = PROMPTS.act_messages(task, [], played.observation, experience=told)
                        yield "follow", (prompt, rng.choice(better))
                played.play([rng.choice(sokoban.ACTIONS if not good or rng.random() < noise else good)])
                states.append(env.state)
            if sokoban.deadlocked(env.state) or (not played.success and rng.random() < 0.2):  # most policies' failures
                step = mistake(states)
                told = ADVICE.format(action=played.turns[step]["action"])
                prompt = PROMPTS.reflect_messages(task, played.turns, played.observation, "failure")
                yield "reflect", (prompt, json.dumps({"step": step, "experience": told}))


def moves_left(state: sokoban.State) -> dict[str, int]:
    """For each action that leaves the level solvable, the moves of an optimal solution after it."""
    left = {action: sokoban.distance(sokoban.move(state, action)[0]) for action in sokoban.ACTIONS}
    return {action: moves for action, moves in left.items() if moves is not None}


def fewest(left: dict[str, int]) -> list[str]:
    """The actions after which the fewest moves are left."""
    return [action for action, moves in left.items() if moves == min(left.values())]


def mistake(states: list[sokoban.State]) -> int:
    """The step to take back: the one that lost the level; else one that led away, near the goal with moves to spare."""
    left = [sokoban.distance(state) for state in states]
    if None in left:
        return left.index(None) - 1
    away = [t for t, (before, after) in enumerate(pairwise(left)) if after >= before]
    return min(away, key=lambda t: left[t] + t / 4)


def tokenized(
    tokenizer: PreTrainedTokenizerFast, rows: Iterator[tuple[Skill, Row]]
) -> dict[Skill, list[tuple[list[int], int]]]:
    """Token ids of prompt and answer, and how many are the answer's: the rows of each skill."""
    found: dict[Skill, list[tuple[list[int], int]]] = {"act": [], "follow": [], "reflect": []}
    for skill, (prompt, answer) in rows:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        asked, said = (tokenizer(part).input_ids for part in (text, f"{answer} <end>"))
        found[skill].append((asked + said, len(said)))
    return found


def teach(
    model: LlamaForCausalLM,
    taught: dict[Skill, list[tuple[list[int], int]]],
    amounts: dict[Skill, int],
    *,
    steps: int,
    rate: float,
    rng: random.Random,
    at_once: int,
) -> None:
    """So many batches of so many rows of each skill.

    A batch holds attempts of all lengths: among those of one length the step to name is nearly always the same, and a
    policy learns that one by heart instead of finding it in the prompt.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for step in track(range(steps), "teaching it", console=errors):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * max(0.02, 1 - step / steps)
        for skill, amount in amounts.items():
            rows = sorted(rng.choices(taught[skill], k=amount), key=lambda row: len(row[0])) if taught[skill] else []
            for at in range(0, len(rows), at_once):  # rows of about one length: little padding
                part = rows[at : at + at_once]
                loss, _ = answers(model, part)
                (loss * len(part) / sum(amounts.values())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def share(model: LlamaForCausalLM, rows: list[tuple[list[int], int]]) -> float:
    """The share of rows whose whole answer is the likeliest at each of its tokens."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    right = [answers(model, rows[at : at + 64])[1] for at in range(0, len(rows), 64)]
    return float(torch.cat(right).float().mean()) if right else 0.0


def answers(model: LlamaForCausalLM, rows: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss over the answers' tokens, and for each row whether all of them are the likeliest."""
    longest, kept = max(len(ids) for ids, _ in rows), max(said for _, said in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row, _ in rows]).to(model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row, _ in rows]).to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    counted = torch.tensor([[0] * (kept - said) + [1] * said for _, said in rows]).bool().to(model.device)
    out = model(ids, attention_mask=mask, position_ids=positions, logits_to_keep=kept + 1).logits[:, :-1]
    targets = ids[:, -kept:]
    loss = torch.nn.functional.cross_entropy(out[counted], targets[counted])
    return loss, ((out.argmax(-1) == targets) | ~counted).all(1)


if __name__ == "__main__":
    main()
