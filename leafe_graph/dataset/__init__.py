"""Training rows: from trees, with the proof that no experience is in them, and from experts' play.

Floor 5: it may know the floors below, and never LangGraph.
"""

from .demonstrate import demonstrate
from .examples import examples
from .export import export
from .summary import Summary

__all__ = ["Summary", "demonstrate", "examples", "export"]
