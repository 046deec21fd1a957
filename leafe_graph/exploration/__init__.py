"""Growing experience trees: a worker, the one writer, pruning.

Floor 6: it may know the floors below, and no rows, training or judging.
"""

from .explore import aexplore, explore
from .pruning import prune

__all__ = ["aexplore", "explore", "prune"]
