"""A vLLM server of one's own.

It knows models, processes and files.
"""

from .server import VllmServer

__all__ = ["VllmServer"]
