"""A Sokoban state as a list of coordinates, and texts as short: for language models that are made for this game.

A list of coordinates is what RAGEN shows as CoordSokoban. Where a word is a token, a 7×7 room takes ten of them, and an
attempt of forty moves some hundred and thirty.
"""

from leafe_graph.prompts import Prompts

from .levels import State

PROMPTS = Prompts(
    experience="Experience: {experience}",
    reflect="{steps}\n{status} Mistake?",
    step="{action} {feedback} {number}",
    unfinished="Unfinished.",
    failed="Failed.",
)
"""What `examples/tiny_policy.py` teaches. A step's number stands where one that copies forward finds it."""


def coordinates(state: State) -> str:
    """Player, boxes and targets as ``P1,2 X2,3 √3,3 O1,4 O3,3``, then what is inside the outer walls, row by row.

    Coordinates are row and column, both from 0. All targets are told as O; a box on one is √. A row is written in the
    symbols of the grid, with walls alone: ``#__#_``.
    """
    level, player, boxes = state

    def at(symbol: str, cell: int) -> str:
        row, column = divmod(cell, level.width)
        return f"{symbol}{row},{column}"

    things = [at("P", player)]
    things += [at("√" if box in level.targets else "X", box) for box in sorted(boxes)]
    things += [at("O", target) for target in sorted(level.targets)]
    inside = range(1, level.width - 1)
    things += [
        "".join("#" if row * level.width + column in level.walls else "_" for column in inside)
        for row in range(1, level.height - 1)
    ]
    return " ".join(things)
