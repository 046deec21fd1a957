"""What is taken for a model: chat models, also bound and wrapped; anything else is one ConfigError, at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel
from test_graph import WON
from worlds import PIT, actions, pit_reply

from leafe_graph import ConfigError, create_leafe_agent, create_leafe_graph, explore, load_model
from leafe_graph.models.load import chat_model
from leafe_graph.testing import ScriptedModel, SnapshotGridWorld

SCRIPTED = ScriptedModel(reply=pit_reply)


class Move(BaseModel):
    """An answer with a structure."""

    way: str


def say(messages: Any) -> str:
    """Answer with a text."""
    return "up"


async def stream(messages: Any) -> AsyncIterator[str]:
    """Answer with parts of a text."""
    yield "up"


GRAPH = create_leafe_graph(SCRIPTED, env=SnapshotGridWorld)
ELSE: list[tuple[Any, str]] = [
    (GRAPH.compile(), r"is a graph \(CompiledStateGraph\)"),
    (GRAPH, r"is a graph \(StateGraph\)"),
    (create_leafe_agent(SCRIPTED, env=SnapshotGridWorld), "is a graph"),
    (SCRIPTED.with_structured_output(Move), "ends with an output parser, as with_structured_output"),
    (SCRIPTED | StrOutputParser(), "ends with an output parser"),
    (PromptTemplate.from_template("Do {it}") | SCRIPTED, "begins with a prompt template, .* prompts=Prompts"),
    (FakeListLLM(responses=["up"]), r"continues texts \(FakeListLLM\)"),
    (SCRIPTED.with_fallbacks([FakeListLLM(responses=["up"])]), "continues texts"),
    (say, r"is <function say .*> \(function\)"),
    (stream, r"\(function\)"),
    (ScriptedModel, r"is the class ScriptedModel, not an instance: ScriptedModel\("),
    (3, r"is 3 \(int\)"),
]
ANSWERS: list[Any] = [
    RunnableLambda(say),
    SCRIPTED.with_structured_output(Move, include_raw=True),
    RunnableLambda(lambda messages: {"messages": [AIMessage("up")]}),
    RunnableLambda(lambda messages: HumanMessage("up")),
]


@pytest.mark.parametrize(("model", "said"), ELSE)
def test_what_is_no_chat_model_is_refused_by_what_it_is(model: Any, said: str, tmp_path: Path) -> None:
    """By every way in, as policy and as reflector, before anything is played."""
    ways: Sequence[Callable[..., Any]] = (create_leafe_agent, create_leafe_graph)
    for build in ways:
        with pytest.raises(ConfigError, match=f"model .*{said}.*expected a chat model"):
            build(model, env=SnapshotGridWorld)
        with pytest.raises(ConfigError, match=f"reflector .*{said}"):
            build(SCRIPTED, env=SnapshotGridWorld, reflector=model)
    with pytest.raises(ConfigError, match=said):
        explore(model, SnapshotGridWorld, [PIT], out=tmp_path / "run")
    with pytest.raises(ConfigError, match=said):
        explore(SCRIPTED, SnapshotGridWorld, [PIT], out=tmp_path / "run", reflector=model)
    assert not (tmp_path / "run").exists()


def test_no_model_at_all_is_refused() -> None:
    """None as a policy; as a reflector it is the policy itself."""
    with pytest.raises(ConfigError, match="model is None; expected a chat model"):
        create_leafe_agent(None, env=SnapshotGridWorld)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the model is None"):
        load_model(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ANSWERS)
def test_what_answers_otherwise_than_a_chat_model_stops_at_once(model: Any, tmp_path: Path) -> None:
    """Only its first answer tells: a ConfigError with the answer, and not a branch of errors."""
    agent = create_leafe_agent(model, env=SnapshotGridWorld)
    for invoke in (agent.invoke, lambda given: asyncio.run(agent.ainvoke(given))):
        with pytest.raises(ConfigError, match=r"the model answered .* no AIMessage; expected a chat model"):
            invoke({"task": PIT})
    with pytest.raises(ConfigError, match="no AIMessage"):
        explore(model, SnapshotGridWorld, [PIT], out=tmp_path / "run")
    assert (tmp_path / "run/branches.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "model",
    [
        SCRIPTED.bind(stop=["\n"]),
        SCRIPTED.with_retry(),
        SCRIPTED.with_fallbacks([SCRIPTED]),
        SCRIPTED.bind_tools([Move]),
        SCRIPTED | RunnableLambda(lambda answer: answer),
        ChatPromptTemplate.from_messages([("system", "Be brief."), MessagesPlaceholder("asked")]) | SCRIPTED,
        RunnableLambda(lambda messages: SCRIPTED.invoke(messages)),
    ],
)
def test_chat_models_may_be_bound_and_wrapped(model: Any) -> None:
    """Settings, tools, retries, fallbacks, and chains that take messages and give one."""
    assert actions(create_leafe_agent(model, env=SnapshotGridWorld).invoke({"task": PIT})) == WON


def test_attribute_that_makes_no_chat_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line's ``python:MODULE:ATTRIBUTE`` names is held to the same."""
    for found in (lambda: say, lambda: None, lambda: GRAPH.compile()):
        monkeypatch.setattr("leafe_graph.models.load.attribute", lambda name, what, found=found: found)
        with pytest.raises(ConfigError, match=r"the model is .*expected a chat model"):
            chat_model("python:module:attribute")


def test_attribute_may_be_a_model_that_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is; settings belong on the model inside."""
    bound = SCRIPTED.bind(stop=["x"])
    monkeypatch.setattr("leafe_graph.models.load.attribute", lambda name, what: bound)
    assert chat_model("python:module:attribute", temperature=None) is bound
    with pytest.raises(ConfigError, match=r"\['temperature'\] cannot be set on a _ChatModelBinding"):
        chat_model("python:module:attribute", temperature=1.0)


# ---- tools


def test_scripted_model_calls_tools_that_are_bound_to_it() -> None:
    """A reply may carry calls; the answer tells which tools the call was given."""
    call = {"name": "walk", "args": {"way": "up"}, "id": "1", "type": "tool_call"}
    model = ScriptedModel(reply=[AIMessage("hm", tool_calls=[call]), "done"])  # type: ignore[list-item]
    bound = model.bind_tools([Move, {"name": "walk", "description": "Walk.", "parameters": {}}])
    answer = bound.invoke("x")
    assert (answer.text, answer.tool_calls) == ("hm", [call])
    assert answer.response_metadata["tools"] == ["Move", "walk"]
    assert asyncio.run(bound.ainvoke([HumanMessage("x"), answer])).text == "done"
    assert "tools" not in model.invoke("x").response_metadata


def test_scripted_tool_calls_are_played() -> None:
    """An agent plays the call as its environment's action."""
    seen: list[str] = []

    class World(SnapshotGridWorld):
        def step(self, action: str) -> Any:
            seen.append(action)
            return super().step(action)

    call = {"name": "walk", "args": {"way": "up"}, "id": "1", "type": "tool_call"}
    model = ScriptedModel(reply=[AIMessage("", tool_calls=[call])]).bind_tools([Move])  # type: ignore[list-item]
    state = create_leafe_agent(model, env=World, max_turns=1, max_rewinds=0).invoke({"task": PIT})
    assert seen == ['{"args": {"way": "up"}, "name": "walk"}']
    assert state["turns"][0]["message"]["tool_calls"][0]["args"] == {"way": "up"}
