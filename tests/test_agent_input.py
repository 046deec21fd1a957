"""What a compiled agent takes: a task, and settings of one run; what it says of anything else."""

import asyncio
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from test_graph import Match
from worlds import PIT, Recorder, actions

from leafe_graph import Budget, ConfigError, create_leafe_agent, explore
from leafe_graph.agent.context import PerRun
from leafe_graph.settings import Play
from leafe_graph.testing import ScriptedModel, SnapshotGridWorld


def agent_of(recorder: Recorder, **settings: Any) -> Any:
    """The walk that is lost once and then won."""
    return create_leafe_agent(recorder.model, env=SnapshotGridWorld, **settings)


@pytest.mark.parametrize("context", [None, {}, PerRun()])
def test_run_that_brings_no_settings_is_played_by_the_agents_own(context: Any) -> None:
    """An empty context, as servers send it, changes nothing: not even settings whose default is another."""
    state = agent_of(Recorder(), max_turns=2, max_rewinds=0).invoke({"task": PIT}, context=context)
    assert (state["end"], actions(state)) == ("max_turns", ["down", "right"])


@pytest.mark.parametrize("context", [{"max_turns": 2, "max_rewinds": 0}, PerRun(max_turns=2, max_rewinds=0)])
def test_run_brings_settings_of_its_own(context: Any) -> None:
    """As a mapping or as an object; the next run is played by the agent's own again."""
    agent = agent_of(Recorder())
    assert agent.invoke({"task": PIT}, context=context)["end"] == "max_turns"
    assert asyncio.run(agent.ainvoke({"task": PIT}, context=context))["end"] == "max_turns"
    assert agent.invoke({"task": PIT})["end"] == "success"


def test_run_may_be_longer_and_rewind_more_often_than_the_agent() -> None:
    """LangGraph's limit of supersteps is not in the way; an agent that never reflects does so where it is told to."""
    agent = create_leafe_agent(
        ScriptedModel(reply=lambda messages, seed: "left"), env=SnapshotGridWorld, max_turns=1, max_rewinds=0
    )
    assert len(agent.invoke({"task": PIT}, context={"max_turns": 90})["turns"]) == 90
    agent = agent_of(Recorder(), max_rewinds=0)
    assert agent.invoke({"task": PIT})["end"] == "failure"
    assert agent.invoke({"task": PIT}, context={"max_rewinds": 1})["end"] == "success"


def test_run_brings_a_budget_and_tries() -> None:
    """Limits of one run; how often its calls are tried; settings of `Play` alone are taken as well."""

    class Down(ScriptedModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            recorder.calls += 1
            raise ConnectionError("gone")

    recorder = Recorder()
    agent = create_leafe_agent(Down(reply=[]), env=SnapshotGridWorld)
    assert agent.invoke({"task": PIT}, context=Play(tries=1))["end"] == "model_error"
    assert recorder.calls == 1
    state = agent_of(Recorder()).invoke({"task": PIT}, context={"budget": {"env_steps": 1}})
    assert (state["end"], len(state["turns"])) == ("budget", 1)
    state = agent_of(Recorder(), budget=Budget(env_steps=1)).invoke({"task": PIT}, context={"budget": None})
    assert state["end"] == "success"


def test_setting_that_is_not_known_or_out_of_range_is_refused() -> None:
    """By name, before anything is played."""
    recorder = Recorder()
    with pytest.raises(ConfigError, match="max_turn"):
        agent_of(recorder).invoke({"task": PIT}, context={"max_turn": 3})
    with pytest.raises(ConfigError, match="max_turns=0; expected 1 or more"):
        agent_of(recorder).invoke({"task": PIT}, context={"max_turns": 0})
    assert recorder.calls == 0


def test_settings_of_a_bigger_graph_are_not_the_agents() -> None:
    """A graph around it has a context of its own, which may have the same names."""

    class Theirs(BaseModel):
        max_turns: int

    graph = StateGraph(Match, context_schema=Theirs)
    graph.add_node("player", agent_of(Recorder()))
    graph.add_edge(START, "player")
    state = graph.compile().invoke({"task": PIT, "log": []}, context={"max_turns": 1})  # type: ignore[arg-type]
    assert state["end"] == "success"


def test_schemas_and_picture_are_there_for_a_server() -> None:
    """What a client may give is JSON: the input, settings without defaults (the agent has its own), no live object."""
    agent = agent_of(Recorder())
    assert list(agent.get_input_jsonschema()["properties"]) == ["task"]
    assert {"turns", "abandoned", "end"} <= agent.get_output_jsonschema()["properties"].keys()
    context = agent.get_context_jsonschema()
    assert context["properties"].keys() == PerRun.model_fields.keys() > Play.model_fields.keys()
    assert "required" not in context
    assert all("default" not in each and each["description"] for each in context["properties"].values())
    assert "reset" in agent.get_graph().draw_mermaid()


WRONG = [
    ({"messages": [("user", "hello")]}, "no task was given: an agent is invoked with .'task'"),
    ({"task": None}, "no task was given"),
    ({"task": 3}, "the task is 3: an agent is invoked with"),
    ({"task": ["a"]}, r"the task is \['a'\]"),
    ({"task": {"instruction": "Go."}}, r"a task needs id and instruction; \['id'\] not in"),
    ({"task": PIT | {"id": 7}}, "the task's id is 7; expected a text"),
    ({"task": PIT | {"seed": "x"}}, "the task's seed is 'x'; expected a whole number"),
    ({"task": PIT | {"options": ["size"]}}, "the task's options is .* expected a mapping"),
]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "batch"])
def test_input_that_is_no_task_is_told(way: str) -> None:
    """Every way in says what an agent takes, and nothing is played."""
    ways = {
        "invoke": lambda agent, given: agent.invoke(given),
        "ainvoke": lambda agent, given: asyncio.run(agent.ainvoke(given)),
        "stream": lambda agent, given: [*agent.stream(given)],
        "batch": lambda agent, given: agent.batch([given]),
    }
    recorder = Recorder()
    agent = agent_of(recorder)
    for given, said in WRONG:
        with pytest.raises(ConfigError, match=said):
            ways[way](agent, given)
    assert recorder.calls == 0


def test_tasks_that_are_none_are_told_before_exploring(tmp_path: Any) -> None:
    """The same for a run, where a text in place of a list would be a task a letter."""
    for tasks, said in [([3], "the task is 3"), ("Go.", "tasks is 'Go.'; expected a list"), (PIT, "expected a list")]:
        with pytest.raises(ConfigError, match=said):
            explore(ScriptedModel(reply=["up"]), SnapshotGridWorld, tasks, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
