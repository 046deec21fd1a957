"""Paths and trees of branches, as the log has them."""

from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError
from ..types import Branch, Turn
from .run_folder import RunFolder


def path(branches: Mapping[str, Branch], branch_id: str) -> list[Turn]:
    """All turns from the task's start to this branch's end: its parent's up to the decision point, then its own."""
    branch = branches[branch_id]
    if branch["parent"] is None or branch["decision_point"] == 0:
        return branch["turns"]
    return path(branches, branch["parent"])[: branch["decision_point"]] + branch["turns"]


def played(tree: Mapping[str, Branch]) -> dict[str, Branch]:
    """A task's branches without those that a model or an environment failed, for a resumed run to play them anew.

    One from which another was forked stays.
    """
    parents = {branch["parent"] for branch in tree.values()}
    failed = ("model_error", "env_error")
    return {name: branch for name, branch in tree.items() if branch["end"] not in failed or name in parents}


UNFINISHED = ("budget", "env_error", "model_error", "replay_divergence")
"""Ends of branches that were not played to an end; no row is made of them."""


def ranked(run: RunFolder | str | Path) -> list[list[Branch]]:
    """All trees, the most telling first: failed, rewound and then solved, and small."""

    def dullness(tree: list[Branch]) -> tuple[float, ...]:
        by_id = {branch["id"]: branch for branch in tree}
        wins = [branch for branch in tree if branch["end"] == "success"]
        recovered = [branch for branch in wins if branch["parent"] is not None and branch["experience"]]
        rewound = [branch for branch in recovered if branch["decision_point"] > 0]
        failed = any(by_id[b["parent"] or ""]["end"] in ("failure", "truncated", "max_turns") for b in rewound)
        size = abs(len(tree) - 4) + max(len(b["turns"]) for b in tree) / 20
        return -bool(recovered), -bool(rewound), -failed, -bool(wins), size

    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    return sorted((list(tree.values()) for tree in folder.trees.values()), key=dullness)


def choose_tree(run: RunFolder | str | Path) -> list[Branch]:
    """The branches of the run's most telling task: it failed, was rewound and then solved, in a small tree.

    Raises:
        ConfigError: the run has no branches.
    """
    trees = ranked(run)
    if not trees:
        raise ConfigError("the run has no branches yet: nothing to draw")
    return trees[0]
