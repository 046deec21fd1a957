"""Paths and trees of branches, as the log has them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..errors import ConfigError, NothingPlayed
from ..types import Branch, Turn
from .outline import Outline
from .run_folder import RunFolder


def path(branches: Mapping[str, Branch], branch_id: str) -> list[Turn]:
    """All turns from the task's start to this branch's end: its parent's up to the decision point, then its own."""
    branch = branches[branch_id]
    if branch["parent"] is None or branch["decision_point"] == 0:
        return branch["turns"]
    return path(branches, branch["parent"])[: branch["decision_point"]] + branch["turns"]


def owner(branches: Mapping[str, Branch], branch_id: str, decision_point: int) -> Branch:
    """The branch that played the turn of a decision point on this branch's `path`: itself, or one that it is from."""
    branch = branches[branch_id]
    while branch["parent"] is not None and decision_point < branch["decision_point"]:
        branch = branches[branch["parent"]]
    return branch


def played(tree: Mapping[str, Branch]) -> dict[str, Branch]:
    """A task's branches without those that a model or an environment failed, for a resumed run to play them anew.

    One whose reflection failed is among them: without it nothing forks there. One from which another was forked stays.
    """
    parents = {branch["parent"] for branch in tree.values()}
    failed = {name for name, branch in tree.items() if branch["error"] and branch["end"] != "replay_divergence"}
    return {name: branch for name, branch in tree.items() if name not in failed or name in parents}


FAILED = ("env_error", "model_error", "replay_divergence")
"""Ends that something other than the policy is to blame for: they say nothing about it."""

UNFINISHED = ("budget", *FAILED)
"""Ends of branches that were not played to an end; no row is made of them."""


def causes(branches: Iterable[Outline]) -> dict[str, int]:
    """What was raised on these branches, and on how many of them: the most frequent first."""
    return dict(Counter(branch.error for branch in branches if branch.error).most_common())


def frequent(causes: Mapping[str, int], most: int = 3) -> list[str]:
    """The first of these causes, each with how often it was."""
    return [f"{'once' if n == 1 else f'{n} times'} {cause}" for cause, n in [*causes.items()][:most]]


def told_causes(causes: Mapping[str, int]) -> str:
    """The most frequent causes as a sentence's end; empty where there are none."""
    shown = frequent(causes)
    return f": {'; '.join(shown)}" + "; …" * (len(causes) > len(shown)) if shown else ""


def refuse_unplayed(branches: Collection[Outline], where: str | Path) -> None:
    """Refuse branches that all failed; ``where`` says in the message whose they are.

    Raises:
        NothingPlayed: there are branches, and none says anything about the policy.
    """
    if branches and all(branch.end in FAILED for branch in branches):
        why = causes(branches)
        raise NothingPlayed(
            f"all {len(branches)} branches of {where} failed{told_causes(why)}. So nothing was played, and there is "
            "nothing to judge or to learn from; see to the cause, then run the same again: they are played anew",
            causes=why,
        )


def ranked(run: RunFolder | str | Path, most: int | None = None) -> list[list[Branch]]:
    """The run's trees, the most telling first, see `telling`; all, or so many at most."""
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    return [[*folder.trees[task].values()] for task in telling(folder, most)]


def telling(run: RunFolder, most: int | None = None) -> list[str]:
    """The run's tasks, whose trees are the most telling first: failed, rewound and then solved, and small.

    ``most``: so many at most; all if None.
    """

    def dullness(task: str) -> tuple[float, ...]:
        tree = trees.outlines[task]
        wins = [branch for branch in tree.values() if branch.end == "success"]
        recovered = [branch for branch in wins if branch.parent is not None and branch.told]
        rewound = [branch for branch in recovered if branch.decision_point > 0]
        failed = any(tree[b.parent or ""].end in ("failure", "truncated", "max_turns") for b in rewound)
        size = abs(len(tree) - 4) + max(branch.turns for branch in tree.values()) / 20
        return -bool(recovered), -bool(rewound), -failed, -bool(wins), size

    trees = run.trees
    return sorted(trees, key=dullness)[:most]


def choose_tree(run: RunFolder | str | Path) -> list[Branch]:
    """The branches of the run's most telling task: it failed, was rewound and then solved, in a small tree.

    Raises:
        ConfigError: the run has no branches.
    """
    trees = ranked(run, 1)
    if not trees:
        raise ConfigError("the run has no branches yet: nothing to draw")
    return trees[0]
