"""Judging policies: unbiased Pass@k over independent samples, with intervals, and two policies paired.

Floor 5: it may know the floors below, and never LangGraph.
"""

from .compare import Comparison, compare
from .panel import Entry, Panel, panel
from .plots import plot, table
from .random_policy import random_policy
from .results import Result, pass_at_k, result_from_branches, result_from_run

__all__ = [
    "Comparison",
    "Entry",
    "Panel",
    "Result",
    "compare",
    "panel",
    "pass_at_k",
    "plot",
    "random_policy",
    "result_from_branches",
    "result_from_run",
    "table",
]
