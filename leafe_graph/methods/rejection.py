"""Rejection fine-tuning (RFT; STaR, Zelikman et al. 2022; RAFT, Dong et al. 2023): learn one's own wins by heart."""

from collections.abc import Mapping
from typing import Any, ClassVar

from .distilled import Distilled


class Rejection(Distilled):
    """Independent samples, of which the successful ones are trained on.

    Left out: a filter or rank within the successes of a task; ``export.balance`` keeps easy tasks from outweighing the
    others.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        "explore": {"strategy": "independent"},
        "export": {"kinds": ["rehearsal"]},
        "train": {"objective": "rejection"},
    }
