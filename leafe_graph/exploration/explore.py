"""Stage 1: grow an experience tree for every task (METHOD: rollout, reflection, rewind, branch).

Tasks run side by side, the branches of one task one after the other, so which branches exist does not depend on
timing (unless tasks compete for a total budget). A branch is a LangGraph run that starts at a task's beginning or at a
fork of a decision point's checkpoint. It is logged when it has ended; what a kill interrupts is forked again from the
same decision point.
"""

import asyncio
import itertools
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy

from ..agent.context import Context, Model
from ..agent.graph import as_model, build_graph, recursion_limit
from ..agent.records import as_task, branch_record, place
from ..agent.retries import RETRY, TIMEOUT
from ..agent.state import AgentInput, BranchInfo, State, forked
from ..budget import Budget, Ledger
from ..checkpoint.open import Checkpoints, Saver, open_saver
from ..checkpoint.sqlite import TreeSaver
from ..env.pool import EnvPool
from ..env.protocol import TextEnv
from ..errors import ConfigError, ModelError, RunFolderError
from ..files import full_disk
from ..prompts import Prompts
from ..settings import Limits
from ..tree.branches import path, played
from ..tree.run_folder import RunFolder
from ..types import Branch, OnDivergence, Task
from .ctrl_c import first_interrupt
from .progress import Progress
from .pruning import is_spent, wanted
from .strategies import Request, StrategyName, may_follow, next_request

INTERVAL = 30.0
"""Seconds between commits of branches in play: what a kill takes from them is played again anyway."""


def explore(*args: Any, **kwargs: Any) -> RunFolder:
    """`aexplore` for callers without an event loop.

    The first Ctrl-C finishes the branches that are being played, a second one stops at once; both raise
    KeyboardInterrupt.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            run, interrupted = asyncio.run(_interruptible(*args, **kwargs))
        except asyncio.CancelledError:  # by a second Ctrl-C
            raise KeyboardInterrupt from None
        if interrupted:
            raise KeyboardInterrupt from None
        return run
    raise ConfigError("explore() was called inside a running event loop; await aexplore() there")


async def _interruptible(*args: Any, stop: threading.Event | None = None, **kwargs: Any) -> tuple[RunFolder, bool]:
    """The run, and whether it was cut short by Ctrl-C.

    It has a thread for each task that is played at once: environments step in threads.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max(1, kwargs.get("concurrency", 32))))
    interrupted = threading.Event()
    with first_interrupt(stop := stop or interrupted, interrupted):
        return await aexplore(*args, stop=stop, **kwargs), interrupted.is_set()


