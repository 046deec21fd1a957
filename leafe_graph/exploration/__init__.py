"""Growing experience trees: a worker, the one writer, pruning.

Floor 6: it may know the floors below, and no rows, training or judging.
"""

from .explore import aexplore, explore
from .explore_agent import aexplore_agent, explore_agent
from .pruning import prune

__all__ = ["aexplore", "aexplore_agent", "explore", "explore_agent", "prune"]
