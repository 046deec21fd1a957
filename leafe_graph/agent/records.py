"""From states and messages to what is saved of them."""

from typing import Any

from langchain_core.messages import AIMessage

from ..env.pool import Place
from ..errors import ReplayDivergence
from ..text import utf8, utf8_all
from ..types import FORMAT_VERSION, Branch, Divergence, ModelMessage
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
    """A chat model's answer as a record."""
    message = ModelMessage(content=utf8(answer.text))
    # Without the calls' ids, which are random: equal calls are equal messages.
    calls: list[dict[str, Any]] = [{"name": call["name"], "args": call["args"]} for call in answer.tool_calls]
    calls += [{"name": call["name"] or "", "args": call["args"] or ""} for call in answer.invalid_tool_calls]
    if calls:
        message["tool_calls"], refused = utf8_all(calls[:1]), utf8_all(calls[1:])
        if refused:
            message["refused_tool_calls"] = refused
    if isinstance(thoughts := answer.additional_kwargs.get("reasoning_content"), str):
        message["thoughts"] = utf8(thoughts)
    for field in ("prompt_token_ids", "token_ids", "logprobs"):
        if isinstance(answer.response_metadata.get(field), list):
            message[field] = answer.response_metadata[field]
    return message
