"""ACE (arXiv 2510.04618): nothing is trained; a playbook is written, and shown to the policy from then on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ..phases.curate import run_curate
from .distilled import Distilled
from .method import Policy, Round


class Ace(Distilled):
    """The policy plays with the playbook; a reflector looks at each task, and a curator adds to the playbook.

    A task that fails is tried again up to three times, told a reflection. Counters say which bullets helped; what is
    there already is not added, and the playbook never has more tokens than ``playbook.max_tokens``. Its tokens are in
    every prompt, when the policy is judged, too. A round writes the playbook once for all its tasks; the published way
    is ``explore.tasks: 1``.

    Left out: bullets named by the policy while it acts, and the best playbook by a validation: it is the last.
    """

    phases: ClassVar[tuple[str, ...]] = ("explore", "curate")
    settings: ClassVar[Mapping[str, Any]] = {
        "explore": {"strategy": "refine", "max_branches": 4},
        "train_from": "last",
        "keep_rows": 0,
        "patience": None,
    }

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """The same weights with the playbook that the newest round leaves."""
        newest = rounds[-1]
        playbook = newest.folder / "playbook.txt"

        def curated() -> dict[str, Any]:
            reached = self.tools.access.reach(policy)
            explore = self.tools.explore.model_copy(update={**reached})
            return {**vars(run_curate(explore, newest.played, self.tools.playbook, playbook))}

        self.tools.once(newest.folder, "curate", curated)
        return replace(policy, playbook=playbook)
