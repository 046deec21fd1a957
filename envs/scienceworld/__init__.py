"""ScienceWorld: experiments of elementary school in a simulated house.

It knows env, types, errors and text, the catalogue and `leafe_graph.envs.java`.
"""

from .env import GUIDE, HORIZON, INSTRUCTION, ScienceWorldEnv, expert, tasks
from .simulator import SIMPLIFICATIONS, task_names

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "SIMPLIFICATIONS", "ScienceWorldEnv", "expert", "task_names", "tasks"]
