"""Settings, each defined once."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds one task's tree, beside the budget."""

    max_branches: int = 16
    """Branches in all, roots included."""
    max_depth: int = 4
    """Rewinds between a root and a leaf."""
    branches_per_reflection: int = 1
    """Branches forked from one decision point for one reflection."""
    max_roots: int | None = None
    """Rollouts from the start; None: a new one whenever no request waits."""
    stop_on_success: bool = True
    """End a task's tree with its first success."""


class Command(BaseModel):
    """What all subcommands share: help texts are the fields' docstrings."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")
