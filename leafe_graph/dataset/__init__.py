"""Training rows: from trees, with the proof that no experience is in them, and from experts' play.

It knows tree, env and prompts; never LangGraph.
"""

from .demonstrate import demonstrate
from .examples import Summary, examples
from .export import export

__all__ = ["Summary", "demonstrate", "examples", "export"]
