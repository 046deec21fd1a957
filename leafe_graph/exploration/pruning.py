"""Dropping checkpoints that a run no longer needs.

A tree needs the decision points at which its strategy may still fork; a finished one needs none. Resuming, exporting
and reporting read the log, so they go on as before.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..budget import Ledger, is_spent
from ..checkpoint.open import opened
from ..checkpoint.points import Saver
from ..checkpoint.shrink import Shrunk, shrink_file, shrink_saver
from ..errors import ConfigError
from ..files import path_of
from ..settings import Limits
from ..strategies import STRATEGIES, Strategy, next_request, waiting
from ..tree.branches import owner, path, played
from ..tree.run_folder import RunFolder
from ..types import Branch


@dataclass(frozen=True)
class Pruned:
    """What `prune` did."""

    trees: int
    """Trees in the run."""
    finished: int
    """Those that no branch will be added to: they keep nothing."""
    threads: int
    """Threads that were dropped."""
    kept: int
    """Decision points that are still wanted."""
    before: int
    after: int
    """Bytes of the checkpoints' file; 0 where the checkpoints are not in a file of the run's."""


def prune(
    run: str | Path, *, checkpoints: str | Path | Saver | None = None, strategy: str | Strategy | None = None
) -> Pruned:
    """Drop the checkpoints that no later branch of a run can start from.

    Args:
        run: the run folder; nobody else may be writing to it.
        checkpoints: where they are: the run's own ``checkpoints.sqlite`` if None, another SQLite file of a `TreeSaver`
            or of LangGraph's SqliteSaver, the address of a database as `explore` takes it, or any saver with
            ``delete_thread``. In the run's own file the threads of branches that a kill cut short are dropped too;
            elsewhere only what the run logged is its own. A file shrinks; through a saver of LangGraph's only whole
            threads are dropped.
        strategy: which branches may come next; the run's own if None. To be given where that was an object of yours.

    Raises:
        ConfigError: not a folder that `explore` made, no such file, or a strategy that only its owner knows.
        RunFolderError: another process writes to the folder, or the file holds something else.
    """
    folder = RunFolder(run)
    config = {name: value for name, value in folder.config.items() if name != "version"}
    if config.get("kind") != "explore":
        raise ConfigError(f"{run} is no run folder that explore made: it has no config.json that says so")
    with folder.open(config):
        settings, trees, costs = folder.settings, folder.trees, folder.costs
        next_by, limits = STRATEGIES.of(strategy or settings.strategy), settings.limits
        spent = Ledger(settings.total_budget, spent=folder.cost)
        decisions: dict[str, set[str]] = defaultdict(set)
        threads: set[str] = set()
        finished = 0
        for task, tree in trees.items():
            threads |= {branch["thread_id"] for branch in tree.values() if branch["thread_id"] is not None}
            over = is_spent(Ledger(settings.budget, spent=costs.get(task), parent=spent))
            rest = played(tree)  # what failed will be played anew
            found = {} if over else wanted(next_by, rest, limits)
            finished += over or next_request(next_by, list(rest.values()), limits) is None
            for thread_id, ids in found.items():
                decisions[thread_id] |= ids
        kept = sum(map(len, decisions.values()))
        if checkpoints is None and not threads:  # they were in memory
            dropped = Shrunk(threads=0, before=0, after=0)
        elif checkpoints is None:
            dropped = shrink_file(folder.folder / "checkpoints.sqlite", decisions)
        elif isinstance(checkpoints, str) and "://" in checkpoints:
            with opened(checkpoints) as saver:
                dropped = shrink_saver(saver, decisions, threads)
        elif isinstance(checkpoints, str | Path):
            dropped = shrink_file(path_of(checkpoints), decisions, threads)
        else:
            dropped = shrink_saver(checkpoints, decisions, threads)
        return Pruned(len(trees), finished, dropped.threads, kept, dropped.before, dropped.after)


def wanted(strategy: Strategy, tree: Mapping[str, Branch], limits: Limits) -> dict[str, set[str]]:
    """The decision points of a tree's branches at which the strategy will still fork: checkpoint ids by thread."""
    found: dict[str, set[str]] = defaultdict(set)
    branches = list(tree.values())
    if strategy.anywhere:
        grows = next_request(strategy, branches, limits) is not None
        forks = [(b["id"], b["decision_point"] + t) for b in branches if grows for t in range(len(b["turns"]))]
    else:  # a branch that is only supposed will have decision points of its own
        asked = [(request.parent, request.decision_point) for request in waiting(strategy, branches, limits)]
        forks = [(parent, t) for parent, t in asked if parent is not None and parent in tree]
    for parent, t in forks:
        decision = path(tree, parent)[t]
        thread_id = owner(tree, parent, t)["thread_id"]
        checkpoint_id = decision["checkpoint_id"]
        if thread_id is not None and checkpoint_id is not None:
            found[thread_id].add(checkpoint_id)
    return dict(found)
