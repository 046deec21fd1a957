"""Sokoban's rules and texts on plain immutable data.

A `Level` is what never changes (walls, targets), a `State` is a level with the player and the boxes in it. Cells are
numbered row by row from 0: ``cell = row * width + column``. Nothing here is random and nothing keeps hidden state.

Two texts are read: the field's symbols ``# _ O √ X P S`` (wall, floor, target, box on target, box, player, player on
target; as in RAGEN and verl-agent), with or without spaces between the cells, and the usual level format
``# @ + $ * .`` with a space, ``-`` or ``_`` for floor.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from leafe_graph.errors import ConfigError

ACTIONS = ("up", "down", "left", "right")
"""The four actions, in the order in which searches try them."""

_FIELD = {"wall": "#", "floor": "_", "target": "O", "box_on": "√", "box": "X", "player": "P", "player_on": "S"}
_USUAL = {"wall": "#", "floor": " ", "target": ".", "box_on": "*", "box": "$", "player": "@", "player_on": "+"}
_READ_FIELD = {symbol: thing for thing, symbol in _FIELD.items()}
_READ_USUAL = {symbol: thing for thing, symbol in _USUAL.items()} | {"-": "floor", "_": "floor"}


@dataclass(frozen=True)
class Level:
    """Walls and targets of a room."""

    width: int
    height: int
    walls: frozenset[int]
    targets: frozenset[int]

    @cached_property
    def steps(self) -> dict[str, int]:
        """What each action adds to a cell's number."""
        return dict(zip(ACTIONS, (-self.width, self.width, -1, 1), strict=True))

    @cached_property
    def floor(self) -> tuple[int, ...]:
        """Cells that are not walls, in order."""
        return tuple(cell for cell in range(self.width * self.height) if cell not in self.walls)

    @cached_property
    def dead(self) -> frozenset[int]:
        """Squares from which no push sequence brings a box to any target, even in an otherwise empty room."""
        alive = set(self.targets)
        todo = list(alive)
        while todo:
            cell = todo.pop()
            for step in self.steps.values():  # pull the box one square: the player needs the square behind it
                box, player = cell + step, cell + 2 * step
                if box not in self.walls and player not in self.walls and box not in alive:
                    alive.add(box)
                    todo.append(box)
        return frozenset(self.floor) - alive

    @cached_property
    def _canvas(self) -> list[str]:
        """The empty room's symbols with the separators between them: cell ``c`` is at ``2 * c``."""
        symbols: list[str] = []
        for cell in range(self.width * self.height):
            symbols.append("#" if cell in self.walls else "O" if cell in self.targets else "_")
            symbols.append("\n" if (cell + 1) % self.width == 0 else " ")
        return symbols[:-1]


class State(NamedTuple):
    """A level with the player and the boxes in it."""

    level: Level
    player: int
    boxes: frozenset[int]

    @property
    def solved(self) -> bool:
        """Whether every box is on a target."""
        return self.boxes <= self.level.targets


def parse(text: str, *, where: str = "level", line: int = 1) -> State:
    """Read one level; squares that the player can never reach become walls unless a box or a target is on them.

    ``where`` and ``line`` (1-based number of the text's first line) are for the error's words.

    Raises:
        ConfigError: an unknown symbol, not exactly one player, no box, not as many boxes as targets, or a way out.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{where}: expected the level's text, got {type(text).__name__}")
    rows = [row.rstrip() for row in text.splitlines()]
    if any(symbol in "OXPS√" for symbol in text):
        read, rows = _READ_FIELD, ["".join(row.split()) for row in rows]
    else:
        read = _READ_USUAL
    while rows and not rows[0]:
        rows, line = rows[1:], line + 1
    while rows and not rows[-1]:
        rows.pop()
    width = max(map(len, rows), default=0)
    found: dict[str, set[int]] = {thing: set() for thing in _FIELD}
    for y, row in enumerate(rows):
        for x in range(width):
            thing = read.get(row[x]) if x < len(row) else "floor"
            if thing is None:
                raise ConfigError(
                    f"{where}, line {line + y}, column {x + 1}: {row[x]!r} is not a Sokoban symbol; "
                    f"expected one of {' '.join(read)!r}"
                )
            found[thing].add(y * width + x)
    players = found["player"] | found["player_on"]
    boxes = frozenset(found["box"] | found["box_on"])
    targets = frozenset(found["target"] | found["box_on"] | found["player_on"])
    if len(players) != 1:
        raise ConfigError(f"{where}, line {line}: {len(players)} players in the level, expected one (@, +, P or S)")
    if not boxes or len(boxes) != len(targets):
        raise ConfigError(
            f"{where}, line {line}: {len(boxes)} boxes and {len(targets)} targets in the level, "
            "expected as many boxes as targets and at least one"
        )
    (player,) = players
    reached = enclosed(player, width, len(rows), found["wall"])
    kept = reached | boxes | targets
    for cell in sorted(kept):
        y, x = divmod(cell, width)
        if y in (0, len(rows) - 1) or x in (0, width - 1):
            raise ConfigError(f"{where}, line {line + y}, column {x + 1}: the room is open here; close it with #")
    walls = frozenset(cell for cell in range(width * len(rows)) if cell not in kept)
    return State(Level(width, len(rows), walls, targets), player, boxes)


def unsolved(text: str, *, where: str = "level", line: int = 1) -> State:
    """A level, as `parse` reads it, that there is something to do in.

    Raises:
        ConfigError: as `parse`; or every box is on a target.
    """
    state = parse(text, where=where, line=line)
    if state.solved:
        raise ConfigError(f"{where}, line {line}: every box is on a target already: there is nothing to play")
    return state


def enclosed(start: int, width: int, height: int, walls: set[int]) -> set[int]:
    """Cells that are connected to ``start`` within the grid."""
    reached, todo = {start}, [start]
    while todo:
        cell = todo.pop()
        x = cell % width
        for near in (cell - width, cell + width, cell - 1 if x else -1, cell + 1 if x + 1 < width else -1):
            if 0 <= near < width * height and near not in walls and near not in reached:
                reached.add(near)
                todo.append(near)
    return reached


def render(state: State) -> str:
    """The field's symbols, one space between cells (so that BPE tokenizers give each its own token)."""
    level, player, boxes = state
    symbols = level._canvas.copy()
    for box in boxes:
        symbols[2 * box] = "√" if box in level.targets else "X"
    symbols[2 * player] = "S" if player in level.targets else "P"
    return "".join(symbols)


