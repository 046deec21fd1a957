"""ALFWorld games made from what the package brings: its 120 floor plans, domain, grammar, goals and object tables.

A game is named by its split, task type and number, and is the same on every machine. Rooms are the floor plans of
ALFRED: places to put things, and the kinds of things that are there. Where each thing lies and what is to be done is
drawn. Train and validation share the package's 96 training rooms, with games of their own; test has its 24 test rooms.
A game is used only if the planner solves it. It is kept in the user's cache in ALFWorld's own form, so that the package
itself can play it.
"""

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from leafe_graph.errors import EnvError

from .engine import Game
from .fast_downward import cache_dir

VERSION = "v1"
"""Of the generator; a change that makes other games gets another one."""
TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""In the order of ALFWorld's numbers 1 to 6."""
FEWEST, MOST = 10, 25
"""Receptacles of a room: larger floor plans lose cabinets and drawers, smaller ones are not used."""
KINDS = 14
"""Kinds of things that lie about, at most, beside the one that is wanted."""

_ABILITIES = {
    "pick_clean_then_place_in_recep": "Cleanable",
    "pick_heat_then_place_in_recep": "Heatable",
    "pick_cool_then_place_in_recep": "Coolable",
}
_TOOLS = {
    "pick_clean_then_place_in_recep": "SinkBasin",
    "pick_heat_then_place_in_recep": "Microwave",
    "pick_cool_then_place_in_recep": "Fridge",
}
_LAMP = "DeskLamp"
_UNDER_LAMPS = ("Desk", "Dresser", "SideTable")


class Place(NamedTuple):
    """A receptacle."""

    id: str
    kind: str
    location: str
    """Where one stands to use it. Each has its own here; where several share one, as in some official games, going from
    one to the other is answered "Nothing happens."."""


class Thing(NamedTuple):
    """An object, and the receptacle that it is in or on."""

    id: str
    kind: str
    place: Place


class Room(NamedTuple):
    """A floor plan."""

    number: int
    places: list[Place]
    kinds: list[str]
    """Of the things that can be there."""


def game_file(split: str, task_type: str, number: int) -> Path:
    """The ``game.tw-pddl`` of a generated game; made, in about a second, if it is not in the cache."""
    folder = cache_dir() / VERSION / split / f"{task_type}-{number:06d}"
    if not (folder / "game.tw-pddl").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            for name, content in make(split, task_type, number).items():
                (new / name).write_text(json.dumps(content), encoding="utf-8")
            try:
                new.rename(folder)  # whole or not at all
            except OSError:
                if not (folder / "game.tw-pddl").is_file():  # else another process was first
                    raise
    return folder / "game.tw-pddl"


def make(split: str, task_type: str, number: int) -> dict[str, Any]:
    """A game's files by name, in ALFWorld's form.

    Raises:
        EnvError: the planner solved none of 20 drafts.
    """
    rng = random.Random(f"{VERSION} {split} {task_type} {number}")
    rooms = _rooms(split, task_type)
    for _ in range(20):
        game, trajectory = draft(rng.choice(rooms), task_type, rng)
        if walkthrough := Game(game).walkthrough():
            return {
                "game.tw-pddl": game | {"solvable": True, "walkthrough": walkthrough},
                "traj_data.json": trajectory | {"task_id": f"{split}-{task_type}-{number:06d}"},
            }
    raise EnvError(f"no draft of the game {split} {task_type} {number} was solved by the planner")


