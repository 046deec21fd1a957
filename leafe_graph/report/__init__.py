"""Runs to look at: pictures of trees, a page, trees as text.

Floor 6: it may know the floors below, and nothing that plays.
"""

from .page import write_overview, write_report
from .transcript import transcript
from .tree_svg import tree_svg

__all__ = ["transcript", "tree_svg", "write_overview", "write_report"]
