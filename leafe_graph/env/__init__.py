"""The environment's door: the contract, a pool of live instances, environments in processes, Gymnasium's.

Floor 4: it may know the floors below, and no environment.
"""

from .gymnasium_adapter import from_gymnasium, to_gymnasium
from .pool import EnvPool, Place
from .protocol import Guide, SnapshotEnv, TextEnv, snapshot
from .subprocess_env import SubprocessEnv

__all__ = [
    "EnvPool",
    "Guide",
    "Place",
    "SnapshotEnv",
    "SubprocessEnv",
    "TextEnv",
    "from_gymnasium",
    "snapshot",
    "to_gymnasium",
]
