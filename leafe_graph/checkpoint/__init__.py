"""Where decision points are kept: in any of LangGraph's savers, or in one of our own on SQLite or PostgreSQL.

Floor 4: it may know the floors below, and nothing of trees, agents or runs.
"""

from .open import Checkpoints, open_points, open_saver
from .points import DecisionPoints
from .postgres import PostgresTreeSaver
from .sqlite import TreeSaver

__all__ = ["Checkpoints", "DecisionPoints", "PostgresTreeSaver", "TreeSaver", "open_points", "open_saver"]
