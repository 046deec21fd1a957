"""What the warm start that comes with the package was taught: its adapter, texts, levels and view."""

from pathlib import Path
from typing import Any

from leafe_graph.env import TextEnv
from leafe_graph.prompts import Prompts

from .env import SokobanEnv

WARM_START = Path(__file__).with_name("warm_start_adapter")
"""The folder of the LoRA adapter for "local:smollm2-135m"."""

PROMPTS = Prompts(
    reflect="{steps}\n{status} What was the mistake? Answer with JSON.", step="{action} -> {feedback} (step {number})"
)
"""Short, and with the step's number where a small model finds it: it copies forward. The warm start learned these.

They are `leafe_graph.prompts.BRIEF` without ``{start}``. An adapter knows the very texts that it was taught, and rows
hold them byte for byte, so both stay."""

LEVELS: dict[str, Any] = {"size": 6, "boxes": 1, "min_moves": 2, "max_moves": 6, "instruction": "Sokoban."}
"""Options of `leafe_graph.envs.sokoban.tasks`: levels within its reach, and the instruction that it was taught."""


def environment() -> TextEnv:
    """The demo's Sokoban: in words, since the model is too small for grids; a stuck box ends the episode."""
    return SokobanEnv(view="words", end_on_deadlock=True)