def draft(room: Room, task_type: str, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """A game in a room, nobody knows whether it can be won, and what ALFWorld says of a game beside it."""
    from alfworld.gen.goal_library import gdict
    from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

    goal, things = _furnish(room, task_type, rng)
    words = {"obj": goal["object_target"], "recep": goal["parent_target"], "toggle": goal["toggle_target"]}
    sentence = rng.choice(gdict[task_type]["templates"]).format(**{key: word.lower() for key, word in words.items()})
    game = {
        "pddl_domain": Path(ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        "grammar": Path(ALFRED_TWL2_PATH).read_text(encoding="utf-8").replace("UNKNOWN GOAL", sentence),
        "pddl_problem": problem(room.places, things, gdict[task_type]["pddl"].format(**words)),
    }
    trajectory = {
        "task_type": task_type,
        "scene": {"floor_plan": f"FloorPlan{room.number}", "scene_num": room.number},
        "pddl_params": goal,
        "turk_annotations": {"anns": [{"task_desc": sentence}]},
    }
    return game, trajectory


@functools.cache
def _rooms(split: str, task_type: str) -> list[Room]:
    """The rooms of a split in which a task of this type can be set."""
    import alfworld.gen.constants as tables

    numbers = tables.TEST_SCENE_NUMBERS if split == "test" else tables.TRAIN_SCENE_NUMBERS
    fitting = {n for scene in tables.GOALS_VALID[task_type] for n in tables.SCENE_TYPE[scene]}
    rooms = [_room(number) for number in numbers if number in fitting]
    return [room for room in rooms if len(room.places) >= FEWEST and _choices(room, task_type)]


@functools.cache
def _room(number: int) -> Room:
    """A floor plan as the package has it, with the receptacles that it names without saying where they are."""
    import alfworld.gen.constants as tables

    layouts = Path(tables.__file__).parent / "layouts"
    points = json.loads((layouts / f"FloorPlan{number}-openable.json").read_text(encoding="utf-8"))
    seen = set(json.loads((layouts / f"FloorPlan{number}-objects.json").read_text(encoding="utf-8")))
    kinds = {}
    for name in sorted(points):
        parts = name.split("|")  # THOR calls a basin Sink|…|SinkBasin
        kinds[name] = parts[-1] if parts[-1].endswith("Basin") else parts[0]
    fixed = set(tables.VAL_RECEPTACLE_OBJECTS) - tables.MOVABLE_RECEPTACLES_SET
    for kind in sorted(seen & fixed - set(kinds.values())):
        for i in range(4 if kind == "StoveBurner" else 1):
            basin = f"|{kind}" if kind.endswith("Basin") else ""
            kinds[f"{kind.removesuffix('Basin')}|+{i:02d}.00|+00.00|+99.00{basin}"] = kind
    places = [
        Place(_id(name), kind, _id(f"loc|{i}|0|0|30"))
        for i, (name, kind) in enumerate(kinds.items())
        if kind in tables.VAL_RECEPTACLE_OBJECTS
    ]
    rng = random.Random(f"{VERSION} room {number}")
    while len(places) > MOST and (spare := [place for place in places if place.kind in ("Cabinet", "Drawer")]):
        places.remove(rng.choice(spare))
    takes = set().union(*(tables.VAL_RECEPTACLE_OBJECTS[place.kind] for place in places))
    return Room(number, places, sorted((seen & takes) | (seen & {_LAMP})))


def _choices(room: Room, task_type: str) -> list[tuple[str, str]]:
    """The wanted kind of thing, and the kind of receptacle or lamp that it is to be brought to."""
    import alfworld.gen.constants as tables

    takes = tables.VAL_RECEPTACLE_OBJECTS
    if task_type == "look_at_obj_in_light":
        if _LAMP not in room.kinds or not any(place.kind in _UNDER_LAMPS for place in room.places):
            return []
        fits = [kind for kind in room.kinds if sum(kind in takes[place.kind] for place in room.places) > 1]
        return [(kind, _LAMP) for kind in fits]  # more than one place, since the lamp's own does not count
    ability, tool = _ABILITIES.get(task_type), _TOOLS.get(task_type)
    if tool and tool not in {place.kind for place in room.places}:
        return []
    able = set(room.kinds) - {_LAMP} if ability is None else tables.VAL_ACTION_OBJECTS[ability] & set(room.kinds)
    return [
        (kind, target)
        for kind in sorted(able)
        for target in sorted({place.kind for place in room.places} - {tool})
        if kind in takes[target]
        and any(kind in takes[place.kind] for place in room.places if place.kind not in (target, tool))
    ]


def _furnish(room: Room, task_type: str, rng: random.Random) -> tuple[dict[str, Any], list[Thing]]:
    """A goal for a room, and things for it; none of the wanted kind is where it is wanted or worked on."""
    import alfworld.gen.constants as tables

    wanted, target = rng.choice(_choices(room, task_type))
    lit = task_type == "look_at_obj_in_light"
    others = [kind for kind in room.kinds if kind not in (wanted, _LAMP)]
    things: list[Thing] = []

    def put(kind: str, places: list[Place]) -> Place:
        place = rng.choice(places)
        x, y, z = (rng.uniform(-4, 4) for _ in range(3))
        things.append(Thing(_id(f"{kind}|{x:+06.2f}|{y:+06.2f}|{z:+06.2f}"), kind, place))
        return place

    avoided: tuple[Any, ...] = (target, _TOOLS.get(task_type))
    if lit:
        avoided = (put(_LAMP, [place for place in room.places if place.kind in _UNDER_LAMPS]),)
    fewest = 2 if task_type == "pick_two_obj_and_place" else 1
    for kind in [wanted, *rng.sample(others, min(KINDS, len(others)))]:
        places = [place for place in room.places if kind in tables.VAL_RECEPTACLE_OBJECTS[place.kind]]
        if kind == wanted:
            places = [place for place in places if place not in avoided and place.kind not in avoided]
        for _ in range(max(rng.choice((1, 1, 2, 3)), fewest if kind == wanted else 1)):
            put(kind, places)
    goal = {
        "object_target": wanted,
        "parent_target": "" if lit else target,
        "toggle_target": target if lit else "",
        "mrecep_target": "",
        "object_sliced": False,
    }
    return goal, things


def _id(name: str) -> str:
    """A name of THOR as ALFWorld writes it in PDDL."""
    for sign, word in (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_")):
        name = name.replace(sign, word)
    return name


def problem(places: list[Place], things: list[Thing], goal: str) -> str:
    """The PDDL of a room, its things and a goal."""
    import alfworld.gen.constants as tables

    start = _id("loc|99|99|0|30")
    facts = [f"(atLocation agent1 {start})", "(= (total-cost) 0)"]
    for place in places:
        facts += [
            f"(receptacleType {place.id} {place.kind}Type)",
            f"(receptacleAtLocation {place.id} {place.location})",
        ]
        if place.kind in tables.OPENABLE_CLASS_SET:
            facts.append(f"(openable {place.id})")
    for thing in things:
        place = thing.place
        facts += [f"(objectType {thing.id} {thing.kind}Type)", f"(inReceptacle {thing.id} {place.id})"]
        facts.append(f"(objectAtLocation {thing.id} {place.location})")
        if thing.kind != _LAMP:
            facts.append(f"(pickupable {thing.id})")
        if thing.kind in tables.MOVABLE_RECEPTACLES_SET:
            facts.append(f"(isReceptacleObject {thing.id})")
        facts += [
            f"({ability.lower()} {thing.id})"
            for ability, kinds in sorted(tables.VAL_ACTION_OBJECTS.items())
            if thing.kind in kinds
        ]
    # The domain names some types, which must exist even where nothing is of them.
    otypes = sorted({thing.kind for thing in things} | {"Knife", "ButterKnife"})
    rtypes = sorted({place.kind for place in places} | {"SinkBasin", "Microwave", "Fridge"})
    holds = tables.VAL_RECEPTACLE_OBJECTS
    facts += [f"(canContain {rtype}Type {otype}Type)" for rtype in rtypes for otype in otypes if otype in holds[rtype]]
    objects = {
        "agent": ["agent1"],
        "object": [thing.id for thing in things],
        "receptacle": [place.id for place in places],
        "location": sorted({place.location for place in places} | {start}),
        "otype": [f"{otype}Type" for otype in otypes],
        "rtype": [f"{rtype}Type" for rtype in rtypes],
    }
    declared = "\n".join(f"{' '.join(names)} - {kind}" for kind, names in objects.items())
    stated = "\n".join(facts)
    goal = goal.replace("#", "-")  # as the goal library is written
    return f"(define (problem room)\n(:domain alfred)\n(:objects\n{declared}\n)\n(:init\n{stated}\n)\n{goal}"
