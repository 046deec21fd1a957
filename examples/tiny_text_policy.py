r"""Make from scratch a language policy of 160,000 parameters that acts, follows advice and reflects in CookingWorld.

What `examples/tiny_policy.py` is for Sokoban, for a world in words: the view and the texts of
`leafe_graph.envs.cookingworld`, a vocabulary of the words that the training games have, actions of two to four tokens.
The package's gold play teaches it the same three skills:

- *act*: the next action of the gold play;
- *follow*: the same, when an experience forbids another action that is possible there;
- *reflect*: which step to take back of an attempt that follows the gold play, makes a mistake, and goes on at random.

Stopped early, it finds its way and often mistakes what is to be done to an ingredient. Some three minutes of a core:

    python -m examples.tiny_text_policy --out runs/tiny-cook
    leafe explore --model local:runs/tiny-cook --env leafe_graph.envs.cookingworld:CookingWorldEnv \
        --prompts leafe_graph.envs.cookingworld:PROMPTS --history 0 --max-tokens 6 \
        --experience-turns 1 --reflect-max-tokens 12 --out runs/cook
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.progress import track

from examples.tiny_policy import Row, Skill, share, teach, tokenized, worded
from leafe_graph.dataset.demonstrate import Episode
from leafe_graph.envs.cookingworld import HORIZON, PROMPTS, CookingWorldEnv, expert, tasks
from leafe_graph.terminal.console import errors
from leafe_graph.types import Task

ADVICE = "Do not {action}"
REFLECTION = ['{"step":', ', "experience": "Do not', '"}']
"""What stands around the step and the action; the tokens with spaces between them are still JSON."""
STATES = {*"closed open raw sliced diced chopped fried roasted grilled north south east west".split()}
"""Words that stand before a name in the view."""
RISKY = {"slice", "dice", "chop", "cook", "eat"}
"""What may lose an ingredient, and the game."""
IDLE = {"look", "inventory", "close", "examine", "put"}
"""What gold play does that the view makes needless, and what teaches nothing."""


def main(given: Sequence[str] | None = None) -> None:
    """Make, teach, save, and say how well it does each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to save the model in")
    parser.add_argument("--games", type=int, default=500, help="training games that are played as gold play does")
    parser.add_argument("--acting-games", type=int, default=500, help="how many of them it is taught to act in")
    parser.add_argument("--mistakes", type=int, default=3, help="attempts with a mistake, a game")
    parser.add_argument("--steps", type=int, default=450, help="how long to teach it, in batches")
    parser.add_argument("--act", type=int, default=40, help="rows of acting in a batch")
    parser.add_argument("--follow", type=int, default=16, help="rows of following an experience in a batch")
    parser.add_argument("--reflect", type=int, default=48, help="rows of reflecting in a batch")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--start", type=int, default=9_000_000, help="where in the training games to begin")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)  # more slow so small a model down
    games = tasks("train", arguments.games, start=arguments.start)
    held_out = max(1, len(games) // 20)
    rng = random.Random(arguments.seed)
    rows = list(lessons(games[held_out:], rng, arguments.acting_games, arguments.mistakes))
    unseen = list(lessons(games[:held_out], rng, held_out, arguments.mistakes))
    texts = [text for _, (prompt, answer) in rows for text in (prompt[-1]["content"], answer)]
    pieces = pieces_of(texts)
    words = sorted({word for text in texts for word in re.findall(pieces, text)} | {str(t) for t in range(HORIZON)})
    tokenizer, model = worded(words, pieces, arguments.width, arguments.layers)
    amounts: dict[Skill, int] = {"act": arguments.act, "follow": arguments.follow, "reflect": arguments.reflect}
    taught = tokenized(tokenizer, iter(rows))
    teach(model, taught, amounts, steps=arguments.steps, rate=arguments.rate, rng=rng, at_once=48)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    parameters = sum(weight.numel() for weight in model.parameters())
    right = ", ".join(f"{skill} {share(model, rows):.0%}" for skill, rows in tokenized(tokenizer, iter(unseen)).items())
    print(f"{parameters:,} parameters; answers as taught in games that it has not seen: {right}")


def pieces_of(texts: Sequence[str]) -> str:
    """What a token is: a phrase of a reflection, a name of several words, a number or a word."""
    names = set()
    for text in texts:
        if text.startswith("Recipe:"):  # what is seen; in what is said a name follows a verb
            for part in re.split(r"[:;,\n()]| with ", text.partition("\n\n")[0]):
                words = part.split()
                while words and words[0] in STATES:
                    words = words[1:]
                names.add(" ".join(words))
    several = sorted((name for name in names if " " in name), key=lambda name: (-len(name), name))
    named = "|".join(re.escape(name) for name in several)
    return "|".join([*map(re.escape, REFLECTION), rf"\b(?:{named})\b", r"\d+", r"[^\s,;:()\"{}]+"])


def lessons(games: list[Task], rng: random.Random, acting: int, mistakes: int) -> Iterator[tuple[Skill, Row]]:
    """In the first games what to do along the gold play; in all what to take back of attempts that leave it."""
    env, pool = CookingWorldEnv(heap_mb=512), ["read cookbook"]  # in the JVM of the gold play
    for number, task in enumerate(track(games, "gold play", console=errors)):
        gold = [action for action in expert(task) if action.split()[0] not in IDLE]
        played, choices = Episode(env, task), []
        for action in gold:
            if action in played.admissible:
                choices.append(played.admissible)
                played.play([action])
        if not played.success:
            continue
        for turn, possible in zip(played.turns, choices, strict=True):
            if number < acting:
                yield "act", (PROMPTS.act_messages(task, [], turn["observation"]), turn["action"])
                told = ADVICE.format(action=other(turn["action"], possible, rng))
                yield "follow", (PROMPTS.act_messages(task, [], turn["observation"], experience=told), turn["action"])
        way = [turn["action"] for turn in played.turns]
        pool = sorted({*pool, *way})
        for _ in range(mistakes):
            attempt = Episode(env, task)
            step = rng.randrange(len(way))
            attempt.play(way[:step])
            risky = [action for action in attempt.admissible if action.split()[0] in RISKY and action != way[step]]
            wrong = risky if risky and rng.random() < 0.6 else attempt.admissible
            attempt.play([other(way[step], wrong, rng)])
            while not attempt.ended and len(attempt.turns) < HORIZON:
                possible = [action for action in attempt.admissible if action.split()[0] not in RISKY | IDLE]
                impossible = [action for action in pool if action not in attempt.admissible]
                attempt.play([rng.choice(impossible if rng.random() < 0.3 else possible)])
            blamed = len(attempt.turns) - 1 if attempt.ended else step
            told = ADVICE.format(action=attempt.turns[blamed]["action"])
            prompt = PROMPTS.reflect_messages(task, attempt.turns, attempt.observation, "failure")
            yield "reflect", (prompt, json.dumps({"step": blamed, "experience": told}))
    env.close()


def other(action: str, choices: Sequence[str], rng: random.Random) -> str:
    """Another action that is possible: mostly one of the kind, or one that may lose the game."""
    others = [choice for choice in choices if choice != action and choice.split()[0] not in IDLE]
    near = [choice for choice in others if choice.split()[0] in RISKY or choice.split()[0] == action.split()[0]]
    return rng.choice(near if near and rng.random() < 0.7 else others or choices)


if __name__ == "__main__":
    main()
