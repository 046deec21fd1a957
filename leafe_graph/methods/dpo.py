"""DPO (Rafailov et al. 2023) on the tree's own pairs, step by step as in IPR (Xiong et al. 2024)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from .distilled import Distilled


class Dpo(Distilled):
    """At each decision point that a successful branch left: its revised action above the one that was taken before.

    Left out: pairs of whole trajectories, and a supervised training before; a term of the chosen action's own
    likelihood (``train.dpo_nll``) keeps that from falling with the rejected one's.
    """

    settings: ClassVar[Mapping[str, Any]] = {"export": {"kinds": ["preference"]}, "train": {"objective": "dpo"}}
