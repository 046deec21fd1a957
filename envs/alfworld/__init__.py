"""Household tasks of ALFWorld."""

from .env import GUIDE, HORIZON, INSTRUCTION, TASK_TYPES, AlfworldEnv, expert, official_games, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "TASK_TYPES", "AlfworldEnv", "expert", "official_games", "tasks"]
