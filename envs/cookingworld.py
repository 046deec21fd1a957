"""CookingWorld of TextWorldExpress with its state told in a few words: for language models made for this game.

The simulator tells what an action did; a player has to remember the recipe, what it carries and where it came from.
Here each observation tells all of that, so that a policy needs no history, and a room takes some thirty words in place
of a hundred and twenty. The game, its actions and its rewards are the package's: cutting or cooking an ingredient in a
way that the recipe does not say, or eating one, loses it at once.
"""

import re
from typing import Any

from leafe_graph.env.common import Split, check_split
from leafe_graph.errors import ConfigError
from leafe_graph.prompts import Prompts
from leafe_graph.types import Task

from .textworld_express import INSTRUCTION, TextWorldExpressEnv, expert

__all__ = ["HORIZON", "PARAMS", "PROMPTS", "CookingWorldEnv", "expert", "tasks"]

HORIZON = 50
"""Turns of an episode; gold play takes 11 to 34."""
PARAMS = {"numLocations": 4, "numIngredients": 3, "numDistractorItems": 2, "includeDoors": 0, "limitInventorySize": 0}
"""The package's parameters: three ingredients, four rooms without doors, two things to eat that are not needed; the
inventory holds anything."""
PROMPTS = Prompts(
    experience="Experience: {experience}",
    reflect="{steps}\n{status} Mistake?",
    step="{action} {number}",
    unfinished="Unfinished.",
    failed="Failed.",
)
"""What `examples/tiny_text_policy.py` teaches. A step's number stands where one that copies forward finds it."""

_STARTS: dict[Split, int] = {"train": 0, "validation": 10_000_000, "test": 20_000_000}
_BACK = {"north": "south", "south": "north", "east": "west", "west": "east"}
_ARTICLE = re.compile(r"^(?:an?|some|the) ", re.IGNORECASE)


class CookingWorldEnv(TextWorldExpressEnv):
    """CookingWorld, seen so that one can go on without a history.

    Action space, reward, episode end and info are those of
    `leafe_graph.envs.textworld_express.TextWorldExpressEnv`; ``info["feedback"]`` is its answer's first sentence.

    Observation space:
        Four lines: the recipe, once it was read, an ingredient with what is to be done to it; what is carried; the room
        with what is in it, but for things that hold nothing; the ways out, with the one that leads back. The state of
        the game and the last move decide on it.

    Args:
        max_steps: the step at which an episode is truncated; None for never.
        heap_mb: bound of the JVM's heap in MB; a game takes 0.2 MB, and judging plays some thousand at once.
    """

    instant = True

    def __init__(self, *, max_steps: int | None = None, heap_mb: int = 2048) -> None:
        super().__init__(game="cookingworld", params=PARAMS, max_steps=max_steps, heap_mb=heap_mb)
        self._recipe = self._back = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Generate a game; no seed is seed 0."""
        _, info = super().reset(seed=seed, options=options)
        self._recipe, self._back = "unread", ""
        return self._seen(info), info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act."""
        answer, reward, terminated, truncated, info = super().step(action)
        if answer.startswith("Gather all"):
            self._recipe = recipe(answer)
        elif answer.startswith("You are in") and action.startswith("move "):
            self._back = _BACK[action.removeprefix("move ").strip()]
        info["feedback"] = answer.partition(".")[0] + "."
        return self._seen(info), reward, terminated, truncated, info

    def _seen(self, info: dict[str, Any]) -> str:
        carried = [_bare(line.strip()) for line in info["inventory"].splitlines()[1:] if line.strip()]
        if carried[:1] == ["Your inventory is currently empty."]:
            carried = ["nothing"]
        return f"Recipe: {self._recipe}\nCarried: {', '.join(carried)}\n{room(info['look'], self._back)}"


def recipe(text: str) -> str:
    """A cookbook's page as ``salt; chicken wing, grill; block of cheese, dice, grill``."""
    ingredients, _, directions = text.partition("Directions:")
    steps = [line.strip().partition(" the ") for line in directions.splitlines()]
    names = [line.strip() for line in ingredients.partition("Ingredients:")[2].splitlines() if line.strip()]
    return "; ".join(", ".join([name, *(verb for verb, _, what in steps if what == name)]) for name in names)


def room(look: str, back: str = "") -> str:
    """A room as ``kitchen: stove; closed fridge; counter with knife, cookbook``, and the ways out below it."""
    inside, _, ways = look.strip().partition("\n")
    where, *sentences = re.split(r"(?<=\.)\s+", inside.strip())
    things = []
    for sentence in sentences:
        what = _bare(
            re.sub(r"^.*?(?:you see|there is also|you also see) ", "", sentence.rstrip("."), flags=re.IGNORECASE)
        )
        thing, _, held = re.sub(r"(?:,? that (?:has|contains)|, that is) ", "\0", what).partition("\0")
        if thing.endswith(" that is closed"):
            things.append("closed " + thing.removesuffix(" that is closed"))
        elif held in ("", "empty"):
            things.append(thing)
        elif held != "nothing on it":
            names = re.split(r", and |, | and ", held.removesuffix(" on it"))
            things.append(f"{thing} with {', '.join(map(_bare, names))}")
    exits = re.findall(r"the (North|South|East|West) you see (?:the )?([^.]*)\.", ways)
    told = [f"{way.lower()} {_bare(leads)}" + " (back)" * (way.lower() == back) for way, leads in exits]
    return f"{where.removeprefix('You are in the ').rstrip('.')}: {'; '.join(things)}\n{', '.join(told)}"


def _bare(name: str) -> str:
    """A thing without its article."""
    return _ARTICLE.sub("", name)


def tasks(split: Split, n: int, *, start: int = 0, instruction: str = INSTRUCTION) -> list[Task]:
    """``n`` games of a split; the same list every time.

    The games of all splits are made of the package's training objects, from seeds that are far apart: a policy that has
    learned its words from play knows no others. The package's own test games have ingredients of their own, and are
    played by `leafe_graph.envs.textworld_express`.

    Args:
        split: "train", "validation" or "test".
        n: how many.
        start: how many to skip.
        instruction: what the policy is told.

    Raises:
        ConfigError: no such split, or a number below 0.
    """
    check_split(split)
    if start < 0 or n < 0 or start + n > 10_000_000:
        raise ConfigError(f"{split} has 10000000 games; cannot give {n} from start={start} on")
    return [
        {
            "id": f"cookingworld-{split}-{number:07d}",
            "instruction": instruction,
            "seed": _STARTS[split] + number,
            "options": {"game": "cookingworld", "split": "train", "params": PARAMS},
        }
        for number in range(start, start + n)
    ]
