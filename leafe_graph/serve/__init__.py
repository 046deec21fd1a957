"""A vLLM server of one's own: started, fed with adapters while it runs, drained and stopped.

It knows models, processes, settings and errors, and nothing that plays or trains. Importing it loads nothing heavy.
"""

from .config import ServeConfig, ServeSection
from .server import VllmServer

__all__ = ["ServeConfig", "ServeSection", "VllmServer"]
