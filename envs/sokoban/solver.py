"""Playing Sokoban backwards: optimal distances and rooms of a wanted difficulty; forwards: single solutions.

Moves are counted, not pushes. Rooms with one or two boxes have a few thousand states, so all their distances are
tabulated at once and any state can be labelled with its optimal actions.
"""

from functools import lru_cache
from math import comb
from random import Random
from typing import Any

from leafe_graph.env.common import plain
from leafe_graph.errors import ConfigError

from .levels import ACTIONS, Level, State, enclosed, move, parse

_At = tuple[int, frozenset[int]]


def layers(level: Level, *, depth: int | None = None, limit: int = 300_000) -> list[list[int]]:
    """States by their distance from the nearest solved one, found by playing backwards (pulling boxes).

    Entry ``d`` holds the states that need exactly ``d`` moves, each as an integer (see `code`). It ends with entry
    ``depth``, with the entry that makes it more than ``limit`` states, or when no other state can be solved.
    """
    cells = level.width * level.height
    pulls: dict[int, list[tuple[int, int, int, int]]] = {}
    for cell in level.floor:
        sides = ((cell - step, cell + step) for step in level.steps.values())
        pulls[cell] = [
            (back, 1 << back, 0 if ahead in level.walls else 1 << ahead, 1 << cell)
            for back, ahead in sides
            if back not in level.walls
        ]
    solved = sum(1 << target for target in level.targets)
    frontier = [solved * cells + cell for cell in level.floor if cell not in level.targets]
    seen = set(frontier)
    result = []
    while frontier:
        result.append(frontier)
        if len(seen) > limit or (depth is not None and len(result) > depth):
            break
        following: list[int] = []
        for at in frontier:
            boxes, player = divmod(at, cells)
            for back, back_bit, ahead_bit, here_bit in pulls[player]:
                if boxes & back_bit:
                    continue
                before = boxes * cells + back
                if before not in seen:
                    seen.add(before)
                    following.append(before)
                if boxes & ahead_bit:
                    before = (boxes ^ ahead_bit | here_bit) * cells + back
                    if before not in seen:
                        seen.add(before)
                        following.append(before)
        frontier = following
    return result


def code(state: State) -> int:
    """A state as an integer that is unique within its level."""
    cells = state.level.width * state.level.height
    return sum(1 << box for box in state.boxes) * cells + state.player


def decode(level: Level, number: int) -> State:
    """The state that `code` made ``number`` of."""
    boxes, player = divmod(number, level.width * level.height)
    return State(level, player, frozenset(cell for cell in level.floor if boxes >> cell & 1))


@lru_cache(maxsize=32)
def distances(level: Level, limit: int = 1_000_000) -> dict[int, int]:
    """For every solvable state of a level (as `code`) the number of moves that an optimal solution takes.

    Raises:
        ConfigError: the room is too big for this; `solve` may still manage.
    """
    floor, boxes = len(level.floor), len(level.targets)
    if (states := comb(floor, boxes) * (floor - boxes)) > limit:
        raise ConfigError(f"{states} states in this level, at most {limit} are tabulated: use solve for a single one")
    return {number: depth for depth, layer in enumerate(layers(level, limit=limit)) for number in layer}


def distance(state: State) -> int | None:
    """Moves of an optimal solution from here; None where the level can no longer be solved."""
    return distances(state.level).get(code(state))


def optimal_actions(state: State) -> list[str]:
    """Every action that begins an optimal solution; none where the state is solved or cannot be."""
    here = distance(state)
    return [action for action in ACTIONS if here and distance(move(state, action)[0]) == here - 1]


