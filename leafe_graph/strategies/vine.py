"""Rollouts, and branches off their decision points that tell what each state is worth (VinePPO, arXiv 2410.01679)."""

from collections import Counter
from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .strategy import Request, Strategy, new_root

FAILED = ("budget", "env_error", "model_error", "replay_divergence")
"""Ends of rollouts that nothing is learned from."""


class Vine(Strategy):
    """``max_roots`` rollouts; at each ``fork_every``-th decision point of these ``branches_per_reflection`` branches.

    A branch is told nothing: the policy goes on from there as it would. The start is worth what the rollouts come to.
    All points get a first branch before any gets a second, so that a budget that ends early leaves none without. Unless
    ``max_roots`` is given, another rollout follows when all branches of those before it are there.
    """

    name = "vine"
    anywhere = True  # of the first rollouts, once the others are there
    reflects = False

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """A rollout while there are too few, else the first branch that is missing; then a rollout again."""
        rollouts = [branch for branch in branches if branch["parent"] is None]
        if len(rollouts) < (limits.max_roots or 1):
            return Request()
        forked = Counter((branch["parent"], branch["decision_point"]) for branch in branches)
        for n in range(limits.branches_per_reflection):
            for rollout in rollouts:
                if rollout["end"] in FAILED:
                    continue
                for t in range(limits.fork_every, len(rollout["turns"]), limits.fork_every):
                    if forked[rollout["id"], t] <= n:
                        return Request(rollout["id"], t)
        return new_root(branches, limits)