_TO_USUAL = str.maketrans({_FIELD[thing]: _USUAL[thing] for thing in _FIELD})


def to_text(state: State) -> str:
    """The usual level format, one character a cell."""
    return "\n".join(row[::2].translate(_TO_USUAL) for row in render(state).split("\n"))


def move(state: State, action: str) -> tuple[State, str]:
    """The next state and a few words on what happened; the very same state object where nothing moved."""
    level, player, boxes = state
    step = level.steps[action]
    to = player + step
    if to in level.walls:
        return state, "blocked by wall"
    if to not in boxes:
        return State(level, to, boxes), "moved"
    beyond = to + step
    if beyond in level.walls:
        return state, "blocked: box against wall"
    if beyond in boxes:
        return state, "blocked: two boxes in a row"
    after = State(level, to, boxes - {to} | {beyond})
    if after.solved:
        return after, "solved"
    if stuck := _stuck(after, beyond):
        return after, f"{stuck}: deadlock"
    if beyond in level.targets:
        return after, "box on target"
    return after, "box off target" if to in level.targets else "pushed box"


def _stuck(state: State, box: int) -> str:
    """Why this box makes the level unsolvable, or nothing where that is not known."""
    level, _, boxes = state
    up, down, left, right = level.steps.values()
    walls = level.walls
    if box in level.dead:
        vertical = box + up in walls or box + down in walls
        horizontal = box + left in walls or box + right in walls
        if vertical and horizontal:
            return "box stuck in corner"
        return "box stuck at wall" if vertical or horizontal else "box stuck"
    for y in (up, down):  # a square of four that are all walls or boxes never moves again
        for x in (left, right):
            square = (box, box + x, box + y, box + x + y)
            if all(cell in walls or cell in boxes for cell in square) and any(
                cell in boxes and cell not in level.targets for cell in square
            ):
                return "boxes stuck together"
    return ""


def deadlocked(state: State) -> bool:
    """Whether a box stands where it makes the level unsolvable; False does not promise that it can be solved."""
    return not state.solved and any(_stuck(state, box) for box in state.boxes)


def canonical(state: State, *, room_only: bool = False) -> str:
    """The smallest text among the eight rotations and reflections, cropped to what is inside the walls.

    With ``room_only`` player and boxes are left out: equal for any two states of the same room.
    """
    level = state.level
    text = "".join(level._canvas) if room_only else render(state)
    rows = [row[::2] for row in text.split("\n")]
    ys = [cell // level.width for cell in level.floor]
    xs = [cell % level.width for cell in level.floor]
    rows = [row[min(xs) : max(xs) + 1] for row in rows[min(ys) : max(ys) + 1]]
    images = []
    for _ in range(4):
        rows = ["".join(column) for column in zip(*rows[::-1], strict=True)]  # a quarter turn
        images += ["\n".join(rows), "\n".join(row[::-1] for row in rows)]
    return min(images)


def room_hash(state: State) -> int:
    """A hash of the room up to rotation and reflection that is the same in every process and Python version."""
    return int.from_bytes(hashlib.sha256(canonical(state, room_only=True).encode()).digest()[:8], "big")
