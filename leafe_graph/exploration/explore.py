"""Stage 1: grow an experience tree for every task (METHOD: rollout, reflection, rewind, branch)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from ..agent.context import Model
from ..checkpoint.open import Checkpoints
from ..env.protocol import TextEnv
from ..settings import Live, Pace, Workers, takes
from ..tree.run_folder import RunFolder
from ..types import Durability, Task
from .ctrl_c import without_loop
from .growing import Growing, grow_trees
from .players import player_of


class Arguments(Growing):
    """What `explore` is called with."""

    model: Live[str | Model | Callable[[], Model]] = Field(kw_only=False)
    """The policy, as a chat model or a string for `leafe_graph.load_model`; with ``workers`` a string, or a function or
    class of a module that makes one there."""
    env: Live[Callable[[], TextEnv]] = Field(kw_only=False)
    """Makes an environment."""
    tasks: Live[Sequence[Task | str]] = Field(kw_only=False)
    """With unique ids."""
    checkpointer: Live[Checkpoints | None] = None
    """Where decision points are kept. "memory", unless given: a branch is one superstep, and what a kill takes from
    memory comes back from the log. LangGraph knows no single turn then: there are no events within a branch, thread and
    checkpoint ids are None, and there is nothing to prune. With "sqlite" (a `TreeSaver` in the run folder), a saver, an
    asynchronous context manager that opens one, or a database's address ``postgresql://USER@HOST/DATABASE`` (a
    `PostgresTreeSaver`; ``postgresql+langgraph://…``: LangGraph's AsyncPostgresSaver) each turn is a superstep whose
    checkpoint lasts, for a half to a third of the speed where model and environment are fast. The branches are the
    same. A run whose folder has a ``checkpoints.sqlite`` goes on in it, unless another place is given or it went on in
    memory since."""
    durability: Annotated[Durability, Pace] = "async"
    """When a saver is given a branch's states: after each turn, written behind, or once, when it has ended ("exit").
    A branch is one superstep then, nearly as fast as in memory, and what is forked after a kill is not played again."""
    prune: bool = False
    """Drop a tree's checkpoints when it is finished, where they are kept."""
    workers: Annotated[int | Workers | None, Pace] = None
    """Actors on Ray that grow the trees, on this machine or, as `Workers`, on a cluster; in this process unless given.
    The branches are the same, and any number of workers resumes any run. ``model``, ``reflector`` and ``env`` are
    strings then, or what a module has under a name, since each worker makes its own; ``concurrency`` is the tasks that
    are played at once by all of them together. Decision points are in the workers' memory, or in a database."""


@takes(Arguments)
def explore(given: Arguments) -> RunFolder:
    """`aexplore` for callers without an event loop.

    The first Ctrl-C finishes the branches that are being played, a second one stops at once; both raise
    KeyboardInterrupt.
    """
    # Environments step in threads: one for each task that is played at once.
    return without_loop(
        lambda stop: _explore(given.model_copy(update={"stop": stop})),
        stop=given.stop,
        threads=given.concurrency,
        name="explore",
    )


@takes(Arguments)
async def aexplore(given: Arguments) -> RunFolder:
    """Grow a tree of branches for every task; run again with the same arguments, it resumes.

    Returns:
        The run folder, closed for writing. Branches that a model or an environment failed are played again when the
        run is resumed.

    Raises:
        ConfigError: task ids are not unique, or the folder holds a run with other settings.
        RunFolderError: another process writes to the folder, or the disk is full.
        NothingPlayed: every branch was failed by the model or the environment; the run can be resumed.
        MissingDependency: ``workers`` are given, and Ray is not installed.
        WorkersLost: no worker came up or was left for a while; the run can be resumed.
        ModelError: nothing listens at the model's address, and nothing was begun; or ``max_failed_calls`` model calls
            failed in a row, and the run can be resumed.
        ReplayDivergence: a replay showed something else than was recorded, and ``on_divergence="raise"``.
    """
    return await _explore(given)


async def _explore(given: Arguments) -> RunFolder:
    kept: Any = {name: getattr(given, name) for name in ("env", "checkpointer", "durability", "prune")}
    workers = Workers(given.workers) if isinstance(given.workers, int) else given.workers
    playing = partial(player_of, durability=given.durability)
    return await grow_trees(given, given.model, given.tasks, playing, workers=workers, **kept)