async def aexplore(
    model: str | Model,
    env: Callable[[], TextEnv],
    tasks: Sequence[Task | str],
    *,
    out: str | Path,
    strategy: StrategyName = "leafe",
    limits: Limits | None = None,
    budget: Budget | None = None,
    total_budget: Budget | None = None,
    reflector: str | Model | None = None,
    prompts: Prompts | None = None,
    max_turns: int = 30,
    reflect_every: int | None = None,
    history: int | None = None,
    experience_turns: int | None = None,
    max_tokens: int | None = None,
    reflect_max_tokens: int | None = None,
    timeout: float | None = TIMEOUT,
    retry: RetryPolicy | None = RETRY,
    max_failed_calls: int | None = None,
    on_divergence: OnDivergence = "end",
    concurrency: int = 32,
    stop: threading.Event | None = None,
    seed: int = 0,
    checkpointer: Checkpoints | None = None,
    prune: bool = False,
    progress: bool = False,
    label: str = "explore",
    config: dict[str, Any] | None = None,
) -> RunFolder:
    """Grow a tree of branches for every task; run again with the same arguments, it resumes.

    Args:
        model: the policy, as a chat model or a string for `leafe_graph.models.load_model`.
        env: makes an environment.
        tasks: with unique ids.
        out: the run folder.
        strategy: "leafe" (rewind and branch), "independent" (fresh samples) or "refine" (restart with the reflection).
        limits: bounds of a task's tree.
        budget: limits of each task.
        total_budget: limits of the whole run; which task meets them first depends on timing.
        reflector: another model for reflections; the policy if None.
        prompts: the texts.
        max_turns: horizon of a path, in decisions.
        reflect_every: K, in turns; None reflects on failure only.
        history: earlier turns shown in a prompt; None is all.
        experience_turns: turns of a branch whose prompt shows the experience; None is all of them.
        max_tokens: new tokens of an action, for models that take it.
        reflect_max_tokens: new tokens of a reflection, for models that take it.
        timeout: seconds that one try of a model call may take; None is no limit.
        retry: how model calls that fail are tried again; by default seven tries within about a minute, after rate
            limits, failures of the server, timeouts and lost connections. Each try is counted; None is never.
        max_failed_calls: model calls that fail in a row, retries included, before the run stops; None is twice the
            concurrency, but 20 at least.
        on_divergence: what a replay that shows something else than was recorded does: "end" the branch by that reason,
            "raise" `ReplayDivergence`, or "accept": go on, with the branch's ``divergence`` as a mark; `export` leaves
            such branches out unless asked.
        concurrency: tasks played at once.
        stop: once set, the branches that are being played are finished and no other is begun.
        seed: root of all sampling seeds, for models that take one.
        checkpointer: where decision points are kept; by default SQLite in the run folder. A saver, an asynchronous
            context manager that opens one, or a database's address ``postgresql://USER@HOST/DATABASE``.
        progress: show a progress bar.
        label: the bar's name.
        config: more settings to write to ``config.json``, for the caller's own use.

    Returns:
        The run folder, closed for writing. Branches that a model or an environment failed are played again when the
        run is resumed.

    Raises:
        ConfigError: task ids are not unique, or the folder holds a run with other settings.
        RunFolderError: another process writes to the folder, or the disk is full.
        ModelError: ``max_failed_calls`` model calls failed in a row; the run can be resumed.
        ReplayDivergence: a replay showed something else than was recorded, and ``on_divergence="raise"``.
    """
    work = [as_task(task) for task in tasks]
    twice = sorted(task_id for task_id, n in Counter(task["id"] for task in work).items() if n > 1)
    if twice:
        raise ConfigError(f"task ids must be unique within a run; more than one task is called {', '.join(twice[:5])}")
    if concurrency < 1:
        raise ConfigError(f"concurrency={concurrency}; expected 1 or more tasks at once")
    limits, budget, total_budget = limits or Limits(), budget or Budget(), total_budget or Budget()
    policy = as_model(model)
    critic = policy if reflector is None else as_model(reflector)
    settings = {
        "model": _identity(policy),
        "reflector": None if reflector is None else _identity(critic),
        "texts": {name: text for name, text in vars(prompts or Prompts()).items() if isinstance(text, str)},
        "strategy": strategy,
        "limits": asdict(limits),
        "budget": asdict(budget),
        "total_budget": asdict(total_budget),
        "max_turns": max_turns,
        "reflect_every": reflect_every,
        "history": history,
        "experience_turns": experience_turns,
        "max_tokens": max_tokens,
        "reflect_max_tokens": reflect_max_tokens,
        "on_divergence": on_divergence,
        "seed": seed,
        "tasks": [task["id"] for task in work],
        **(config or {}),
    }
    run = RunFolder(out)
    async with AsyncExitStack() as stack:
        stack.callback(run.close)
        run.open({"kind": "explore", "settings": settings})
        trees = run.trees
        _same_tasks(run, work)
        saver: Saver | None = None
        if checkpointer is not None:
            saver = await open_saver(checkpointer, stack)
        elif strategy != "independent":
            saver = stack.enter_context(TreeSaver(run.folder / "checkpoints.sqlite", interval=INTERVAL))
        context = Context(
            policy=policy,
            reflector=critic,
            envs=stack.enter_context(EnvPool(env, size=2 * concurrency)),
            prompts=prompts or Prompts(),
            max_turns=max_turns,
            reflect_every=reflect_every,
            reflect=strategy != "independent",
            fork=True,
            history=history,
            experience_turns=experience_turns,
            max_tokens=max_tokens,
            reflect_max_tokens=reflect_max_tokens,
            timeout=timeout,
            retry=retry,
            on_divergence=on_divergence,
            budget=budget,
            seed=seed,
        )
        too_many = max_failed_calls or max(20, 2 * concurrency)
        outage: list[Exception] = []
        costs = run.costs
        total = Ledger(total_budget, spent=run.cost)
        agent = build_graph(context, fused=True).compile(checkpointer=saver)
        bar = stack.enter_context(Progress(label, work, run.branches, total, shown=progress))
        places = asyncio.Semaphore(concurrency)

        def halted() -> bool:
            return bool(outage) or (stop is not None and stop.is_set())

        async def grow(task: Task) -> None:
            async with places:
                branches = played(trees.get(task["id"], {}))
                ledger = Ledger(budget, spent=costs.get(task["id"]), parent=total)
                while not (halted() or is_spent(ledger)):
                    request = next_request(strategy, list(branches.values()), limits)
                    if request is None:
                        break
                    # Where no branch can follow, no reflection is paid for.
                    reflect = context.reflect and may_follow(strategy, list(branches.values()), request, limits)
                    own = replace(context, ledger=ledger, reflect=reflect)
                    branch = await _play(agent, own, task, branches, request)
                    if isinstance(saver, TreeSaver):  # what is logged can be forked
                        await saver.aflush(branch["thread_id"])
                    run.append(branch)
                    branches[branch["id"]] = branch
                    bar.branch(branch)
                    if len(context.failed_calls) >= too_many:
                        outage.append(context.failed_calls[-1])
                if not halted():
                    bar.task_done()
                if prune and saver is not None:
                    kept = {} if is_spent(ledger) else wanted(strategy, played(branches), limits)
                    for thread_id in {branch["thread_id"] for branch in branches.values()} - {None, *kept}:
                        await _delete_thread(saver, str(thread_id))

        try:
            async with asyncio.TaskGroup() as group:
                for task in work:
                    group.create_task(grow(task))
        except ExceptionGroup as errors:  # the first one cancelled the others
            raise full_disk(run.folder, errors.exceptions[0]) or errors.exceptions[0] from None
        if prune and isinstance(saver, TreeSaver):
            await asyncio.to_thread(saver.vacuum)
        if outage:
            raise ModelError(
                f"{too_many} model calls in a row have failed, the last with {type(outage[0]).__name__}: {outage[0]}. "
                f"The run was stopped; every branch that ended is in {run.folder}. See to the model, then run the same "
                "command again: it plays the branches that failed anew and goes on"
            ) from outage[0]
    return run


