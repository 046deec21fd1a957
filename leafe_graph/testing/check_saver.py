"""What exploring asks of a checkpoint saver, as a check that anybody can run on their own.

It plays the real state machine with a scripted policy and forks decision points as the explorer does. What each branch
must hold is known without any saver: its actions are played from the task's start in an environment of their own. Each
action is said together with the name of the branch that says it, so a turn that strays into another branch is seen.
"""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import BaseCheckpointSaver

from ..agent.context import Context
from ..agent.graph import build_graph
from ..agent.state import BranchInfo, forked
from ..env.pool import EnvPool
from ..env.protocol import SnapshotEnv, TextEnv
from ..errors import CheckpointError, ConfigError
from ..prompts import Prompts
from ..settings import Play
from ..types import Task

Saver = BaseCheckpointSaver[Any]
OpenSaver = Callable[[], AbstractContextManager[Saver] | AbstractAsyncContextManager[Saver]]

_TURNS = 5
_ROOT = "0"
_FIELDS = ("observation", "said", "action", "feedback", "reward", "terminated", "truncated", "valid")
_TASK = Task(
    id="check_saver",
    instruction="Walk to the goal.",
    options={"size": 6, "start": [2, 3], "goal": [5, 0], "pits": [[0, 0], [5, 5]]},
)


def check_saver(
    open_saver: OpenSaver,
    *,
    env: Callable[[], TextEnv] | None = None,
    task: Task | None = None,
    actions: Sequence[str] = ("up", "down", "left", "right"),
    at_once: int = 16,
) -> None:
    """Prove that decision points kept by a saver can be forked.

    Forks of the first, a middle and the last decision point, a fork of a fork, forks of a branch that was forked
    before, ``at_once`` forks of one decision point at the same time: each begins with exactly the path to its decision
    point and ends as if its actions had been played from the start, its account is its own, and all branches with all
    their decision points stay as they were. Then the saver is opened anew and everything is read and forked again.

    Run it once more with ``LANGGRAPH_STRICT_MSGPACK=true`` in the process's environment, if you use that.

    Args:
        open_saver: opens the saver on one and the same store whenever it is called, as
            ``lambda: SqliteSaver.from_conn_string(file)``; a database's tables must exist. The saver is used as the
            context manager asks for: an asynchronous one through its asynchronous methods, another one through the
            synchronous ones. A saver in memory is given as ``lambda: nullcontext(saver)``: opening it again then proves
            nothing about what outlives the process.
        env: makes an environment; the two grid worlds of `leafe_graph.testing`, with snapshots and without, if None.
        task: what to reset it to, and at least three turns long.
        actions: what may be played.
        at_once: how many forks are made at the same time.

    Raises:
        CheckpointError: which property does not hold, what was expected and what came.
        ConfigError: the task ends too early to fork it.
    """
    from .grid_world import GridWorld, SnapshotGridWorld  # they are exported beside this function

    for make in [GridWorld, SnapshotGridWorld] if env is None else [env]:
        asyncio.run(_check(open_saver, _Game(make, task or _TASK, list(actions)), at_once))


async def _check(open_saver: OpenSaver, game: "_Game", at_once: int) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(at_once))
    async with _opened(open_saver, game) as suite:
        root = await suite.start()
        last = len(root.turns) - 1
        if last < 2:
            raise ConfigError(
                f"task {game.task['id']!r} ends after {last + 1} turns; expected 3 or more to fork between"
            )
        middle = last // 2
        for where, t in (("first", 0), ("middle", middle), ("last", last)):
            await suite.fork(root, t, f"fork of the {where} decision point")
        child = suite.branches[2]
        grandchild = await suite.fork(child, middle + (len(child.turns) > middle + 1), "fork of a fork")
        await suite.fork(grandchild, 0, "fork of what a fork of a fork shares with the root")
        await suite.fork(root, middle, "second fork of the middle decision point")
        await suite.all_stand("after the forks")
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(suite.fork(root, last - 1, f"one of {at_once} forks at once"))
        await suite.all_stand(f"after {at_once} forks at once")
    async with _opened(open_saver, game) as again:
        again.branches = suite.branches
        await again.all_stand("after the saver was opened again")
        await again.fork(grandchild, middle, "fork after the saver was opened again")
        await again.stands(root, "the first rollout, after a fork in the saver that was opened again")


