"""ALFWorld as a text environment: household tasks in a room that has to be searched.

Rules, texts and judgement are those of the packages ``alfworld`` and ``textworld`` (made fast by
`leafe_graph.envs.alfworld.engine`). Where the official games are found, tasks are these; else they are generated (by
`leafe_graph.envs.alfworld.games`).
"""

import functools
import hashlib
import json
import os
import random
import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from leafe_graph.env import Guide
from leafe_graph.env.common import Split, after_reset, check_max_steps, check_split, plain, read_json, stamp
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.types import Task

from ..catalog import ENVS
from .engine import World, load
from .games import TASK_TYPES, VERSION, game_file

GUIDE = Guide(
    role="You are in a room. Search its receptacles and do the task that the first observation names.",
    actions="""Answer one command, with names and numbers as they were shown:
go to (receptacle)
open (receptacle)
close (receptacle)
take (object) from (receptacle)
move (object) to (receptacle)
use (lamp)
heat (object) with (microwave)
cool (object) with (fridge)
clean (object) with (sinkbasin)
examine (receptacle, or object that you carry)
look
inventory
You can carry one object. What is in a closed receptacle is seen once you are there and opened it.
What is not possible is answered "Nothing happens."
""".strip(),
    example="""
Example, for the task "put a hot apple in fridge":
> go to cabinet 1
You arrive at cabinet 1. The cabinet 1 is closed.
> open cabinet 1
You open the cabinet 1. The cabinet 1 is open. In it, you see nothing.
> go to countertop 1
You arrive at countertop 1. On the countertop 1, you see a apple 1, and a knife 1.
> take apple 1 from countertop 1
You pick up the apple 1 from the countertop 1.
> go to microwave 1
You arrive at microwave 1. The microwave 1 is closed.
> heat apple 1 with microwave 1
You heat the apple 1 using the microwave 1.
> go to fridge 1
You arrive at fridge 1. The fridge 1 is closed.
> open fridge 1
You open the fridge 1. The fridge 1 is open. In it, you see nothing.
> move apple 1 to fridge 1
You move the apple 1 to the fridge 1.
""".strip(),
)
"""What a policy is told about it, in pieces."""
INSTRUCTION = str(GUIDE)
"""The instruction of each task, unless another is asked for."""
HORIZON = 50
"""Turns of an episode, as in ALFWorld's own configuration (``max_nb_steps_per_episode: 50``)."""

Source = Literal["official", "generated"]
"""Where games come from; `tasks` says which."""

_FOLDERS: dict[Split, str] = {"train": "train", "validation": "valid_seen", "test": "valid_unseen"}
_NOTHING = "Nothing happens."
_BANNER = "-= Welcome to TextWorld, ALFRED! =-\n\n"


