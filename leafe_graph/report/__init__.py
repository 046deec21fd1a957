"""Runs to look at: pictures of trees, a page, trees as text.

It knows tree, evaluation and files.
"""

from .page import write_report
from .transcript import transcript
from .tree_svg import tree_svg

__all__ = ["transcript", "tree_svg", "write_report"]