@dataclass
class _Branch:
    """What a branch must hold, and where it is kept."""

    name: str
    decision_point: int
    turns: list[dict[str, Any]]
    observations: list[str]
    """What is seen at each decision point, and in the end."""
    end: str
    thread: str
    parent: "_Branch | None" = None
    checkpoints: list[str] | None = None
    """Of each decision point."""
    leaf: str = ""

    def owner(self, t: int) -> "_Branch":
        """The branch whose decision point ``t`` is."""
        return self if self.parent is None or t >= self.decision_point else self.parent.owner(t)

    def at(self, t: int) -> dict[str, Any]:
        """What its state must hold at decision point ``t``, or, after the last turn, in the end."""
        own = self.owner(t)
        ended = t == len(self.turns)
        asked = [n for n in range(own.decision_point + 1, t + 1) if (n - own.decision_point) % 2 == 0]
        if ended and self.end == "success":
            asked = [n for n in asked if n < t]
        elif ended and t not in asked:
            asked.append(t)
        return {
            "error": None,
            "turns": self.turns[:t],
            "observation": self.observations[t],
            "branch": own.name,
            "experience": None if own.parent is None else _lesson(own.name),
            "reflections": asked,
            "environment steps": t - own.decision_point,
            "end": self.end if ended else None,
            "next": () if ended else ("act",),
        }


class _Game:
    """A task, and a policy that says which branch it plays."""

    def __init__(self, make_env: Callable[[], TextEnv], task: Task, actions: list[str]) -> None:
        self.make_env, self.task, self.actions = make_env, task, actions
        self.names = itertools.count(1)

    def move(self, name: str, t: int) -> str:
        """What branch ``name`` says at decision point ``t``."""
        return f"{random.Random(f'{name} {t}').choice(self.actions)} # said by {name}"

    def reply(self, prompt: Any) -> AIMessage:
        """The policy, which knows its branch from the prompt only, and a reflector that always lets it go on."""
        messages = convert_to_messages(prompt)
        text = messages[-1].text
        if "Which step was the mistake" in text:
            return AIMessage('{"step": null}')
        name = text.rpartition(_lesson(""))[2] if _lesson("") in text else _ROOT
        return AIMessage(self.move(name, sum(message.type == "ai" for message in messages)))

    def truth(self, name: str, parent: _Branch | None, decision_point: int, thread: str) -> _Branch:
        """The branch, played from the start without any saver."""
        env = self.make_env()
        observation = env.reset(seed=self.task.get("seed"), options=self.task.get("options"))[0]
        branch = _Branch(name, decision_point, [], [observation], "max_turns", thread, parent)
        for t in range(_TURNS):
            words = parent.turns[t]["said"] if parent is not None and t < decision_point else self.move(name, t)
            seen, (observation, reward, terminated, truncated, info) = observation, env.step(_action(words))
            feedback = str(info.get("feedback", observation))
            answer = (seen, words, _action(words), feedback, float(reward), terminated, truncated, info.get("valid"))
            branch.turns.append(dict(zip(_FIELDS, answer, strict=True)))
            branch.observations.append(observation)
            if terminated or truncated:
                branch.end = "truncated" if not terminated else "success" if info.get("success") else "failure"
                break
        env.close()
        return branch


@asynccontextmanager
async def _opened(open_saver: OpenSaver, game: _Game) -> AsyncIterator["_Suite"]:
    """A suite on a newly opened saver, with an agent and environments that have seen nothing yet."""
    with EnvPool(game.make_env) as envs:
        opening = open_saver()
        if isinstance(opening, AbstractAsyncContextManager):
            async with opening as saver:
                yield _Suite(saver, game, envs, "async")
        else:
            with opening as saver:
                yield _Suite(saver, game, envs, "sync")


