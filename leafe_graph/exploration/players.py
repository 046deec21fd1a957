"""How a branch is played: in supersteps whose states a saver keeps, or as a whole, whose state is kept in its end.

Both play the same branches. A branch starts at the task's beginning or at a fork of a decision point.
"""

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig

from ..agent.context import Context
from ..agent.episode import EpisodeAgent, build_episode
from ..agent.graph import UNBOUNDED, Agent, build_graph
from ..agent.records import branch_record, place
from ..agent.state import AgentInput, BranchInfo, State, append, child, forked, fresh_start, root
from ..checkpoint.points import DecisionPoints
from ..errors import ConfigError, RunFolderError
from ..strategies import Request, Strategy
from ..tree.branches import owner, path
from ..types import Branch, Durability, Task


class Player(Protocol):
    """Plays the branches of one tree, one after the other."""

    async def play(self, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
        """Play one branch to its end.

        Args:
            context: live objects and settings.
            task: the tree's task.
            branches: those of the tree that have ended, by id.
            request: where the branch starts.
        """
        ...

    async def close(self) -> None:
        """The tree is done, or given up."""
        ...


class Saved:
    """Each superstep's state goes to the agent's saver, and a branch is forked from a checkpoint there."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def play(self, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
        """See `Player`."""
        info = info_of(branches, request)
        start: AgentInput | None = None
        if request.parent is None:
            start, config = AgentInput(task=task), _config(_new_thread(task, info))
        else:
            decision = path(branches, request.parent)[request.decision_point]
            thread_id = owner(branches, request.parent, request.decision_point)["thread_id"]
            if thread_id is None:
                raise RunFolderError(
                    f"branch {request.parent} of task {task['id']!r} has no checkpoints: the run was begun with its "
                    'decision points in memory; go on with checkpointer="memory" (--checkpointer memory)'
                )
            config = _config(thread_id, decision["checkpoint_id"])
            update = await self._fork_update(config, request, info)
            config = await self._agent.aupdate_state(config, update, as_node="rewind")
        thread_id = config["configurable"]["thread_id"]
        config["recursion_limit"] = UNBOUNDED
        state: Any = await self._agent.ainvoke(start, config, context=replace(context, branch=info))
        _refuse_questions(state, task)
        context.envs.release(place(state))
        return branch_record(state, thread_id=thread_id)

    async def close(self) -> None:
        """See `Player`."""

    async def _fork_update(self, config: RunnableConfig, request: Request, info: BranchInfo) -> dict[str, Any]:
        """What makes the checkpoint of a decision point a branch of its own, with its own account."""
        state: Any = (await self._agent.aget_state(config)).values
        if "task" not in state:
            raise RunFolderError(
                f"the checkpoint of branch {request.parent}'s decision point {request.decision_point} is gone: the run "
                "was started with another checkpointer or durability, or its checkpoints were deleted; give that one, "
                'or go on with checkpointer="memory" (--checkpointer memory)'
            )
        return forked(state, request.decision_point, request.experience, info)


class Remembered:
    """A branch is one superstep, and its turns stay in memory for the branches that are forked from it.

    What a kill took from memory comes back from the agent's saver, where it has one and that was given the branch's
    last state; else from the log: the turns themselves, and the environment by playing them again, which costs nothing
    (`EnvPool.lease`).
    """

    def __init__(self, agent: EpisodeAgent, *, forks: bool) -> None:
        self._agent, self._forks = agent, forks
        self._states: dict[str, State] = {}

    async def play(self, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
        """See `Player`."""
        info = info_of(branches, request)
        start: State | AgentInput = AgentInput(task=task)
        if request.parent is not None:
            parent = self._states.get(request.parent)
            parent = parent or await self._kept(owner(branches, request.parent, request.decision_point))
            parent = parent or _logged(task, path(branches, request.parent))
            update = forked(parent, request.decision_point, request.experience, info)
            for name in ("turns", "reflections", "abandoned"):
                update[name] = append(parent[name], [update[name]] if name in update else [])
            start = cast(State, {**parent, **update})
        config = _config(_new_thread(task, info)) if self._agent.checkpointer else None
        final: Any = await self._agent.ainvoke(
            {"state": start},
            config,
            context=replace(context, branch=info),
            durability="exit" if config else None,  # it warns where there is nothing to be durable
        )
        _refuse_questions(final, task)
        if self._forks:
            self._states[info["id"]] = final["state"]
        if config is None:
            return branch_record(final["state"], thread_id=None)
        branch = branch_record(final["state"], thread_id=config["configurable"]["thread_id"])
        last = (await self._agent.aget_state(config)).config["configurable"]["checkpoint_id"]
        return {**branch, "turns": [{**turn, "checkpoint_id": last} for turn in branch["turns"]]}

    async def close(self) -> None:
        """See `Player`."""

    async def _kept(self, branch: Branch) -> State | None:
        """Where a branch ended, if the agent's saver was told."""
        if not (self._agent.checkpointer and branch["thread_id"]):
            return None
        state: State | None = (await self._agent.aget_state(_config(branch["thread_id"]))).values.get("state")
        return state


def info_of(branches: Mapping[str, Branch], request: Request) -> BranchInfo:
    """What the branch that is requested is called, and where it leaves its parent."""
    name = next(name for name in map(str, itertools.count()) if name not in branches)
    if request.parent is None:
        return root(name)
    return child(name, branches[request.parent], request.decision_point)


def unplayed_branch(task: Task, branches: Sequence[Branch], request: Request, error: str) -> Branch:
    """What is logged in place of a branch that cannot be played.

    Args:
        task: the tree's task.
        branches: those of the tree that have ended, in order.
        request: where the branch would start.
        error: why it cannot.
    """
    tree: dict[str, Branch] = {branch["id"]: branch for branch in branches}
    state = fresh_start(task, "", None, info_of(tree, request)) | {
        "turns": [] if request.parent is None else path(tree, request.parent)[: request.decision_point],
        "reflections": [],
        "experience": request.experience,
        "end": "env_error",
        "error": error,
    }
    return branch_record(cast(State, state), thread_id=None)


def _logged(task: Task, turns: list[Any]) -> State:
    """What a fork needs of a branch's state, from the log."""
    return cast(State, {"task": task, "turns": turns, "reflections": [], "abandoned": []})


def _new_thread(task: Task, info: BranchInfo) -> str:
    return f"{task['id']}/{info['id']}/{uuid.uuid4().hex[:8]}"


def _refuse_questions(state: Any, task: Task) -> None:
    if asked := state.get("__interrupt__"):
        raise ConfigError(
            f"task {task['id']!r}: the environment or the model asked {asked[0].value!r} by interrupt(), and nobody is "
            "there to answer while trees are explored: let it decide by itself, or play the task with "
            "create_leafe_agent(checkpointer=…), which can be resumed with an answer"
        )


def _config(thread_id: str | None, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def player_of(
    context: Context, points: DecisionPoints, strategy: Strategy, *, durability: Durability
) -> Callable[[], Player]:
    """What makes the player of a tree: where no saver is to have each turn's state, a branch is one superstep."""
    if points.saver is None or durability == "exit":
        whole = build_episode(context, points.saver)
        return lambda: Remembered(whole, forks=strategy.forks)
    agent = build_graph(context, fused=True).compile(checkpointer=points.saver)
    return lambda: Saved(agent)
