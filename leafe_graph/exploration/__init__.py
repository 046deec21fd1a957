"""Growing experience trees: strategies, the worker, the one writer, pruning.

It knows agent, checkpoint, tree and env.
"""

from .explore import aexplore, explore
from .pruning import prune

__all__ = ["aexplore", "explore", "prune"]