async def _delete_thread(saver: Saver, thread_id: str) -> None:
    try:
        await saver.adelete_thread(thread_id)
    except NotImplementedError:  # a saver for sync graphs
        await asyncio.to_thread(saver.delete_thread, thread_id)


def _identity(model: Model) -> dict[str, Any]:
    """What tells one model from another when a run is resumed: of a chat model its settings."""
    settings = model._identifying_params if isinstance(model, BaseChatModel) else {}
    return {"class": type(model).__name__, **json.loads(json.dumps(dict(settings), default=str))}


def _same_tasks(run: RunFolder, work: Sequence[Task]) -> None:
    """Refuse to go on with a tree of another task of the same id."""
    now = {task["id"]: json.loads(json.dumps(task)) for task in work}
    for branch in run.branches:
        task = branch["task"]
        if task != now[task["id"]]:
            raise ConfigError(
                f"{run.folder} holds a run whose task {task['id']!r} is {task}, now it is {now[task['id']]}; give the "
                "same tasks to resume it, or choose another folder"
            )


async def _play(
    agent: CompiledStateGraph[State, Context, AgentInput, State],
    context: Context,
    task: Task,
    branches: dict[str, Branch],
    request: Request,
) -> Branch:
    """Play one branch to its end."""
    info = BranchInfo(
        id=next(name for name in map(str, itertools.count()) if name not in branches),
        parent=request.parent,
        decision_point=request.decision_point,
        depth=0 if request.parent is None else branches[request.parent]["depth"] + 1,
    )
    start: AgentInput | None = None
    if request.parent is None:
        start = AgentInput(task=task)
        config = _config(f"{task['id']}/{info['id']}/{uuid.uuid4().hex[:8]}")
    else:
        decision = path(branches, request.parent)[request.decision_point]
        config = _config(branches[request.parent]["thread_id"], decision["checkpoint_id"])
        update = await _fork_update(agent, config, request, info)
        config = await agent.aupdate_state(config, update, as_node="rewind")
    thread_id = config["configurable"]["thread_id"]
    config["recursion_limit"] = recursion_limit(context.max_turns, 0)
    state: Any = await agent.ainvoke(start, config, context=replace(context, branch=info))
    context.envs.release(place(state))
    return branch_record(state, thread_id=thread_id)


async def _fork_update(
    agent: CompiledStateGraph[State, Context, AgentInput, State],
    config: RunnableConfig,
    request: Request,
    info: BranchInfo,
) -> dict[str, Any]:
    """What makes the checkpoint of a decision point a branch of its own, with its own account."""
    state: Any = (await agent.aget_state(config)).values
    if "turns" not in state:
        raise RunFolderError(
            f"the checkpoint of branch {request.parent}'s decision point {request.decision_point} is gone: the run was "
            "started with another checkpointer, or its checkpoints were deleted; give that one, or choose another "
            "folder"
        )
    return forked(state, request.decision_point, request.experience, info)


def _config(thread_id: str | None, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}
