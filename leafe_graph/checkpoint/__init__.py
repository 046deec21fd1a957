"""Where decision points are kept: any of LangGraph's savers, or one of our own; opened, forked from, shrunk.

Floor 4: it may know the floors below, and nothing of trees, agents or runs.
"""

from .open import Checkpoints, open_points, open_saver
from .points import DecisionPoints
from .sqlite import TreeSaver

__all__ = ["Checkpoints", "DecisionPoints", "TreeSaver", "open_points", "open_saver"]
