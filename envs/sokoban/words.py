"""A Sokoban state in words, for language models that are too small to read a grid."""

from collections.abc import Iterable

from .levels import ACTIONS, State


def describe(state: State) -> str:
    """What surrounds the player and the boxes: far fewer tokens than a grid, and relations instead of positions.

    A way is told move by move ("right right up": two right and one up, walls left aside). Line one has the directions
    in which the next cell is empty. Then for each box, nearest first: the way to it from the player, the directions in
    which it could be pushed (the cell beyond and the cell to push from hold no wall or box), and the way from it to the
    nearest target. Walls further away are not told: the words show less than the grid.
    """
    level, player, boxes = state

    def empty(cell: int) -> bool:
        return cell not in level.walls and cell not in boxes

    def way(start: int, end: int) -> list[str]:
        (y0, x0), (y1, x1) = divmod(start, level.width), divmod(end, level.width)
        across = ["right"] * (x1 - x0) or ["left"] * (x0 - x1)
        return across + (["down"] * (y1 - y0) or ["up"] * (y0 - y1))

    def line(name: str, directions: Iterable[str]) -> str:
        return f"{name}: {' '.join(directions) or 'none'}"

    lines = [line("free", (a for a in ACTIONS if empty(player + level.steps[a])))]
    for box in sorted(boxes, key=lambda box: (len(way(player, box)), box)):
        target = min(level.targets, key=lambda target: (len(way(box, target)), target))
        lines += [
            line("box", way(player, box)),
            line("push", (a for a in ACTIONS if empty(box + level.steps[a]) and empty(box - level.steps[a]))),
            line("target", way(box, target) or ["here"]),
        ]
    return "\n".join(lines)
