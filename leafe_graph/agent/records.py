"""From states and messages to what is saved of them."""

from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage

from ..env.pool import Place
from ..errors import ReplayDivergence
from ..models.episode import Decision
from ..models.requests import TOKEN_FIELDS
from ..models.requests import model_message as whole_message
from ..prompts import call_text
from ..types import FORMAT_VERSION, Branch, Divergence, ModelMessage, Turn
from .state import State


def branch_record(state: State, *, thread_id: str | None) -> Branch:
    """What the run folder keeps of a branch that has ended."""
    info, turns = state["branch"], state["turns"]
    return Branch(
        version=FORMAT_VERSION,
        id=info["id"],
        task=state["task"],
        parent=info["parent"],
        depth=info["depth"],
        decision_point=info["decision_point"],
        experience=state["experience"],
        turns=[turn | {"env_state": None} for turn in turns[info["decision_point"] :]],
        reflection=state["reflection"],
        reflections=state["reflections"],
        end=state["end"] or "rewound",
        error=state["error"],
        divergence=state.get("divergence"),
        return_=sum(turn["reward"] for turn in turns),
        cost=state["cost"],
        thread_id=thread_id,
    )


def divergence_record(error: ReplayDivergence) -> Divergence:
    """What a record keeps of the error."""
    return Divergence(turn=error.turn, expected=error.expected, actual=error.actual)


def place(state: State) -> Place:
    """Where the episode's environment stands."""
    return Place(
        task=state["task"],
        turns=state["turns"],
        observation=state["observation"],
        env_state=state["env_state"],
        owner=state["branch"]["id"],
    )


def model_message(answer: AIMessage) -> ModelMessage:
    """A chat model's answer as a record of one action: calls after the first are not carried out."""
    message = whole_message(answer)
    if refused := message.get("tool_calls", [])[1:]:
        message["tool_calls"], message["refused_tool_calls"] = message["tool_calls"][:1], refused
    return message


def decided_turn(decision: Decision) -> Turn:
    """What a run folder keeps of a decision of an agent that makes its own prompts; what came of it is not told yet."""
    request, message = decision.request, decision.message
    calls = [call_text(call) for call in message.get("tool_calls", [])]
    asked = request["messages"][-1]["content"] if request["messages"] else ""
    return Turn(
        observation=asked,
        action="\n".join([message["content"]] * bool(message["content"] or not calls) + calls),
        message=message,
        feedback="",
        reward=0.0,
        terminated=False,
        truncated=False,
        valid=None,
        checkpoint_id=decision.config.get("checkpoint_id"),
        env_state=None,
        request=request,
        node=decision.node,
    )


def safe_turn(turn: Turn, redacted: Callable[[Any], Any]) -> Turn:
    """The turn without secrets; where it had one, token ids would spell it."""
    safe: Turn = redacted(turn)
    if safe != turn:
        safe["message"] = {name: held for name, held in safe["message"].items() if name not in TOKEN_FIELDS}  # type: ignore[typeddict-item]
    return safe
