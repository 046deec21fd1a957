"""School experiments of ScienceWorld."""

from .env import GUIDE, HORIZON, INSTRUCTION, SIMPLIFICATIONS, ScienceWorldEnv, expert, task_names, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "SIMPLIFICATIONS", "ScienceWorldEnv", "expert", "task_names", "tasks"]
