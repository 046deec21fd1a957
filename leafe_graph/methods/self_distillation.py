"""LEAFE with soft labels: the teacher is the policy that sees the experience, the student does not.

The family of context distillation (Snell et al. 2022), SDFT (arXiv 2601.19897) and SDPO (arXiv 2601.20802).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .distilled import Distilled


class SelfDistillation(Distilled):
    """LEAFE's trees and rehearsal; at a revised action the student learns the teacher's whole distribution.

    Left out: samples of the student's own (`OnPolicyDistillation` has them), and a teacher that moves along: it is the
    policy that the training starts from.
    """

    settings: ClassVar[Mapping[str, Any]] = {"export": {"teacher": True}, "train": {"objective": "self_distillation"}}


class OnPolicyDistillation(Distilled):
    """The same, on policy: what the policy did at a decision point before it was revised, corrected by the teacher.

    OPCD (arXiv 2602.12275) at stored decision points: the student's sample is the action that the branch revised, which
    costs nothing more. Taken where that action was told no experience itself.

    Left out: samples of a student that has moved on within the training, and a teacher that moves along.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        "export": {"kinds": ["on_policy", "rehearsal"]},
        "train": {"objective": "on_policy_distillation"},
    }
