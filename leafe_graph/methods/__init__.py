"""Ways to learn from play: one file a method, each with two verbs, ``collect`` and ``learn``.

To add one: a file with a `Method` (and its objective, if it trains for one of its own), and its line here.

Floor 8: it may know the floors below, and not the rounds that play it.
"""

from ..importing import Named
from .method import Access, Method, Policy, Reached, Round, Tasks, Tools

METHODS = Named(
    "method",
    Method,  # type: ignore[type-abstract]
    {
        "leafe": "leafe_graph.methods.leafe:Leafe",
        "rejection": "leafe_graph.methods.rejection:Rejection",
        "rehearsal": "leafe_graph.methods.rehearsal:Rehearsal",
        "self_distillation": "leafe_graph.methods.self_distillation:SelfDistillation",
        "on_policy_distillation": "leafe_graph.methods.self_distillation:OnPolicyDistillation",
        "early_experience": "leafe_graph.methods.early_experience:EarlyExperience",
        "self_reflection": "leafe_graph.methods.early_experience:SelfReflection",
        "ace": "leafe_graph.methods.ace:Ace",
        "dpo": "leafe_graph.methods.dpo:Dpo",
        "grpo": "leafe_graph.methods.grpo:Grpo",
        "gigpo": "leafe_graph.methods.grpo:Gigpo",
        "vineppo": "leafe_graph.methods.grpo:Vineppo",
        "r3l": "leafe_graph.methods.grpo:R3l",
    },
)

__all__ = ["METHODS", "Access", "Method", "Policy", "Reached", "Round", "Tasks", "Tools"]
