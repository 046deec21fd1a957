"""Sokoban: push boxes onto targets; the warm start that comes with the package is in `warm_start`.

It knows env, types, errors and prompts.
"""

from .env import GUIDE, HORIZON, INSTRUCTION, SokobanEnv, expert, read_action, split_of, tasks
from .level_files import load_levels
from .levels import ACTIONS, Level, State, canonical, deadlocked, move, parse, render, to_text
from .solver import distance, distances, generate, optimal_actions, solve
from .words import describe

__all__ = [
    "ACTIONS",
    "GUIDE",
    "HORIZON",
    "INSTRUCTION",
    "Level",
    "SokobanEnv",
    "State",
    "canonical",
    "deadlocked",
    "describe",
    "distance",
    "distances",
    "expert",
    "generate",
    "load_levels",
    "move",
    "optimal_actions",
    "parse",
    "read_action",
    "render",
    "solve",
    "split_of",
    "tasks",
    "to_text",
]
