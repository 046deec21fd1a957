"""Stage 1: grow an experience tree for every task (METHOD: rollout, reflection, rewind, branch). The one writer.

Tasks run side by side, the branches of one task one after the other, so which branches exist does not depend on
timing (unless tasks compete for a total budget). A branch is logged when it has ended; what a kill interrupts is forked
again from the same decision point.
"""

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from langgraph.types import RetryPolicy
from pydantic import Field

from ..agent.context import Context, Model, Outage
from ..agent.episode import build_episode
from ..agent.graph import as_model, build_graph
from ..agent.model_calls import innermost
from ..agent.retries import RETRY, retries
from ..budget import Budget, Ledger, is_spent
from ..checkpoint.open import Checkpoints, open_points, open_saver
from ..checkpoint.points import DecisionPoints
from ..env.pool import EnvPool
from ..env.protocol import TextEnv
from ..env.tasks import as_tasks
from ..errors import ConfigError, ModelError, RunFolderError
from ..files import check_folder, full_disk
from ..models.identity import described, digests
from ..models.ready import check_model
from ..prompts import Prompts
from ..settings import Limits, Live, Pace, Play, part, takes
from ..strategies import STRATEGIES, Strategy
from ..text import utf8_all
from ..tree.branches import FAILED, causes, played, refuse_unplayed, told_causes
from ..tree.log import SHARD_BYTES
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from ..types import Durability, Task
from .admission import Admission
from .commits import Commits
from .ctrl_c import without_loop
from .grow import Worker, wants_play
from .players import Player, Remembered, Saved
from .progress import Progress
from .pruning import wanted

log = logging.getLogger(__name__)

MEMORY, SQLITE = "memory", "sqlite"
"""The values of ``checkpointer`` that keep decision points in memory and in the run folder's own file."""
INTERVAL = 30.0
"""Seconds between commits of branches in play: what a kill takes from them is played again anyway."""

Playing = Callable[[Context, DecisionPoints, Strategy], Callable[[], Player]]
"""From a run's live objects to what makes the player of each tree."""


class Growing(Play):
    """What growing trees takes, whatever plays their branches."""

    out: Live[str | Path]
    """The run folder."""
    strategy: Live[str | Strategy] = "leafe"
    """Which branch comes next: a name, MODULE:ATTRIBUTE, or a `Strategy`."""
    limits: Limits | None = None
    """Bounds of a task's tree."""
    budget: Budget | None = None
    """Limits of each task."""
    total_budget: Budget | None = None
    """Limits of the whole run. A field that ``budget`` limits too does not depend on timing: tasks are begun in their
    order while all that one may cost fits, so the last part may stay unspent. Else which task meets it does."""
    reflector: Live[str | Model | None] = None
    """Another model for reflections; the policy unless given."""
    prompts: Live[Prompts | None] = None
    """The texts."""
    retry: Live[RetryPolicy | None] = RETRY
    """Another policy of retries than ``tries`` within about a minute; None is never."""
    max_failed_calls: Annotated[int | None, Pace] = Field(default=None, ge=1)
    """Model calls that fail in a row, retries included, before the run stops; unless given, twice the concurrency, but
    20 at least."""
    concurrency: Annotated[int, Pace] = Field(default=32, ge=1)
    """Tasks played at once."""
    stop: Live[threading.Event | None] = None
    """Once set, the branches that are being played are finished and no other is begun."""
    shard_bytes: Annotated[int, Pace] = Field(default=SHARD_BYTES, ge=1)
    """From this size on a file of the run's log is closed, and another one is begun."""
    progress: bool = False
    """Show a progress bar."""
    label: str = "explore"
    """The bar's name."""
    config: Live[dict[str, Any] | None] = None
    """More settings to write to ``config.json``, for the caller's own use; among them may be better names of ``model``
    and ``reflector`` than their classes."""


