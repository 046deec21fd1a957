"""Which branch of a task's tree comes next: one file a strategy.

To add one: a file with a `Strategy`, and its line here.

Floor 4: it may know the floors below, and nothing that plays.
"""

from ..importing import Named
from .strategy import Request, Strategy, next_request, waiting

STRATEGIES = Named(
    "strategy",
    Strategy,  # type: ignore[type-abstract]
    {
        "leafe": "leafe_graph.strategies.leafe:Leafe",
        "independent": "leafe_graph.strategies.independent:Independent",
        "lats": "leafe_graph.strategies.lats:Lats",
        "refine": "leafe_graph.strategies.refine:Refine",
        "reflexion": "leafe_graph.strategies.reflexion:Reflexion",
        "restart": "leafe_graph.strategies.restart:Restart",
        "rewind": "leafe_graph.strategies.rewind:Rewind",
        "vine": "leafe_graph.strategies.vine:Vine",
    },
)

__all__ = ["STRATEGIES", "Request", "Strategy", "next_request", "waiting"]
