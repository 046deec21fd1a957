"""What is trained for: one file an objective, and the table of them.

It knows the rows that it weighs and the package's errors; nothing of how rows are read, batched, run or saved. The
trainer asks it, and no other file knows an objective by its name. Importing it needs no torch. To add one: a file with
an `Objective`, and its line here.
"""

from dataclasses import fields

from leafe_graph.importing import Named

from .objective import Objective

OBJECTIVES = Named(
    "objective",
    Objective,  # type: ignore[type-abstract]
    {
        "leafe": "leafe_graph.finetune.objectives.leafe:Leafe",
        "demonstrations": "leafe_graph.finetune.objectives.demonstrations:Demonstrations",
        "rejection": "leafe_graph.finetune.objectives.rejection:Rejection",
        "self_distillation": "leafe_graph.finetune.objectives.self_distillation:SelfDistillation",
        "on_policy_distillation": "leafe_graph.finetune.objectives.self_distillation:OnPolicyDistillation",
        "dpo": "leafe_graph.finetune.objectives.dpo:Dpo",
        "world_model": "leafe_graph.finetune.objectives.early_experience:WorldModel",
        "self_reflection": "leafe_graph.finetune.objectives.early_experience:SelfReflection",
        "grpo": "leafe_graph.finetune.objectives.grpo:Grpo",
    },
)

__all__ = ["OBJECTIVES", "Objective", "objective", "settings_of_others"]


def settings_of_others(name: str) -> set[str]:
    """Settings that objectives have, but not this one."""
    own = {each.name for each in fields(OBJECTIVES.class_of(name))}
    return {each.name for other in OBJECTIVES for each in fields(OBJECTIVES.class_of(other))} - own


def objective(name: str, settings: object) -> Objective:
    """The objective of this name, with those of the settings that it has fields for."""
    kind = OBJECTIVES.class_of(name)
    return kind(**{each.name: getattr(settings, each.name) for each in fields(kind)})
