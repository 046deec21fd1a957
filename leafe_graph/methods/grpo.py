"""GRPO (Shao et al. 2024) over many turns: groups of independent episodes, and the outcome as the only signal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from .distilled import Distilled
from .method import Policy, Round


class Grpo(Distilled):
    """A round is one update: every action's advantage is its episode's return above its group's mean.

    Variants are settings: ``export.advantage_std`` divides by the group's deviation (off: Dr. GRPO),
    ``train.clip_high`` clips higher (DAPO). Groups whose episodes all end alike are dropped, and paid for. A row is one
    turn; a group's mean counts each episode once.

    Left out: a value network, a reward for format, and advantages of single steps.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        "explore": {"strategy": "independent", "stop_on_success": False, "max_branches": 8, "logprobs": True},
        "export": {"kinds": ["rollout"]},
        "train": {"objective": "grpo", "lr_schedule": "constant", "warmup_ratio": 0},
        "fresh_tasks": True,
        "keep_rows": 0,
        "train_from": "last",
        "patience": None,
    }

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """One update, which the next one goes on from with the same optimiser; none where all groups ended alike."""
        learned = super().learn(policy, rounds)
        return policy if learned is None else replace(learned, state=learned.trained)
