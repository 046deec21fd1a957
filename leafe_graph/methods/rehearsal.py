"""Rehearsal on the tree: LEAFE without its counterfactual term, the paper's own ablation (Table 4)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from .distilled import Distilled


class Rehearsal(Distilled):
    """Trees as LEAFE grows them; the rows of all successful paths, branches included, and no others."""

    settings: ClassVar[Mapping[str, Any]] = {"export": {"kinds": ["rehearsal"]}, "train": {"objective": "rejection"}}
