"""Ways to learn from play: one file a method, each with two verbs, ``collect`` and ``learn``.

To add one: a file with a `Method` (and its objective, if it trains for one of its own), and its line here.

Floor 8: it may know the floors below, and not the rounds that play it.
"""

from ..importing import Named
from .method import Access, Method, Policy, Reached, Tasks, Tools

METHODS = Named(
    "method",
    Method,  # type: ignore[type-abstract]
    {
        "leafe": "leafe_graph.methods.leafe:Leafe",
    },
)

__all__ = ["METHODS", "Access", "Method", "Policy", "Reached", "Tasks", "Tools"]
