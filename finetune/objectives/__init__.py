"""What is trained for: one file an objective, and the table of them.

It knows the rows that it weighs and the package's errors; nothing of how rows are read, batched, run or saved. The
trainer asks it, and no other file knows an objective by its name. Importing it needs no torch.
"""

from dataclasses import fields

from .demonstrations import Demonstrations
from .leafe import Leafe
from .objective import Objective

__all__ = ["OBJECTIVES", "Objective", "objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    each.name: each
    for each in (
        Leafe,
        Demonstrations,
    )
}
"""All objectives by name, in the order in which help lists them."""


def objective(name: str, settings: object) -> Objective:
    """The objective of this name, with those of the settings that it has fields for."""
    kind = OBJECTIVES[name]
    return kind(**{each.name: getattr(settings, each.name) for each in fields(kind)})
