"""Early Experience (arXiv 2510.08558): what other actions would have led to teaches, and no reward for them is needed.

The paper's states are a demonstrator's. Here they are those of the successes of the run that is learned from: the
policy's own or, with ``explore.expert``, the environment's expert's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..finetune.batches import steps_in_epoch
from ..phases.probe import run_probe
from ..tree.probes import FILE
from .distilled import Distilled
from .method import Policy, Round

WORLD_SHARE = 0.5
"""Most of the updates that the model of the world may have. The paper gives it an epoch, and both stages together the
updates of imitation alone, which cannot both be where there are many alternatives; our choice."""


class Probing(Distilled):
    """Explore, try other actions at the states of successes, export, train with the updates of imitation alone."""

    phases: ClassVar[tuple[str, ...]] = ("explore", "probe", "export", "train")

    @property
    def reserved(self) -> int:
        """The steps that probing may take."""
        return self.tools.probe.env_steps or 0

    def probed(self, policy: Policy, of: Round) -> dict[str, Any]:
        """Probe a round's run, once, and export what it gives."""

        def probed() -> dict[str, Any]:
            reached = self.tools.access.reach(policy)
            explore = self.tools.explore.model_copy(update={**reached})
            return {**vars(run_probe(explore, of.played, self.tools.probe, of.folder / FILE))}

        self.tools.once(of.folder, "probe", probed)
        return self.exported(of, probes=of.folder / FILE)

    def updates(self, rows: int) -> int:
        """Optimiser steps that imitating so many actions would take."""
        train = self.tools.train
        return train.max_steps or math.ceil(train.epochs * steps_in_epoch(rows, train.batch_size))


class EarlyExperience(Probing):
    """Implicit world modelling: first predict what is seen after taken and tried actions, then imitate the successes.

    The same weights learn both, one after the other. Together they take the updates that imitation alone would:
    ``rejection`` with the same settings is the control.

    Left out: summaries of long observations.
    """

    phases: ClassVar[tuple[str, ...]] = ("explore", "probe", "export", "world", "train")
    settings: ClassVar[Mapping[str, Any]] = {
        "explore": {"strategy": "independent"},
        "export": {"kinds": ["rehearsal", "world_model"]},
        "train": {"objective": "rejection"},
    }

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """An epoch of the model of the world, at most half of the updates; the rest for imitation."""
        self.probed(policy, rounds[-1])
        rows = [self.exported(each) for each in rounds]
        imitated, predicted = (sum(each.get(kind, 0) for each in rows) for kind in ("rehearsal", "world_model"))
        if not imitated:
            return None
        left, batch = self.updates(imitated), self.tools.train.batch_size
        if first := min(steps_in_epoch(predicted, batch), int(WORLD_SHARE * left)):
            policy = self.trained(policy, rounds, "world", objective="world_model", max_steps=first)
        return self.trained(policy, rounds, max_steps=left - first)


class SelfReflection(Probing):
    """Self-reflection: imitate the successes, a part of them after thoughts that compare what was tried there.

    The policy writes the thoughts, knowing what each action led to; ones that end in another action are left out.
    Successes with and without thoughts are one mean, with the updates that those without would take.

    Left out: thoughts for each alternative by itself; there is one text for all of a state.
    """

    settings: ClassVar[Mapping[str, Any]] = {
        "explore": {"strategy": "independent"},
        "probe": {"alternatives": 3, "propose": "policy", "reflect": True},
        "export": {"kinds": ["rehearsal", "self_reflection"]},
        "train": {"objective": "self_reflection"},
    }

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """Train on both kinds of rows."""
        self.probed(policy, rounds[-1])
        imitated = sum(self.exported(each)["rehearsal"] for each in rounds)
        return self.trained(policy, rounds, max_steps=self.updates(imitated)) if imitated else None
