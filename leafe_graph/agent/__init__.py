"""The state machine: state, context, nodes, model calls, reflection, wiring.

Floor 5: it may know the floors below, and nothing of trees on disk.
"""

from .context import Context
from .graph import create_leafe_agent, create_leafe_graph
from .state import State

__all__ = ["Context", "State", "create_leafe_agent", "create_leafe_graph"]
