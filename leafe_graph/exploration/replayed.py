"""A whole agent as the policy: a branch is an attempt of it, and a decision one call at its model's door.

A branch that leaves its parent at decision t begins anew: the world is brought back to the start, the answers that were
recorded before t are given back by what was asked, and tools run again. So it works for any agent, with decisions
inside subagents, parallel branches and functions; and what is asked shows whether it came to the same place. Where it
may fork (`forks.py`), it begins so at the step of that decision.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.errors import GraphRecursionError

from ..agent.context import Context, Model
from ..agent.effects import users
from ..agent.model_calls import RAISED
from ..agent.nodes import reflect
from ..agent.records import branch_record, divergence_record, safe_turn
from ..agent.retries import REFUSED, is_servers
from ..agent.runnables import driven, later
from ..agent.state import State
from ..agent.transcript import cut
from ..agent.verdict import Verdict, verdict_of
from ..budget import Budget, Ledger, add_costs, no_cost
from ..env.worlds import World, occupy, vacate
from ..errors import BudgetExceeded, ConfigError, EnvError, LeafeError, ModelError, ReplayDivergence
from ..models.episode import Episode, Halted
from ..redaction import redactor
from ..seeds import call_seed
from ..strategies import Request
from ..text import utf8
from ..tree.branches import path
from ..types import Branch, EndReason, Task
from .attempt import Attempt, WholeAgent, decisions_of, turns_of
from .forks import Step, Steps
from .players import info_of


class Replayed:
    """Plays the branches of one tree, see `leafe_graph.exploration.players.Player`."""

    def __init__(self, agent: WholeAgent, *, fork: bool = False) -> None:
        self._agent, self._steps = agent, Steps() if fork else None
        self._world: World | None = None
        self._start: str | None = None
        self._owner = uuid.uuid4().hex
        self._redacted = redactor(agent.redact)
        self._whole: dict[str, Branch] = {}
        """Branches of this process with their secrets: what is given back is what was said."""

    async def play(self, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
        """See `Player`."""
        info, branches = info_of(branches, request), {**branches, **self._whole}
        before = [] if request.parent is None else path(branches, request.parent)
        t = info["decision_point"]
        ledger = Ledger(Budget(env_steps=context.play.horizon - t), parent=context.ledger)
        experience = request.experience and context.prompts.experience.format(experience=request.experience)
        start, asked = self._steps.start_of(before, t) if self._steps else (None, [*range(len(before))])
        episode = Episode(
            experience=experience,
            history=decisions_of([before[place] for place in asked]),
            at=None if request.parent is None else asked.index(t),
            on_divergence=context.play.on_divergence,
            ledger=ledger,
        )
        seed = context.play.seed
        model = context.policy if seed is None else seeded(context.policy, call_seed(seed, task["id"], info["id"]))
        replies = [] if start else [turn.get("replies", []) for turn in before[: t + 1]]
        attempt = Attempt(self._agent, task, episode, replies)
        skipped = 0 if start is None else t - asked.index(t)
        end, error, verdict = await self._attempt(attempt, model, context, start, skipped)
        if self._steps and start is None:  # of these steps only some decisions are the branch's own
            for decision in episode.decisions:
                if decision.given_back:
                    self._steps.known.pop(decision.step or "", None)
        turns = before[:t] + turns_of(attempt, verdict, end)
        state: Any = {
            "task": task,
            "branch": info,
            "turns": turns,
            "experience": request.experience,
            "observation": verdict.feedback,
            "reflection": None,
            "reflections": [],
            "end": end,
            "error": error,
            "cost": no_cost(),
        }
        diverged = episode.stop if isinstance(episode.stop, ReplayDivergence) else episode.divergence
        if diverged is not None:
            state["divergence"] = divergence_record(diverged)
        state |= await self._reflected(state, replace(context, ledger=ledger))
        branch: Branch = branch_record(state, thread_id=None) | {"cost": add_costs(ledger.spent)}
        self._whole[branch["id"]] = branch
        return self._safe(branch)

    def _safe(self, branch: Branch) -> Branch:
        """The branch as it is logged."""
        turns = [safe_turn(turn, self._redacted) for turn in branch["turns"]]
        words = ("experience", "reflection", "reflections", "error", "divergence")
        return {**branch, **{name: self._redacted(branch.get(name)) for name in words}, "turns": turns}  # type: ignore[typeddict-item]

    async def close(self) -> None:
        """See `Player`: the world is as it was at the start."""
        if self._world is not None:
            await asyncio.to_thread(self._leave, self._world)

    async def _attempt(
        self, attempt: Attempt, model: Model, context: Context, start: Step | None, skipped: int
    ) -> tuple[EndReason, str | None, Verdict]:
        """How it ended, what was raised, and what the judge said; ``skipped`` decisions lie before its start."""
        episode, nothing = attempt.episode, Verdict(None)
        error: Exception | None = None
        try:
            for _ in range(skipped):  # a budget allows the same branches, forked or replayed
                episode.replayed()
            await asyncio.to_thread(self._begin, attempt.task, start)
            result = await attempt.run(model, self._world, self._steps, start)
            if episode.stop is None and (error := episode.failed) is None:  # else the agent has swallowed it
                attempt.refuse_other_way()
                return await self._judged(attempt, result)
        except GraphRecursionError:  # a fork's own words tell of the steps that were left
            if episode.stop is None and (error := episode.failed) is None:
                return "truncated", None, Verdict(False, "The agent took as many steps as it may, and came to no end.")
        except RAISED:
            raise
        except (Exception, Halted) as raised:
            error = raised if isinstance(raised, Exception) else None
        stop = episode.stop
        if isinstance(stop, BudgetExceeded):
            own = episode.ledger is not None and episode.ledger.budget.env_steps == episode.ledger.spent["env_steps"]
            return "max_turns" if own and stop.limit == "env_steps" else "budget", None, nothing
        if isinstance(stop, ReplayDivergence) and context.play.on_divergence == "end":
            return "replay_divergence", _told(stop), nothing
        if isinstance(stop, ModelError):
            error = stop
            episode.failures.append(stop)
        elif stop is not None:
            raise stop
        assert error is not None
        if any(each in episode.failures for each in _chain(error)):
            if not isinstance(error, REFUSED):
                context.outage.failed(error)
            if not is_servers(error):
                context.traceback.show(error, "model")
            return "model_error", _told(error), nothing
        context.traceback.show(error, "agent, its world or its judge")
        return "env_error", _told(error), nothing

    async def _judged(self, attempt: Attempt, result: Any) -> tuple[EndReason, str | None, Verdict]:
        judge, world = self._agent.judge, self._world
        if not attempt.episode.decisions:
            raise ConfigError(
                f"task {attempt.task['id']!r}: the agent has asked no model that build() was given: make it with the "
                "model of build(model, world)"
            )
        verdict = verdict_of(await users(lambda: judge(result, world, attempt.task), "judge=").later())
        if verdict.success is None:
            raise EnvError("the judge has no opinion, and a tree needs one: expected success=True or success=False")
        return "success" if verdict.success else "failure", None, verdict

    async def _reflected(self, state: Any, context: Context) -> dict[str, Any]:
        """What the reflector says of an attempt that failed, where a branch could follow."""
        whole = context.ledger.parent if context.ledger is not None else None
        lost = state["end"] in ("failure", "truncated", "max_turns")
        if not (context.reflect and lost and state["turns"] and whole and whole.refuses(env_steps=1) is None):
            return {}
        names = {turn.get("node") for turn in state["turns"]}
        shown = [
            turn
            | {
                "observation": cut(turn["observation"]),
                "action": cut(f"({turn.get('node')}) {turn['action']}" if len(names) > 1 else turn["action"]),
                "feedback": cut(turn["feedback"]),
            }
            for turn in state["turns"]
        ]
        observation = cut(state["observation"] or shown[-1]["feedback"])
        return await driven(reflect, cast(State, {**state, "turns": shown, "observation": observation}), context, later)

    def _begin(self, task: Task, start: Step | None) -> None:
        """A world as it was at the start, the task's or this one."""
        if self._steps is not None:
            self._steps.begin(start)
        if self._agent.world is None:
            return
        if self._world is None:
            world = self._agent.world(task)
            if not isinstance(world, World):
                raise ConfigError(f"world= gave a {type(world).__name__}; expected a World, such as PyObject(data)")
            occupy(world, self._owner)
            self._world = world
            if self._steps is not None:
                self._steps.world = world
        if self._start is None:
            self._start = self._world.snapshot()
        else:
            self._world.restore(start.ref if start is not None and start.ref else self._start)

    def _leave(self, world: World) -> None:
        try:
            if self._start is not None:
                world.restore(self._start)
                kept = {step.ref for step in self._steps.known.values() if step.ref} if self._steps else set()
                for ref in (*kept, self._start):
                    world.forget(ref)
        finally:
            vacate(world, self._owner)


def seeded(model: Any, seed: int) -> Any:
    """The same model with another sampling seed, where it takes one."""
    if isinstance(model, RunnableBindingBase):
        return model.model_copy(update={"bound": seeded(model.bound, seed)})
    takes = isinstance(model, BaseChatModel) and "seed" in type(model).model_fields
    return model.model_copy(update={"seed": seed}) if takes else model


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what it was raised from."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def _told(error: Exception) -> str:
    return utf8(
        str(error)
        if isinstance(error, LeafeError) and not isinstance(error, EnvError)
        else f"{type(error).__name__}: {error}"
    )
