"""A worker: plays one task's tree to its end, branch by branch, and hands on each branch that has ended.

It knows no folder and no progress bar, so it runs wherever the agent does. A branch is a LangGraph run that starts at
the task's beginning or at a fork of a decision point's checkpoint.
"""

import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import RunnableConfig

from ..agent.context import Context
from ..agent.graph import UNBOUNDED, Agent
from ..agent.records import branch_record, place
from ..agent.state import AgentInput, BranchInfo, child, forked, root
from ..budget import Budget, Ledger, add_costs, is_spent
from ..errors import ConfigError, RunFolderError
from ..settings import Limits
from ..strategies import Request, Strategy, next_request
from ..tree.branches import path, played
from ..types import Branch, Cost, Task


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What all trees of a run are grown with.

    Args:
        agent: the compiled state machine.
        context: its live objects and settings.
        strategy: which branch comes next.
        limits: bounds of a tree.
        halted: whether to begin no other branch.
    """

    agent: Agent
    context: Context
    strategy: Strategy
    limits: Limits
    halted: Callable[[], bool] = lambda: False

    async def grow(self, task: Task, tree: Mapping[str, Branch], ledger: Ledger) -> AsyncIterator[Branch]:
        """Play what a task's tree still wants, and give each branch when it has ended.

        Args:
            task: the task.
            tree: the branches that it has already, by id.
            ledger: what it may spend.
        """
        branches = dict(tree)
        while not (self.halted() or is_spent(ledger)):
            so_far = list(branches.values())
            request = next_request(self.strategy, so_far, self.limits)
            if request is None:
                break
            # Where no branch can follow, no reflection is paid for.
            reflect = self.strategy.reflects and self.strategy.may_follow(so_far, request, self.limits)
            context = replace(self.context, ledger=ledger, reflect=reflect)
            branch = await play(self.agent, context, task, branches, request)
            branches[branch["id"]] = branch
            yield branch


def wants_play(
    tasks: Iterable[str],
    trees: Mapping[str, Mapping[str, Branch]],
    costs: Mapping[str, Cost],
    *,
    strategy: Strategy,
    limits: Limits,
    budget: Budget,
    total_budget: Budget,
) -> bool:
    """Whether any task's tree still wants a branch, so that a model will be asked."""
    total = Ledger(total_budget, spent=add_costs(*costs.values()))
    return any(
        next_request(strategy, [*played(trees.get(task, {})).values()], limits) is not None
        and not is_spent(Ledger(budget, spent=costs.get(task), parent=total))
        for task in tasks
    )


async def play(agent: Agent, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
    """Play one branch to its end."""
    name = next(name for name in map(str, itertools.count()) if name not in branches)
    start: AgentInput | None = None
    if request.parent is None:
        info, start = root(name), AgentInput(task=task)
        config = _config(f"{task['id']}/{info['id']}/{uuid.uuid4().hex[:8]}")
    else:
        info = child(name, branches[request.parent], request.decision_point)
        decision = path(branches, request.parent)[request.decision_point]
        config = _config(branches[request.parent]["thread_id"], decision["checkpoint_id"])
        update = await _fork_update(agent, config, request, info)
        config = await agent.aupdate_state(config, update, as_node="rewind")
    thread_id = config["configurable"]["thread_id"]
    config["recursion_limit"] = UNBOUNDED
    state: Any = await agent.ainvoke(start, config, context=replace(context, branch=info))
    if asked := state.get("__interrupt__"):
        raise ConfigError(
            f"task {task['id']!r}: the environment or the model asked {asked[0].value!r} by interrupt(), and nobody is "
            "there to answer while trees are explored: let it decide by itself, or play the task with "
            "create_leafe_agent(checkpointer=…), which can be resumed with an answer"
        )
    context.envs.release(place(state))
    return branch_record(state, thread_id=thread_id)


async def _fork_update(agent: Agent, config: RunnableConfig, request: Request, info: BranchInfo) -> dict[str, Any]:
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
