"""A vLLM server of one's own: started, fed with adapters while it runs, drained and stopped.

Importing it loads nothing heavy.

Floor 5: it may know the floors below, and nothing that plays or trains.
"""

from .config import ServeConfig, ServeSection
from .server import VllmServer

__all__ = ["ServeConfig", "ServeSection", "VllmServer"]
