"""One attempt of a whole agent, and its decisions as turns: how they are recorded, and given back."""

import itertools
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, HumanMessage, message_to_dict, messages_from_dict
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt

from ..agent.context import Model
from ..agent.effects import users
from ..agent.records import decided_turn
from ..agent.verdict import Verdict
from ..env.worlds import World
from ..errors import ConfigError, ReplayDivergence
from ..models.door import policy
from ..models.episode import KEY, Decision, Episode
from ..models.requests import TOKEN_FIELDS
from ..text import utf8_all
from ..types import EndReason, Reply, Task, Turn
from .forks import Step, Steps, can_fork


@dataclass(frozen=True, kw_only=True)
class WholeAgent:
    """What an agent is made of, and judged by; `explore_agent` describes it."""

    build: Callable[..., Any]
    world: Callable[[Task], World] | None
    judge: Callable[..., Any]
    inputs: Callable[[Task], Any] | None
    answer: Callable[[Interrupt], Any] | None
    redact: bool | Callable[[str], str] = True


class Attempt:
    """One run of the agent, with the answers that a person gave to it.

    Args:
        known: by decision, what was asked before it in the attempt that this one repeats.
    """

    def __init__(self, agent: WholeAgent, task: Task, episode: Episode, known: Sequence[Sequence[Reply]]) -> None:
        self.agent, self.task, self.episode = agent, task, episode
        self._known = list(itertools.chain.from_iterable(known))
        self.replies: list[tuple[int, Reply]] = []
        """Each with the number of decisions before it."""

    async def run(
        self, model: Model, world: World | None, steps: Steps | None = None, start: Step | None = None
    ) -> Any:
        """What the agent comes to; ``steps`` keeps where it can be forked, and ``start`` is where it is."""
        build, inputs = self.agent.build, self.agent.inputs
        agent = await users(lambda: build(policy(model), world), "build=").later()
        if not isinstance(agent, Pregel):
            raise ConfigError(f"build= gave a {type(agent).__name__}; expected a compiled graph or an entrypoint")
        if not agent.checkpointer:  # what is asked by interrupt() needs one
            agent = agent.copy({"checkpointer": steps if steps and can_fork(agent) else InMemorySaver()})
        config: Any = {"configurable": {KEY: self.episode, "thread_id": uuid.uuid4().hex}}
        given: Any = None
        if start is None:
            given = {"messages": [HumanMessage(self.task["instruction"])]} if inputs is None else inputs(self.task)
        else:
            config["configurable"] |= {"thread_id": start.thread_id, "checkpoint_id": start.checkpoint_id}
            if (limit := (agent.config or {}).get("recursion_limit")) is not None:
                config["recursion_limit"] = max(1, limit - start.done)
        while True:
            result = await agent.ainvoke(given, config, durability="sync")
            config["configurable"].pop("checkpoint_id", None)
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


def turns_of(attempt: Attempt, verdict: Verdict, end: EndReason) -> list[Turn]:
    """The attempt's own decisions as turns, in the order in which they were asked for.

    The one that was taken anew is the first: agents beside it may have asked before it was come to.
    """
    episode = attempt.episode
    made = sorted(episode.decisions, key=lambda decision: decision.began)
    first = sum(decision.given_back for decision in made)
    own = sorted((each for each in made if not each.given_back), key=lambda decision: not decision.anew)
    turns = []
    for place, decision in enumerate(own):
        turn = decided_turn(decision) | {
            "answer": _kept(decision.answer),
            "checkpoint_id": decision.step,
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
    metadata = {name: value for name, value in answer.response_metadata.items() if name not in TOKEN_FIELDS}
    kept = message_to_dict(answer.model_copy(update={"response_metadata": metadata}))
    whole: dict[str, Any] = utf8_all(json.loads(json.dumps(kept, default=str)))
    return whole


def decisions_of(turns: Sequence[Turn]) -> list[Decision]:
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