class AlfworldEnv:
    """ALFWorld behind the text environment's door, with exact snapshots.

    Description:
        A kitchen, bedroom, bathroom or living room with receptacles and things in them. A task of one of six types:
        put a thing somewhere, put two of a kind somewhere, clean, heat or cool a thing and put it somewhere, or look at
        a thing under a lamp. Nothing is seen before one goes there, and opens what is closed.
    Action space:
        A command of ALFWorld's grammar: go to, open, close, take … from, move … to, use, heat/cool/clean/slice … with,
        examine, look, inventory, help. Whole and word for word; only spaces around it do not count.
    Observation space:
        Text, as textworld gives it; the first one without its banner.
    Starting state:
        The game of ``options["game"]``, a ``game.tw-pddl`` file, or the generated game of ``options["split"]``,
        ``["task_type"]`` and ``["number"]``; without options a generated game of the train split by the seed.
    Reward:
        1 for the step that reaches the goal, else 0.
    Episode end:
        Terminated when the goal is reached; truncated after ``max_steps``.
    Info:
        ``valid`` (False: "Nothing happens."), ``admissible``, ``success`` at the end.
    Version:
        alfworld 0.4, textworld 1.7 and their Fast Downward; Shridhar et al., ALFWorld, ICLR 2021.

    A snapshot is the operators that led from the game's start to where it stands. Restoring applies them
    again, without a word being derived, in any instance and process; since the world is deterministic, that is exact.

    Args:
        max_steps: the step at which an episode is truncated; None for never.
    """

    def __init__(self, *, max_steps: int | None = None) -> None:
        ENVS["alfworld"].require()
        check_max_steps(max_steps)
        self._max_steps = max_steps
        self._world: World | None = None
        self._release: Any = None
        self._steps = 0
        self._end = "-"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the game that the options name.

        Raises:
            ConfigError: options that name none.
            EnvError: a file that is no game of ALFWorld.
        """
        file = _file(seed, options)
        try:
            game = load(file)
        except (Exception, SystemExit) as error:  # the translator ends the process where it cannot read a file
            raise EnvError(f"{file} is no game of ALFWorld: {type(error).__name__}: {error}") from error
        if self._world is None:
            self._world = World()
            self._release = weakref.finalize(self, self._world.close)
        self._world.start(game)
        self._steps, self._end = 0, "-"
        return game.intro.removeprefix(_BANNER), {"admissible": sorted(self._world.commands)}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do what the command says; one that is not admissible is answered "Nothing happens." and counts as a step."""
        world = self._playing()
        if self._end != "-":
            return self._answer("The episode is over.", False, 0.0)
        self._steps += 1
        feedback = world.do(action.strip())
        if world.won:
            self._end = "success"
        elif self._steps == self._max_steps:
            self._end = "truncated"
        return self._answer(
            _NOTHING if feedback is None else feedback, feedback is not None, float(self._end == "success")
        )

    def _answer(self, feedback: str, valid: bool, reward: float) -> tuple[str, float, bool, bool, dict[str, Any]]:
        info: dict[str, Any] = {"valid": valid, "admissible": sorted(self._playing().commands)}
        if self._end == "success":
            info["success"] = True
        return feedback, reward, self._end == "success", self._end == "truncated", info

    def _playing(self) -> World:
        return after_reset(self._world)

    def snapshot(self) -> bytes:
        """The game's digest, the step counter and the numbers of the operators that were applied."""
        world = self._playing()
        assert world.game is not None
        state = {"alfworld": 1, "game": world.game.digest, "applied": world.applied}
        return json.dumps(state | {"steps": self._steps, "max_steps": self._max_steps, "end": self._end}).encode()

    def anchor(self) -> str:
        """All that is so in the game."""
        return "\n".join(self._playing().holds)

    def restore(self, state: bytes) -> None:
        """Bring back what `snapshot` saved, in any instance that was reset to the same game.

        Raises:
            EnvError: the bytes are not a snapshot of this game.
        """
        world = self._playing()
        assert world.game is not None
        try:
            saved = json.loads(state)
            if saved["alfworld"] != 1 or saved["game"] != world.game.digest:
                raise ValueError("another game, or another version")
            world.start(world.game, saved["applied"])
            self._steps, self._max_steps, self._end = saved["steps"], saved["max_steps"], saved["end"]
        except (ValueError, LookupError, TypeError) as error:
            raise EnvError(f"not a snapshot of this ALFWorld game: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Give the copy of Fast Downward back."""
        if self._release is not None:
            self._release()
        self._world = None


def _file(seed: int | None, options: dict[str, Any] | None) -> Path:
    """The game that the options name, or the seed without options."""
    seed, options = plain(seed), plain(options)
    if not options:
        number = random.randrange(10**6) if seed is None else abs(seed)
        options = {"split": "train", "task_type": TASK_TYPES[number % len(TASK_TYPES)], "number": number}
    if options.keys() == {"game"} and isinstance(options["game"], str):
        return _official_root() / options["game"]
    if options.keys() == {"split", "task_type", "number"}:
        split, task_type, number = options["split"], options["task_type"], options["number"]
        if split in _FOLDERS and task_type in TASK_TYPES and isinstance(number, int) and number >= 0:
            return game_file(split, task_type, number)
    raise ConfigError(
        f"options {options!r} name no game: expected 'game', the path of a game.tw-pddl (relative paths: in "
        f"{_official_root()}), or 'split' ({', '.join(_FOLDERS)}), 'task_type' ({', '.join(TASK_TYPES)}) and "
        "'number', 0 or more"
    )


def _official_root() -> Path:
    """Where the official games are, if they are there."""
    return Path(os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld").expanduser() / "json_2.1.1"


def official_games(split: Split, task_types: Sequence[str] = TASK_TYPES) -> Iterator[str]:
    """The games of an official split that count, as paths relative to ``json_2.1.1``, in an order that mixes the types.

    As the package decides it: no movable receptacle, nothing sliced, one of the six task types, known to be solvable.
    """
    root = _official_root()
    games = (file.relative_to(root).as_posix() for file in (root / _FOLDERS[split]).glob("**/game.tw-pddl"))
    for game in sorted(games, key=lambda game: hashlib.sha256(game.encode()).digest()):
        if "movable" not in game and "Sliced" not in game and _task_type(root / game) in task_types:
            yield game


def _task_type(file: Path) -> str | None:
    """The task type of an official game; None for one that is not known to be solvable."""
    trajectory = file.with_name("traj_data.json")
    return _told_type(file, trajectory, stamp(file), stamp(trajectory)) if trajectory.is_file() else None


@functools.lru_cache(maxsize=8192)
def _told_type(file: Path, trajectory: Path, *stamps: tuple[int, ...]) -> str | None:
    return str(_read(trajectory).get("task_type")) if _read(file).get("solvable") else None


def _read(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, found {type(found).__name__}")
        return found
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; `alfworld-download` fetches the official games") from error


def tasks(
    split: Split,
    n: int,
    *,
    start: int = 0,
    source: Source | None = None,
    task_types: Sequence[str] = TASK_TYPES,
    instruction: str = INSTRUCTION,
) -> list[Task]:
    """``n`` games of a split from number ``start`` on; the same list every time.

    Official games are taken where they are (``train``, ``valid_seen`` and ``valid_unseen`` of
    ``$ALFWORLD_DATA/json_2.1.1``), else generated ones, of which there is any number and which are made when they
    are first played. Generated games take the task types in turn. No game is in two splits. As in ALFWorld, train and
    validation share rooms, with other placements, and test has rooms of its own.

    Args:
        split: "train", "validation" (ALFWorld's valid_seen) or "test" (its valid_unseen).
        n: how many.
        start: how many games of the list are skipped.
        source: "official" or "generated"; None for official games if there are any.
        task_types: some of `TASK_TYPES`.
        instruction: what the agent is told; the task itself is said by the first observation.

    Raises:
        ConfigError: an unknown split, source or task type, or fewer official games than asked for.
    """
    check_split(split)
    if not task_types or not set(task_types) <= set(TASK_TYPES):
        raise ConfigError(f"task_types={list(task_types)}: expected some of {', '.join(TASK_TYPES)}")
    if start < 0:
        raise ConfigError(f"start={start}: expected 0 or more")
    official = _official_root() / _FOLDERS[split]
    if source is None:
        source = "official" if official.is_dir() else "generated"
    if source == "generated":
        return [_generated(split, task_types[i % len(task_types)], i, instruction) for i in range(start, start + n)]
    if source != "official":
        raise ConfigError(f"unknown source {source!r}: expected official, generated, or None")
    games = list(islice(official_games(split, task_types), start, start + n))
    if len(games) < n:
        raise ConfigError(
            f"{official} has {len(games)} such games from start={start} on, asked for {n}; `alfworld-download` fetches "
            'the official games, source="generated" makes any number'
        )
    return [
        {"id": f"alfworld-{Path(game).parent}", "instruction": instruction, "options": {"game": game}} for game in games
    ]


def _generated(split: Split, task_type: str, number: int, instruction: str) -> Task:
    options = {"split": split, "task_type": task_type, "number": number}
    task_id = f"alfworld-{VERSION}-{split}-{task_type}-{number:06d}"
    return {"id": task_id, "instruction": instruction, "options": options}


def expert(task: Task) -> list[str]:
    """The planner's commands; it knows where everything is.

    Raises:
        ConfigError: options that name no game, or one that the planner does not solve.
    """
    ENVS["alfworld"].require()
    file = _file(task.get("seed"), task.get("options"))
    walkthrough: list[str] = _read(file).get("walkthrough") or []
    if "game" in (task.get("options") or {}):  # an official game's may hold random moves, or words of an older grammar
        walkthrough = load(file).walkthrough()
    if not walkthrough:
        raise ConfigError(f"task {task['id']!r}: the planner finds no solution of {file}")
    return walkthrough