class _Suite:
    """Plays and forks branches, and compares what the saver gives back."""

    def __init__(self, saver: Saver, game: _Game, envs: EnvPool, way: Literal["sync", "async"]) -> None:
        model = RunnableLambda(game.reply)
        self.context = Context(
            policy=model,
            reflector=model,
            envs=envs,
            prompts=Prompts(action=lambda message: _action(message["content"]), experience="{experience}"),
            play=Play(max_turns=_TURNS, reflect_every=2, seed=None),
            fork=True,
        )
        self.game, self.way = game, way
        self.agent: Any = build_graph(self.context).compile(checkpointer=saver)
        with closing(game.make_env()) as env:
            self.snapshots = isinstance(env, SnapshotEnv)
        self.branches: list[_Branch] = []

    async def start(self) -> _Branch:
        """Play the root, from which everything is forked."""
        thread = f"check_saver {uuid.uuid4()}"
        root = self.game.truth(_ROOT, None, 0, thread)
        return await self.play(root, {"task": self.game.task}, _config(thread), "first rollout")

    async def fork(self, parent: _Branch, t: int, where: str) -> _Branch:
        """Fork decision point ``t`` of a branch, look at the fork, play it to its end."""
        name = str(next(self.game.names))
        branch = self.game.truth(name, parent.owner(t), t, parent.thread)
        at = _config(parent.thread, (parent.checkpoints or [])[t])
        info = BranchInfo(id=name, parent=parent.name, decision_point=t, depth=1)
        state = await self.call("get_state", where, at)
        update = forked(state.values, t, _lesson(name), info)
        config = await self.call("update_state", where, at, update, as_node="rewind")
        expected = branch.at(t) | {"turns": branch.turns[:t]}
        self.same(expected, await self.call("get_state", where, config), f"{where}, before its first turn")
        return await self.play(branch, None, config, where)

    async def play(self, branch: _Branch, given: Any, config: RunnableConfig, where: str) -> _Branch:
        """Run a branch to its end; what it saved must be what it returned."""
        chunks = await self.call("stream", where, given, config, context=self.context, stream_mode="checkpoints")
        values = chunks[-1]["values"]
        self.same(branch.at(len(branch.turns)), _Snapshot(values, ()), where)
        replayed, steps = values["cost"]["replayed_steps"], 0 if self.snapshots else branch.decision_point
        if replayed != steps:
            _fail(f"{where}: replayed steps", steps, replayed)
        branch.checkpoints = [turn["checkpoint_id"] for turn in values["turns"]]
        branch.leaf = chunks[-1]["config"]["configurable"]["checkpoint_id"]
        self.branches.append(branch)
        await self.stands(branch, f"{where}, read back")
        return branch

    async def all_stand(self, when: str) -> None:
        """No branch may have changed."""
        for number, branch in enumerate(self.branches):
            await self.stands(branch, f"branch {number}, left at decision point {branch.decision_point}, {when}")

    async def stands(self, branch: _Branch, where: str) -> None:
        """The leaf and each decision point of its own hold what they must."""
        kept = list(enumerate([*(branch.checkpoints or []), branch.leaf]))
        for t, checkpoint in kept[branch.decision_point :]:
            what = f"{where}, " + (f"decision point {t}" if t < len(branch.turns) else "its end")
            state = await self.call("get_state", what, _config(branch.thread, checkpoint))
            self.same(branch.at(t), state, what)

    def same(self, expected: dict[str, Any], state: Any, where: str) -> None:
        """Compare what a state holds, field by field."""
        values = state.values
        if "turns" not in values or "branch" not in values:
            _fail(f"{where}: the checkpoint", "a state with turns", f"one with {sorted(values)}")
        actual = {
            "error": values["error"],
            "turns": [{**turn, "said": turn["message"]["content"]} for turn in values["turns"]],
            "observation": values["observation"],
            "branch": values["branch"]["id"],
            "experience": values["experience"],
            "reflections": [reflection["turn"] for reflection in values["reflections"]],
            "environment steps": values["cost"]["env_steps"],
            "end": values["end"],
            "next": state.next,
        }
        actual["turns"] = [{field: turn[field] for field in _FIELDS} for turn in actual["turns"]]
        for field, value in expected.items():
            if actual[field] != value:
                _fail(f"{where}: {field}", value, actual[field])
        if any((kept is None) == self.snapshots for kept in _kept(values)):
            _fail(f"{where}: snapshots", "one a turn" if self.snapshots else "none", _kept(values))

    async def call(self, method: str, where: str, *args: Any, **kwargs: Any) -> Any:
        """A method of the agent, in the saver's way."""
        try:
            if self.way == "async" and method == "stream":
                return [chunk async for chunk in self.agent.astream(*args, **kwargs)]
            if self.way == "async":
                return await getattr(self.agent, f"a{method}")(*args, **kwargs)
            collect = list if method == "stream" else lambda result: result
            return await asyncio.to_thread(lambda: collect(getattr(self.agent, method)(*args, **kwargs)))
        except Exception as error:
            raise CheckpointError(f"{where}: {method} raised {type(error).__name__}: {error}") from error


@dataclass
class _Snapshot:
    """What a run returned, in the form of what is read back."""

    values: Any
    next: tuple[str, ...]


def _kept(values: Any) -> list[bytes | None]:
    return [values["env_state"], *(turn["env_state"] for turn in values["turns"])]


def _action(words: str) -> str:
    return words.partition(" # ")[0]


def _lesson(name: str) -> str:
    return f"You are branch {name}"


def _config(thread: str, checkpoint: str | None = None) -> RunnableConfig:
    where = {"thread_id": thread, "checkpoint_ns": ""}
    return {"configurable": where if checkpoint is None else where | {"checkpoint_id": checkpoint}}


def _fail(where: str, expected: Any, actual: Any) -> None:
    raise CheckpointError(
        f"{where}:\n  expected {expected!r}\n  got      {actual!r}", property=where, expected=expected, actual=actual
    )