class Arguments(Growing):
    """What `explore` is called with."""

    model: Live[str | Model] = Field(kw_only=False)
    """The policy, as a chat model or a string for `leafe_graph.load_model`."""
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
    same. A run whose folder has a ``checkpoints.sqlite`` goes on in it unless another place is given."""
    durability: Annotated[Durability, Pace] = "async"
    """When a saver is given a branch's states: after each turn, written behind, or once, when it has ended ("exit").
    A branch is one superstep then, nearly as fast as in memory, and what is forked after a kill is not played again."""
    prune: bool = False
    """Drop a tree's checkpoints when it is finished, where they are kept."""


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
        ModelError: nothing listens at the model's address, and nothing was begun; or ``max_failed_calls`` model calls
            failed in a row, and the run can be resumed.
        ReplayDivergence: a replay showed something else than was recorded, and ``on_divergence="raise"``.
    """
    return await _explore(given)


async def _explore(given: Arguments) -> RunFolder:
    kept: Any = {"checkpointer": given.checkpointer, "prune": given.prune}
    playing = partial(_player, durability=given.durability)
    return await grow_trees(given, given.model, given.tasks, playing, env=given.env, **kept)


async def grow_trees(
    given: Growing,
    model: str | Model,
    tasks: Sequence[Task | str],
    playing: Playing,
    *,
    env: Callable[[], TextEnv],
    checkpointer: Checkpoints | None,
    prune: bool = False,
) -> RunFolder:
    """Grow the trees and write them down; ``playing`` makes what plays their branches.

    The other arguments are as `explore` has them.
    """
    work = as_tasks(tasks)
    twice = sorted(task_id for task_id, n in Counter(task["id"] for task in work).items() if n > 1)
    if twice:
        raise ConfigError(f"task ids must be unique within a run; more than one task is called {', '.join(twice[:5])}")
    run = RunFolder(given.out, shard_bytes=given.shard_bytes)
    check_folder(run.folder)  # before large files are read
    strategy = STRATEGIES.of(given.strategy)
    limits, budget = given.limits or Limits(), given.budget or Budget()
    total_budget = given.total_budget or Budget()
    prompts, play = given.prompts or Prompts(), part(given, Play)
    policy = as_model(model, "model")
    critic = policy if given.reflector is None else as_model(given.reflector, "reflector")
    models = {"model": policy, "reflector": None if given.reflector is None else critic}
    told = {
        **{role: described(each) for role, each in models.items()},
        # Large files are read: not in the event loop, which may serve others.
        "weights": {role: await asyncio.to_thread(digests, each) for role, each in models.items()},
        "texts": prompts.texts,
        "strategy": given.strategy if isinstance(given.strategy, str) else strategy.name,
        "limits": limits,
        "budget": budget,
        "total_budget": total_budget,
        "tasks": [task["id"] for task in work],
        "max_turns": play.horizon,
    }
    own = given.config or {}
    if taken := sorted(own.keys() & RunSettings.model_fields.keys() - {"model", "reflector"}):
        raise ConfigError(f"config={{{', '.join(taken)}: …}}: these are the run's own settings, expected other names")
    settings = RunSettings(**(play.model_dump() | told | own))
    bounds: Any = {"strategy": strategy, "limits": limits, "budget": budget, "total_budget": total_budget}
    # Before the folder is made; and a finished run is given back though its model is gone.
    unfinished = wants_play([task["id"] for task in work], run.trees, run.costs, **bounds)
    if unfinished:
        for each in [policy, critic][: 1 + (critic is not policy and strategy.reflects)]:
            await asyncio.to_thread(check_model, innermost(each))
    async with AsyncExitStack() as stack:
        stack.callback(run.close)
        file = run.folder / "checkpoints.sqlite"
        if checkpointer is None:
            checkpointer = SQLITE if strategy.forks and file.exists() else MEMORY
        elif checkpointer == SQLITE and unfinished and run.outlines and not file.exists():
            raise RunFolderError(
                f"{file} does not exist: the run was begun with its decision points in memory or elsewhere; go on with "
                'checkpointer="memory" (--checkpointer memory), or choose another folder'
            )
        # Also before the folder is made; the run's own file is opened in it.
        named = None if checkpointer in (MEMORY, SQLITE) else checkpointer
        saver = None if named is None else await open_saver(named, stack, interval=INTERVAL)
        run.open(settings.saved())
        trees, before = run.trees, len(run.all_outlines)
        _same_tasks(run, work)
        if trees:
            have = f"{len(run.outlines)} branches of {len(trees)} of {len(work)} tasks are there"
            log.info("going on with %s: %s", run.folder, have)
        points = open_points(saver, stack, file=file if checkpointer == SQLITE else None, interval=INTERVAL)
        outage = Outage(given.max_failed_calls or max(20, 2 * given.concurrency))
        context = Context(
            policy=policy,
            reflector=critic,
            envs=stack.enter_context(EnvPool(env, size=2 * given.concurrency)),
            prompts=prompts,
            play=play,
            retry=retries(given.retry, given.tries),
            fork=True,
            outage=outage,
            budget=budget,
        )

        def halted() -> bool:
            return outage.error is not None or (given.stop is not None and given.stop.is_set())

        player = playing(context, points, strategy)
        worker = Worker(player=player, context=context, strategy=strategy, limits=limits, halted=halted)
        costs = run.costs
        total = Ledger(total_budget, spent=run.cost)
        bar = stack.enter_context(Progress(given.label, work, run.outlines, total, shown=given.progress))
        places, admission = asyncio.Semaphore(given.concurrency), Admission(budget, total, costs)
        log_of_run = Commits(run)
        stack.push_async_callback(log_of_run.close)

        async def write(task: Task) -> None:
            """Log a task's branches as they end."""
            async with places:
                tree = played(trees.get(task["id"], {}))
                ledger = Ledger(budget, spent=costs.get(task["id"]), parent=total)
                if not await admission.enter(task["id"], ledger):
                    return
                try:
                    async for branch in worker.grow(task, tree, ledger):
                        await points.flush(str(branch["thread_id"]))  # what is logged can be forked
                        await log_of_run.append(branch)
                        tree[branch["id"]] = branch
                        bar.branch(branch)
                        outage.look()
                finally:
                    admission.leave(task["id"])
                if not halted():
                    bar.task_done()
                if prune:
                    kept = {} if is_spent(ledger) else wanted(strategy, played(tree), limits)
                    for thread_id in {branch["thread_id"] for branch in tree.values()} - {None, *kept}:
                        await points.drop(str(thread_id))

        try:
            async with asyncio.TaskGroup() as group:
                for task in work:
                    group.create_task(write(task))
        except ExceptionGroup as errors:  # the first one cancelled the others
            raise full_disk(run.folder, errors.exceptions[0]) or errors.exceptions[0] from None
        if prune:
            await points.shrink()
        if admission.refused and not halted():
            begun = len(work) - len(admission.refused)
            log.info("%d of %d tasks were begun: the total budget has no room for another", begun, len(work))
        if outage.error is not None:
            raise ModelError(
                f"{outage.limit} model calls in a row have failed, the last with {outage.error}. The run was stopped; "
                f"every branch that ended is in {run.folder}. See to the model, then run the same command again: it "
                "plays the branches that failed anew and goes on"
            ) from outage.error
    if not halted():
        _tell_failures(run, before)
    return run


