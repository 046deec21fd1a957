"""Training rows: from trees, with the proof that no experience is in them, and from experts' play.

Floor 5: it may know the floors below, and never LangGraph.
"""

from .demonstrate import demonstrate
from .examples import Summary, examples
from .export import export

__all__ = ["Summary", "demonstrate", "examples", "export"]
