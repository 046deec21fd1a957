"""The one writer: what is grown, wherever that is, is logged here, within budgets, until it is done or halted.

Tasks run side by side, the branches of one task one after the other, so which branches exist does not depend on
timing (unless tasks compete for a total budget). A branch is logged when it has ended; what a kill interrupts is forked
again from the same decision point.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

from langgraph.types import RetryPolicy
from pydantic import Field

from ..agent.context import Context, Model, Outage
from ..agent.graph import as_model
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
from ..settings import Limits, Live, Pace, Play, Workers, part
from ..strategies import STRATEGIES, Strategy
from ..tracing import Tracing
from ..tree.branches import played
from ..tree.log import SHARD_BYTES
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from ..types import Durability, Task
from .admission import Admission
from .commits import Commits
from .grow import Here, Source, Worker, wants_play
from .players import Player
from .progress import Progress
from .pruning import wanted
from .refused import same_tasks, tell_failures

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
    reflector: Live[str | Model | Callable[[], Model] | None] = None
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
    trace_to: Annotated[str | None, Pace] = None
    """Send each tree that is finished as a trace to this OpenTelemetry collector, ``http://HOST:PORT``, see
    `leafe_graph.trace`; needs the extra ``otel``."""
    progress: bool = False
    """Show a progress bar."""
    label: str = "explore"
    """The bar's name."""
    config: Live[dict[str, Any] | None] = None
    """More settings to write to ``config.json``, for the caller's own use; among them may be better names of ``model``
    and ``reflector`` than their classes."""


async def grow_trees(
    given: Growing,
    model: str | Model | Callable[[], Model],
    tasks: Sequence[Task | str],
    playing: Playing,
    *,
    env: Callable[[], TextEnv],
    checkpointer: Checkpoints | None,
    durability: Durability = "async",
    prune: bool = False,
    workers: Workers | None = None,
) -> RunFolder:
    """Grow the trees and write them down; ``playing`` makes what plays their branches where there are no workers.

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
    retry, kit = retries(given.retry, given.tries), b""
    make: Callable[[Any, str], Model] = as_model
    if workers is not None:
        from .kit import Kit, made

        make = made
        kit = Kit(
            model=model,
            reflector=given.reflector,
            env=env,
            prompts=prompts,
            play=play,
            retry=retry,
            strategy=strategy,
            limits=limits,
            budget=budget,
            total_budget=total_budget,
            checkpointer=_of_workers(checkpointer),
            durability=durability,
            interval=INTERVAL,
        ).packed()
    policy = make(model, "model")
    critic = policy if given.reflector is None else make(given.reflector, "reflector")
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
    if unfinished and workers is None:
        for each in [policy, critic][: 1 + (critic is not policy and strategy.reflects)]:
            await asyncio.to_thread(check_model, innermost(each))
    async with AsyncExitStack() as stack:
        stack.callback(run.close)
        file = run.folder / "checkpoints.sqlite"
        if checkpointer is None:
            in_file = workers is None and strategy.forks and file.exists()
            # Not where it went on in memory since, with workers: what was played there has no checkpoints.
            in_file = in_file and not (run.outlines and run.branches[-1]["thread_id"] is None)
            checkpointer = SQLITE if in_file else MEMORY
        elif checkpointer == SQLITE and unfinished and run.outlines and not file.exists():
            raise RunFolderError(
                f"{file} does not exist: the run was begun with its decision points in memory or elsewhere; go on with "
                'checkpointer="memory" (--checkpointer memory), or choose another folder'
            )
        # Also before the folder is made; the run's own file is opened in it.
        named = None if checkpointer in (MEMORY, SQLITE) else checkpointer
        saver = None if named is None else await open_saver(named, stack, interval=INTERVAL)
        actors = None
        if unfinished and workers is not None:
            from .actors import started

            many = started(workers, kit, concurrency=given.concurrency, tasks=len(work))
            actors = await stack.enter_async_context(many)
        tracing = None
        if given.trace_to is not None:
            tracing = await stack.enter_async_context(Tracing(run, given.trace_to, prompts=prompts))
        run.open(settings.saved())
        trees, before = run.trees, len(run.all_outlines)
        same_tasks(run, work)
        if trees:
            have = f"{len(run.outlines)} branches of {len(trees)} of {len(work)} tasks are there"
            log.info("going on with %s: %s", run.folder, have)
        points = open_points(saver, stack, file=file if checkpointer == SQLITE else None, interval=INTERVAL)
        outage = Outage(given.max_failed_calls or max(20, 2 * given.concurrency))

        def halted() -> bool:
            return outage.error is not None or (given.stop is not None and given.stop.is_set())

        costs = run.costs
        total = Ledger(total_budget, spent=run.cost)
        bar = stack.enter_context(Progress(given.label, work, run.outlines, total, shown=given.progress))
        source: Source
        if actors is not None:
            from .cluster import Cluster

            source = await stack.enter_async_context(
                Cluster(
                    actors,
                    run=run,
                    strategy=strategy,
                    limits=limits,
                    total=total,
                    outage=outage,
                    halted=halted,
                    on_news=bar.look,
                )
            )
        else:
            context = Context(
                policy=policy,
                reflector=critic,
                envs=stack.enter_context(EnvPool(env, size=2 * given.concurrency)),
                prompts=prompts,
                play=play,
                retry=retry,
                fork=True,
                outage=outage,
                budget=budget,
            )
            worker = Worker(
                player=playing(context, points, strategy),
                context=context,
                strategy=strategy,
                limits=limits,
                points=points,
                halted=halted,
            )
            source = Here(worker, run, at_once=given.concurrency)
        places, admission = asyncio.Semaphore(source.at_once), Admission(budget, total, costs)

        def stragglers() -> dict[str, int]:
            playing = admission.playing
            if len(work) - bar.finished - len(admission.refused) > len(playing):
                return {}
            return {name: max(playing[name].spent["model_calls"], source.calls.get(name, 0)) for name in playing}

        bar.stragglers = stragglers
        log_of_run = Commits(run)
        stack.push_async_callback(log_of_run.close)

        async def write(task: Task) -> None:
            """Log a task's branches as they end."""
            async with places:
                ledger = Ledger(budget, spent=costs.get(task["id"]), parent=total)
                if not await admission.enter(task["id"], ledger):
                    return
                try:
                    async for branch in source.grow(task, ledger):
                        bar.branch(await log_of_run.append(branch))
                        outage.look()
                finally:
                    admission.leave(task["id"])
                if not halted():
                    bar.task_done()
                    if tracing is not None:
                        tracing.finished(task["id"])
                if prune:
                    tree = run.trees.get(task["id"], {})
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
        tell_failures(run, before)
    return run


def _of_workers(checkpointer: Checkpoints | None) -> str | None:
    """Where workers keep decision points: in a database by its address; None is in memory.

    Raises:
        ConfigError: workers cannot write there.
    """
    if checkpointer is None or checkpointer == MEMORY:
        return None
    if not isinstance(checkpointer, str) or checkpointer == SQLITE:
        seen = "a file of the run folder" if checkpointer == SQLITE else f"{type(checkpointer).__name__}, an object"
        raise ConfigError(
            f"checkpointer is {seen}, which workers cannot write to: leave it out, and their decision points are in "
            "memory; or give the address of a database, postgresql://USER@HOST/DATABASE"
        )
    return checkpointer