def _player(
    context: Context, points: DecisionPoints, strategy: Strategy, *, durability: Durability
) -> Callable[[], Player]:
    """What makes the player of a tree: where no saver is to have each turn's state, a branch is one superstep."""
    if points.saver is None or durability == "exit":
        whole = build_episode(context, points.saver)
        return lambda: Remembered(whole, forks=strategy.forks)
    agent = build_graph(context, fused=True).compile(checkpointer=points.saver)
    return lambda: Saved(agent)


def _tell_failures(run: RunFolder, before: int) -> None:
    """Refuse a run in which every branch failed, and warn where all that was played now did.

    Raises:
        NothingPlayed: no branch of the run says anything about the policy.
    """
    known = run.outlines
    refuse_unplayed(known, run.folder)
    now = run.all_outlines[before:]
    if now and all(branch.end in FAILED for branch in now):
        log.warning("all %d branches that were played now failed%s", len(now), told_causes(causes(now)))
    if not any(branch.reflections for branch in known):
        unreflected = [branch for branch in known if branch.error and branch.end not in FAILED]
        if unreflected:
            log.warning("no reflection was made: %d failed%s", len(unreflected), told_causes(causes(unreflected)))


def _same_tasks(run: RunFolder, work: Sequence[Task]) -> None:
    """Refuse to go on with a tree of another task of the same id."""
    now = {task["id"]: json.loads(json.dumps(task)) for task in work}
    for known in {id(branch.task): branch.task for branch in run.outlines}.values():
        task = utf8_all(known)  # as `as_task` gives it
        if task != now[task["id"]]:
            raise ConfigError(
                f"{run.folder} holds a run whose task {task['id']!r} is {task}, now it is {now[task['id']]}; give the "
                "same tasks to resume it, or choose another folder"
            )
