"""A whole agent as the policy: a branch is an attempt of it, and a decision one call at its model's door.

A branch that leaves its parent at decision t begins anew: the world is brought back to the start, the answers that were
recorded before t are given back by what was asked, and tools run again. So it works for any agent, with decisions
inside subagents, parallel branches and functions; and what is asked shows whether it came to the same place.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, message_to_dict, messages_from_dict
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt

from ..agent.context import Context, Model
from ..agent.effects import users
from ..agent.model_calls import RAISED
from ..agent.nodes import reflect
from ..agent.records import branch_record, decided_turn, divergence_record
from ..agent.retries import REFUSED, is_servers
from ..agent.runnables import driven, later
from ..agent.state import State
from ..agent.transcript import cut
from ..agent.verdict import Verdict, verdict_of
from ..budget import Budget, Ledger, add_costs, no_cost
from ..env.worlds import World, occupy, vacate
from ..errors import BudgetExceeded, ConfigError, EnvError, LeafeError, ModelError, ReplayDivergence
from ..models.door import policy
from ..models.episode import KEY, Decision, Episode
from ..seeds import call_seed
from ..strategies import Request
from ..text import utf8, utf8_all
from ..tree.branches import path
from ..types import Branch, EndReason, Reply, Task, Turn
from .players import info_of

_TOKENS = ("prompt_token_ids", "token_ids", "logprobs")


@dataclass(frozen=True, kw_only=True)
class WholeAgent:
    """What an agent is made of, and judged by; `explore_agent` describes it."""

    build: Callable[..., Any]
    world: Callable[[Task], World] | None
    judge: Callable[..., Any]
    inputs: Callable[[Task], Any] | None
    answer: Callable[[Interrupt], Any] | None


class Replayed:
    """Plays the branches of one tree, see `leafe_graph.exploration.players.Player`."""

    def __init__(self, agent: WholeAgent) -> None:
        self._agent = agent
        self._world: World | None = None
        self._start: str | None = None
        self._owner = uuid.uuid4().hex

    async def play(self, context: Context, task: Task, branches: Mapping[str, Branch], request: Request) -> Branch:
        """See `Player`."""
        info = info_of(branches, request)
        before = [] if request.parent is None else path(branches, request.parent)
        t = info["decision_point"]
        ledger = Ledger(Budget(env_steps=context.play.horizon - t), parent=context.ledger)
        experience = request.experience and context.prompts.experience.format(experience=request.experience)
        episode = Episode(
            experience=experience,
            history=_decisions(before),
            at=None if request.parent is None else t,
            on_divergence=context.play.on_divergence,
            ledger=ledger,
        )
        seed = context.play.seed
        model = context.policy if seed is None else seeded(context.policy, call_seed(seed, task["id"], info["id"]))
        attempt = _Attempt(self._agent, task, episode, [turn.get("replies", []) for turn in before[: t + 1]])
        end, error, verdict = await self._attempt(attempt, model, context)
        turns = before[:t] + _turns(attempt, verdict, end)
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
        return branch_record(state, thread_id=None) | {"cost": add_costs(ledger.spent)}

    async def close(self) -> None:
        """See `Player`: the world is as it was at the start."""
        if self._world is not None:
            await asyncio.to_thread(self._leave, self._world)

    async def _attempt(
        self, attempt: "_Attempt", model: Model, context: Context
    ) -> tuple[EndReason, str | None, Verdict]:
        """How it ended, what was raised, and what the judge said."""
        episode, nothing = attempt.episode, Verdict(None)
        error: Exception | None = None
        try:
            await asyncio.to_thread(self._begin, attempt.task)
            result = await attempt.run(model, self._world)
            if episode.stop is None:
                attempt.refuse_other_way()
                return await self._judged(attempt, result)
        except GraphRecursionError as raised:
            if episode.stop is None:
                return "truncated", None, Verdict(False, str(raised))
        except RAISED:
            raise
        except Exception as raised:
            error = raised
        stop = episode.stop
        if isinstance(stop, BudgetExceeded):
            own = episode.ledger is not None and episode.ledger.budget.env_steps == episode.ledger.spent["env_steps"]
            return "max_turns" if own and stop.limit == "env_steps" else "budget", None, nothing
        if isinstance(stop, ReplayDivergence) and context.play.on_divergence == "end":
            return "replay_divergence", _told(stop), nothing
        if isinstance(stop, ModelError):
            error = episode.failed = stop
        elif stop is not None:
            raise stop
        assert error is not None
        if episode.failed is not None and episode.failed in _chain(error):
            if not isinstance(error, REFUSED):
                context.outage.failed(error)
            if not is_servers(error):
                context.traceback.show(error, "model")
            return "model_error", _told(error), nothing
        context.traceback.show(error, "agent, its world or its judge")
        return "env_error", _told(error), nothing

    async def _judged(self, attempt: "_Attempt", result: Any) -> tuple[EndReason, str | None, Verdict]:
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

    def _begin(self, task: Task) -> None:
        """A world as it was at the start."""
        if self._agent.world is None:
            return
        if self._world is None:
            world = self._agent.world(task)
            if not isinstance(world, World):
                raise ConfigError(f"world= gave a {type(world).__name__}; expected a World, such as PyObject(data)")
            occupy(world, self._owner)
            self._world = world
        if self._start is None:
            self._start = self._world.snapshot()
        else:
            self._world.restore(self._start)

    def _leave(self, world: World) -> None:
        try:
            if self._start is not None:
                world.restore(self._start)
                world.forget(self._start)
        finally:
            vacate(world, self._owner)


class _Attempt:
    """One run of the agent, with the answers that a person gave to it.

    Args:
        known: by decision, what was asked before it in the attempt that this one repeats.
    """

    def __init__(self, agent: WholeAgent, task: Task, episode: Episode, known: Sequence[Sequence[Reply]]) -> None:
        self.agent, self.task, self.episode = agent, task, episode
        self._known = list(itertools.chain.from_iterable(known))
        self.replies: list[tuple[int, Reply]] = []
        """Each with the number of decisions before it."""

    async def run(self, model: Model, world: World | None) -> Any:
        """What the agent comes to."""
        build, inputs = self.agent.build, self.agent.inputs
        agent = await users(lambda: build(policy(model), world), "build=").later()
        if not isinstance(agent, Pregel):
            raise ConfigError(f"build= gave a {type(agent).__name__}; expected a compiled graph or an entrypoint")
        if not agent.checkpointer:  # what is asked by interrupt() needs one
            agent = agent.copy({"checkpointer": InMemorySaver()})
        config: Any = {"configurable": {KEY: self.episode, "thread_id": uuid.uuid4().hex}}
        given = {"messages": [HumanMessage(self.task["instruction"])]} if inputs is None else inputs(self.task)
        while True:
            result = await agent.ainvoke(given, config)
            asked = result.get("__interrupt__") if isinstance(result, dict) else None
            if not asked or self.episode.stop is not None:
                return result
            given = Command(resume={each.id: await self._reply(each) for each in asked})

    async def _reply(self, asked: Interrupt) -> Any:
        answer, value = self.agent.answer, utf8_all(json.loads(json.dumps(asked.value, default=str)))
        known = next((each for each in self._known if each["asked"] == value), None)
        if known is not None:
            self._known.remove(known)
            found = known["answer"]
        elif answer is None:
            raise ConfigError(
                f"task {self.task['id']!r}: the agent asked {asked.value!r:.200} by interrupt(), and nobody is there "
                "to answer: give answer=, a function of the interrupt"
            )
        else:
            found = await users(lambda: answer(asked), "answer=").later()
            try:
                if json.loads(json.dumps(found)) != found:
                    raise ValueError("it comes back as something else")
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"answer= gave {found!r:.80}; expected JSON, for a replay to give back: {error}"
                ) from error
        self.replies.append((len(self.episode.decisions), Reply(asked=value, answer=found)))
        return found

    def refuse_other_way(self) -> None:
        """See that the replay came to the decision that was to be taken anew, by the same way.

        Raises:
            ReplayDivergence: what was recorded was not asked; noted on the episode.
        """
        episode = self.episode
        if (missing := episode.unasked) is None or episode.divergence is not None:
            return
        error = ReplayDivergence(
            f"the agent ended without asking what it had asked before: {missing[-200:]!r}",
            turn=len(episode.decisions),
            expected=missing,
            actual="",
        )
        if episode.on_divergence == "accept":
            episode.divergence = error
            return
        episode.stopped(error)
        raise error


def seeded(model: Any, seed: int) -> Any:
    """The same model with another sampling seed, where it takes one."""
    if isinstance(model, RunnableBindingBase):
        return model.model_copy(update={"bound": seeded(model.bound, seed)})
    takes = isinstance(model, BaseChatModel) and "seed" in type(model).model_fields
    return model.model_copy(update={"seed": seed}) if takes else model


def _turns(attempt: _Attempt, verdict: Verdict, end: EndReason) -> list[Turn]:
    """The attempt's own decisions as turns, in the order in which they were asked for."""
    episode = attempt.episode
    made = sorted(episode.decisions, key=lambda decision: decision.began)
    first = sum(decision.given_back for decision in made)
    own = [decision for decision in made if not decision.given_back]
    turns = []
    for place, decision in enumerate(own):
        turn = decided_turn(decision) | {
            "answer": _kept(decision.answer),
            "feedback": _what_came(decision, own[place + 1 :]),
        }
        if replies := [reply for number, reply in attempt.replies if number == first + place]:
            turn["replies"] = replies
        turns.append(turn)
    if turns and verdict.success is not None:
        turns[-1] |= {
            "feedback": verdict.feedback,
            "reward": float(verdict.success),
            "terminated": end != "truncated",
            "truncated": end == "truncated",
        }
    return turns


def _what_came(decision: Decision, later: Sequence[Decision]) -> str:
    """What the agent saw after it: in its own next request or, where it has none, in the next of any."""
    same = next((each for each in later if each.node == decision.node), later[0] if later else None)
    return same.request["messages"][-1]["content"] if same and same.request["messages"] else ""


def _kept(answer: AIMessage) -> dict[str, Any]:
    """The answer as JSON, without the token ids that its `ModelMessage` has."""
    metadata = {name: value for name, value in answer.response_metadata.items() if name not in _TOKENS}
    kept = message_to_dict(answer.model_copy(update={"response_metadata": metadata}))
    whole: dict[str, Any] = utf8_all(json.loads(json.dumps(kept, default=str)))
    return whole


def _decisions(turns: Sequence[Turn]) -> list[Decision]:
    """The turns of a path, to be given back: those before a turn are those that were asked for before it."""
    return [
        Decision(
            node=turn["node"],
            request=turn["request"],
            settings={},
            message=turn["message"],
            answer=cast(AIMessage, messages_from_dict([turn["answer"]])[0]),
            began=2 * place,
            ended=2 * place + 1,
        )
        for place, turn in enumerate(turns)
    ]


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
