"""ALFWorld: household tasks in a room that has to be searched.

It knows env, types, errors and files, and the catalogue.
"""

from .env import GUIDE, HORIZON, INSTRUCTION, AlfworldEnv, expert, official_games, tasks
from .games import TASK_TYPES

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "TASK_TYPES", "AlfworldEnv", "expert", "official_games", "tasks"]
