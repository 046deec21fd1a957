"""The ``leafe`` command: one class a subcommand, and nothing heavy before it is known which.

Floor 11: it may know the floors below.
"""

from .main import main

__all__ = ["main"]
