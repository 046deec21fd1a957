"""LEAFE with soft labels: the teacher is the policy that sees the experience, the student does not.

The family of context distillation (Snell et al. 2022), SDFT (arXiv 2601.19897) and SDPO (arXiv 2601.20802).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .distilled import Distilled


class SelfDistillation(Distilled):
    """LEAFE's trees and rehearsal; at a revised action the student learns the teacher's whole distribution.

    Left out: samples of the student's own (on-policy), and a teacher that moves along: it is the policy that the
    training starts from.
    """

    settings: ClassVar[Mapping[str, Any]] = {"export": {"teacher": True}, "train": {"objective": "self_distillation"}}
