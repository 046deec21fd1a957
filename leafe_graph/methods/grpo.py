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

    Left out: a value network, a reward for format; advantages of single steps are `Gigpo`'s and `Vineppo`'s.
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


class Gigpo(Grpo):
    """GiGPO (arXiv 2505.10978): each action's advantage is also its return above that of others in the same state.

    States are the same by a digest of the environment's state (``explore.anchors``), in a world that tells none by
    what is seen; the published code goes by what is seen. The file's ``export.discount`` and ``export.step_weight``
    are the published ones unless said otherwise, and so is that no deviation is divided by.

    Left out: states that are merely similar.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        **Grpo.settings,
        "explore": {**Grpo.settings["explore"], "anchors": True},
        "export": {"kinds": ["rollout"], "credit": "steps"},
    }


class Vineppo(Grpo):
    """VinePPO (arXiv 2410.01679): what an action gained in value, by branches that go on from the states around it.

    Branches start at stored decision points (strategy "vine") and are paid for like rollouts; only rollouts are trained
    on. With ``explore.fork_every`` above 1, the actions between two such points share what they gained together.

    Left out: several passes over a batch unless ``train.epochs`` says so, and the KL term (``train.kl_coef``).
    """

    settings: ClassVar[Mapping[str, Any]] = {
        **Grpo.settings,
        "explore": {
            "strategy": "vine",
            "stop_on_success": False,
            "max_branches": 64,
            "max_roots": 4,
            "fork_every": 4,
            "branches_per_reflection": 2,
            "logprobs": True,
        },
        "export": {"kinds": ["rollout"], "credit": "values"},
    }


class R3l(Grpo):
    """R3L (arXiv 2601.03715): failed rollouts are tried again from the step that a reflection names, in one group.

    A retry is told what went wrong, and learned without that. Both are trained on from where they part (pivotal
    credit), and what is above the group's mean counts three times (``export.amplify``), a success always 1.

    Left out: training on the reflection and on the guided retry, since no row may hold an experience; and reflections
    on successes. The loss is the clipped one of GRPO, whose first step is the published one.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        **Grpo.settings,
        "explore": {
            "strategy": "leafe",
            "stop_on_success": False,
            "max_branches": 8,
            "max_roots": 4,
            "max_depth": 1,
            "logprobs": True,
        },
        "export": {"kinds": ["rollout"], "credit": "pivot"},
    }
