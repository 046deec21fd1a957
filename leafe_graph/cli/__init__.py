"""The ``leafe`` command: one class a subcommand, and nothing heavy before it is known which.

Floor 10: it may know the floors below.
"""

from .main import main

__all__ = ["main"]
