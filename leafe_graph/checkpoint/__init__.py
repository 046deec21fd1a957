"""Where decision points are kept: LangGraph's savers, and one of our own.

It knows errors and files.
"""

from .sqlite import TreeSaver

__all__ = ["TreeSaver"]
