"""CookingWorld in few words: what is seen is enough to go on, and a tiny policy can be taught by gold play."""

import json
import random
import re

import needs
import pytest

from leafe_graph.agent.reflection import parse_reflection
from leafe_graph.env.common import Split
from leafe_graph.envs import cookingworld
from leafe_graph.errors import ConfigError
from leafe_graph.testing import check_env


def test_a_cookbook_is_told_an_ingredient_with_what_is_done_to_it() -> None:
    """In the book's order; what is only to be there has nothing behind it."""
    page = (
        "Gather all following ingredients and follow the directions to prepare this tasty meal.\n\nIngredients:\n"
        "  pork chop\n  salt\n  red onion\n\nDirections:\n  chop the pork chop\n  fry the pork chop\n"
        "  dice the red onion\n  prepare meal\n\n"
    )
    assert cookingworld.recipe(page) == "pork chop, chop, fry; salt; red onion, dice"


def test_a_room_is_told_without_what_holds_nothing_and_with_the_way_back() -> None:
    """Tools, what is closed, what is open and empty, and what lies somewhere stay."""
    look = (
        "You are in the kitchen. In one part of the room you see a stove. You also see a fridge that is closed. In "
        "another part of the room you see a counter that has a knife, and some salt on it. There is also an open trash "
        "can, that is empty. You also see An open dishwasher, that contains a banana. In one part of the room you see "
        "a dining chair, that has nothing on it. \n"
        "To the South you see the living room. Through an open door, to the East you see the pantry. "
    )
    assert cookingworld.room(look, "east") == (
        "kitchen: stove; closed fridge; counter with knife, salt; open trash can; open dishwasher with banana\n"
        "south living room, east pantry (back)"
    )


def test_games_of_the_splits_are_far_apart() -> None:
    """No seed is in two of them, and what is not there is refused."""
    splits: tuple[Split, ...] = ("train", "validation", "test")
    assert len({task["seed"] for split in splits for task in cookingworld.tasks(split, 3, start=1)}) == 9
    assert cookingworld.tasks("test", 2)[1] == cookingworld.tasks("test", 1, start=1)[0]
    with pytest.raises(ConfigError, match="cannot give 2 from"):
        cookingworld.tasks("train", 2, start=10_000_000 - 1)


@needs.world("textworld-express")
def test_gold_play_wins_and_the_recipe_stays_in_sight() -> None:
    """From the turn on that read it; the contract holds, replays included."""
    (task,) = cookingworld.tasks("validation", 1)
    env = cookingworld.CookingWorldEnv(heap_mb=512)  # in the JVM of the gold play
    seen, _ = env.reset(seed=task["seed"], options=task["options"])
    assert seen.startswith("Recipe: unread\nCarried: nothing\nkitchen: ")
    gold, read = cookingworld.expert(task), False
    for action in gold:
        seen, _, terminated, _, info = env.step(action)
        read = read or action == "read cookbook"
        assert seen.startswith("Recipe: unread") is not read
    assert terminated and info["success"] and info["feedback"] == "You eat the meal."
    env.close()
    check_env(lambda: cookingworld.CookingWorldEnv(heap_mb=512), tasks=[task], actions=gold, steps=30)


@needs.world("textworld-express")
def test_lessons_of_the_tiny_text_policy_teach_what_gold_play_does() -> None:
    """Advice forbids something else than is answered; a reflection names a step of the attempt, and its action."""
    pytest.importorskip("torch", reason='pip install ".[hf]"')
    from examples.tiny_text_policy import HORIZON, lessons, pieces_of

    rows = list(lessons(cookingworld.tasks("train", 2), random.Random(0), acting=1, mistakes=4))
    assert {skill for skill, _ in rows} == {"act", "follow", "reflect"}
    for skill, (prompt, answer) in rows:
        asked = prompt[-1]["content"]
        if skill == "follow":
            assert answer not in asked.partition("Do not ")[2]
        elif skill == "reflect":
            kind, step, experience = parse_reflection(answer, HORIZON)
            assert kind == "rewind" and f"{experience.removeprefix('Do not ')} {step}\n" in asked
    texts = [text for _, (prompt, answer) in rows for text in (prompt[-1]["content"], answer)]
    said = json.dumps({"step": 7, "experience": "Do not cook pork chop in stove"})
    pieces = pieces_of([*texts, "Recipe: pork chop"])
    assert re.findall(pieces, said) == [
        '{"step":',
        "7",
        ', "experience": "Do not',
        "cook",
        "pork chop",
        "in",
        "stove",
        '"}',
    ]
