"""What the warm start that comes with the package was taught: its adapter, texts, levels and view."""

from pathlib import Path
from typing import Any

from leafe_graph.env.protocol import TextEnv
from leafe_graph.prompts import Prompts

from .. import sokoban

WARM_START = Path(sokoban.__file__).with_name("warm_start_adapter")


PROMPTS = Prompts(
    reflect="{steps}\n{status} What was the mistake? Answer with JSON.", step="{action} -> {feedback} (step {number})"
)
"""Short, and with the step's number where a small model finds it: it copies forward. The warm start learned these."""


LEVELS: dict[str, Any] = {"size": 6, "boxes": 1, "min_moves": 2, "max_moves": 6, "instruction": "Sokoban."}


def environment() -> TextEnv:
    """The demo's Sokoban: in words, since the model is too small for grids; a stuck box ends the episode."""
    return sokoban.SokobanEnv(view="words", end_on_deadlock=True)
