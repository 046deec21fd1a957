"""What tests of environments and agents need: conformance checks, tiny worlds, a model that follows a script.

Everything is deterministic: the worlds in task and actions, the model in the messages and the seed of the call.

Floor 6: it may know the floors below.
"""

from .check_env import check_env
from .check_saver import check_saver
from .check_world import check_world
from .grid_world import GridWorld, SnapshotGridWorld, grid_tasks
from .scripted_model import ScriptedModel, random_reply

__all__ = [
    "GridWorld",
    "ScriptedModel",
    "SnapshotGridWorld",
    "check_env",
    "check_saver",
    "check_world",
    "grid_tasks",
    "random_reply",
]