def solve(level: State | str, *, limit: int = 500_000) -> list[str] | None:
    """A shortest solution in moves by breadth-first search, or None where there is none.

    Raises:
        ConfigError: not decided after ``limit`` states.
    """
    start = parse(level) if isinstance(level, str) else level
    if start.solved:
        return []
    room = start.level
    came: dict[_At, tuple[_At, str] | None] = {start[1:]: None}
    queue = [start[1:]]
    for player, boxes in queue:  # the list grows while it is read: a queue
        for action, step in room.steps.items():
            to, after = player + step, boxes
            if to in room.walls:
                continue
            if to in boxes:
                beyond = to + step
                if beyond in boxes or beyond in room.walls or beyond in room.dead:
                    continue
                after = boxes - {to} | {beyond}
            if (to, after) in came:
                continue
            came[to, after] = ((player, boxes), action)
            if after <= room.targets:
                return _path(came, (to, after))
            queue.append((to, after))
        if len(came) > limit:
            raise ConfigError(f"not solved within {limit} states: raise limit")
    return None


def _path(came: dict[_At, tuple[_At, str] | None], at: _At) -> list[str]:
    """The actions that lead to ``at``."""
    actions: list[str] = []
    while (step := came[at]) is not None:
        at, action = step
        actions.append(action)
    return actions[::-1]


def dimensions(size: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height from one number for both, or from a pair."""
    size = plain(size)
    pair = [size, size] if isinstance(size, int) else list(size)
    if len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise ConfigError(f"size={size!r}: expected a whole number or a pair of them (width, height)")
    return pair[0], pair[1]


def generate(
    seed: int | None,
    *,
    size: int | tuple[int, int] = 6,
    boxes: int = 1,
    min_moves: int = 3,
    max_moves: int = 10,
    tries: int = 300,
) -> State:
    """A solvable room, the same for the same seed in every Python version.

    Random inner walls and targets make a solved room. Playing backwards from it, exhaustively, gives the states that
    need ``min_moves`` to ``max_moves`` moves; a number of moves is drawn first, then one of its states. A room without
    any is thrown away and another one is drawn from the same seed.

    Raises:
        ConfigError: the parameters cannot be, ``tries`` rooms had no such state, or there are too many to search.
    """
    width, height = dimensions(size)
    wanted = f"a {width}x{height} room with boxes={boxes}, min_moves={min_moves}, max_moves={max_moves}"
    cells = (width - 2) * (height - 2) if min(width, height) > 2 else 0
    if boxes < 1 or cells < boxes + 2:
        raise ConfigError(f"no place for {wanted}: {cells} squares within the walls, expected at least boxes + 2")
    if not 1 <= min_moves <= max_moves:
        raise ConfigError(f"{wanted}: expected 1 <= min_moves <= max_moves")
    random = Random(plain(seed)).random  # the only method whose numbers are promised to stay the same
    for _ in range(tries):
        level = _room(random, width, height, boxes)
        if level is None:
            continue
        found = layers(level, depth=max_moves)
        if sum(map(len, found)) > 300_000 and len(found) <= min_moves:
            raise ConfigError(f"too many states to search for {wanted}: use fewer moves, fewer boxes or a smaller room")
        if found := found[min_moves:]:
            layer = found[int(random() * len(found))]
            return decode(level, layer[int(random() * len(layer))])
    raise ConfigError(f"{tries} rooms tried, none is {wanted}: allow other numbers of moves or another size")


def _room(random: Any, width: int, height: int, boxes: int) -> Level | None:
    """A connected room with random inner walls and targets; None where too little of it is connected."""
    density = 0.1 + 0.3 * random()
    inner = [y * width + x for y in range(1, height - 1) for x in range(1, width - 1)]
    floor = {cell for cell in inner if random() >= density}
    walls = set(range(width * height)) - floor
    if len(floor) < boxes + 2:
        return None
    start = sorted(floor)[int(random() * len(floor))]
    cells = sorted(enclosed(start, width, height, walls))
    if len(cells) < max(boxes + 2, len(inner) // 2):
        return None
    targets: set[int] = set()
    while len(targets) < boxes:
        targets.add(cells[int(random() * len(cells))])
    return Level(width, height, frozenset(range(width * height)) - frozenset(cells), frozenset(targets))
