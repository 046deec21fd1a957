"""Ways to learn from play: one file a method, each with two verbs, ``collect`` and ``learn``.

A method knows the phases and what they run, never the rounds that play it. To add one: a file with a `Method` (and its
objective, if it trains for one of its own), and its line here.
"""

from ..importing import Named
from .method import Access, Method, Policy, Tasks, Tools

METHODS = Named(
    "method",
    Method,  # type: ignore[type-abstract]
    {
        "leafe": "leafe_graph.methods.leafe:Leafe",
    },
)

__all__ = ["METHODS", "Access", "Method", "Policy", "Tasks", "Tools"]
