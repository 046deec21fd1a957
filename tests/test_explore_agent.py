"""`explore_agent`: whole agents, however they are built, as the policy of a tree that rewinds into their middle."""

import asyncio
import json
import operator
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from agents import calls
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm
from typing_extensions import TypedDict

from leafe_graph import (
    Budget,
    ConfigError,
    Limits,
    NothingPlayed,
    ReplayDivergence,
    RunFolder,
    Verdict,
    aexplore_agent,
    explore_agent,
    export,
)
from leafe_graph.cli.main import main
from leafe_graph.env.worlds import PyObject
from leafe_graph.report import transcript, write_report
from leafe_graph.testing import ScriptedModel

TIP = "Take the lamp, not the vase."


class House(PyObject):
    """What the tools change, and how often they were called."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.data = {"taken": []} if data is None else data
        super().__init__(self.data)

    def seen(self) -> str:
        """What is seen in it."""
        return "There are a vase and a lamp."


def says(messages: list[Any], seed: int | None) -> str | AIMessage:
    """Looks, takes the wrong thing unless it was told better, and ends."""
    last = str(messages[-1].content)
    if last.startswith("There are"):
        return calls(("take", {"thing": "lamp" if TIP in last else "vase"}))
    return "Done." if last.startswith("You have") else calls(("look", {"place": "attic"}))


def blames(messages: list[Any], seed: int | None) -> str:
    """The step at which the vase was taken."""
    (step,) = re.findall(r'^(\d+)\. .*"vase"', str(messages[-1].content), re.MULTILINE)
    return json.dumps({"step": int(step), "experience": TIP})


def tools_of(world: Any) -> dict[str, Any]:
    """Tools that change the world."""

    @tool
    def look(place: str) -> str:
        """Look around."""
        return str(world.seen())

    @tool
    def take(thing: str) -> str:
        """Take something."""
        world.data["taken"].append(thing)
        return f"You have {' and '.join(world.data['taken'])}."

    return {"look": look, "take": take}


def ready_made(model: Any, world: Any) -> Any:
    """LangChain's agent."""
    return create_agent(model, list(tools_of(world).values()))


def own_graph(model: Any, world: Any) -> Any:
    """A graph whose messages are added up, with coroutines as nodes."""

    class State(TypedDict):
        messages: Annotated[list[Any], operator.add]

    tools = tools_of(world)
    able = model.bind_tools(list(tools.values()))

    async def think(state: State) -> Any:
        return {"messages": [await able.ainvoke(state["messages"])]}

    async def act(state: State) -> Any:
        wanted = state["messages"][-1].tool_calls
        return {"messages": [await tools[call["name"]].ainvoke({**call, "type": "tool_call"}) for call in wanted]}

    graph = StateGraph(State)
    graph.add_node("think", think)
    graph.add_node("act", act)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", lambda state: "act" if state["messages"][-1].tool_calls else END)
    graph.add_edge("act", "think")
    return graph.compile()


def supervised(model: Any, world: Any) -> Any:
    """An agent that has another one do the work, and then says how it went."""

    class State(TypedDict):
        messages: Annotated[list[Any], operator.add]

    worker = create_agent(model, list(tools_of(world).values()), name="worker")

    def boss(state: State) -> Any:
        model.invoke([SystemMessage("You are the boss."), HumanMessage("You have a worker.")])
        return {"messages": []}

    def report(state: State) -> Any:
        return {"messages": [model.invoke([HumanMessage(f"You have heard: {state['messages'][-2].text}")])]}

    graph = StateGraph(State)
    for name, node in (("boss", boss), ("worker", worker), ("report", report)):
        graph.add_node(name, node)
    graph.add_edge(START, "boss")
    graph.add_edge("boss", "worker")
    graph.add_edge("worker", "report")
    return graph.compile()


def parallel(model: Any, world: Any) -> Any:
    """Two agents at once, of which one does the work, and a last one."""

    class State(TypedDict, total=False):
        messages: Annotated[list[Any], operator.add]
        place: str

    tools = tools_of(world)
    able = model.bind_tools(list(tools.values()))

    def search(state: State) -> Any:
        said: list[Any] = [HumanMessage(f"Search the {state['place']}.")]
        if state["place"] == "cellar":
            return {"messages": [model.invoke([HumanMessage("You have the cellar.")])]}
        while (answer := able.invoke(said)).tool_calls:
            said += [answer, *(tools[call["name"]].invoke({**call, "type": "tool_call"}) for call in answer.tool_calls)]
        return {"messages": [answer]}

    graph = StateGraph(State)
    graph.add_node("search", search)
    graph.add_node("end", lambda state: {"messages": [model.invoke([HumanMessage("You have all.")])]})
    graph.add_conditional_edges(START, lambda state: [Send("search", {"place": each}) for each in ("attic", "cellar")])
    graph.add_edge("search", "end")
    return graph.compile()


def functional(model: Any, world: Any) -> Any:
    """LangGraph's functional API."""
    tools = tools_of(world)
    able = model.bind_tools(list(tools.values()))

    @task
    def ask(messages: list[Any]) -> Any:
        return able.invoke(messages)

    @task
    def use(call: Any) -> ToolMessage:
        return tools[call["name"]].invoke({**call, "type": "tool_call"})  # type: ignore[no-any-return]

    @entrypoint()
    def agent(given: Any) -> Any:
        messages = list(given["messages"])
        while (answer := ask(messages).result()).tool_calls:
            messages += [answer, *(use(call).result() for call in answer.tool_calls)]
        return messages

    return agent


def judge(result: Any, world: Any, task: Any) -> Verdict:
    """Whether the lamp was taken, and nothing else."""
    return Verdict(world.data["taken"] == ["lamp"], f"You took {world.data['taken']}.")


def explored(out: Path, build: Any = ready_made, *, wait: bool = False, **more: Any) -> RunFolder:
    """Trees of an agent."""
    given: Any = {
        "world": lambda task: House(),
        "judge": judge,
        "out": out,
        "reflector": ScriptedModel(reply=blames),
        "limits": Limits(max_branches=4),
    } | more
    model, tasks = given.pop("model", ScriptedModel(reply=says)), given.pop("tasks", ["Fetch the lamp."])
    return (
        asyncio.run(aexplore_agent(build, model, tasks, **given))
        if wait
        else explore_agent(build, model, tasks, **given)
    )


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("build", [ready_made, own_graph, supervised, parallel, functional])
def test_an_agent_goes_back_into_its_middle(build: Any, wait: bool, tmp_path: Path) -> None:
    """At the decision to blame, wherever it was made: recorded answers before it, tools in a world as at the start."""
    run = explored(tmp_path / "run", build, wait=wait)
    lost, won = run.branches
    assert (lost["end"], won["end"], won["parent"], won["experience"]) == ("failure", "success", "0", TIP)
    t = won["decision_point"]
    assert t > 0 and lost["turns"][t]["message"]["tool_calls"][0]["args"] == {"thing": "vase"}
    assert won["turns"][0]["message"]["tool_calls"][0]["args"] == {"thing": "lamp"}
    assert won["turns"][0]["request"] == lost["turns"][t]["request"] and TIP not in str(won["turns"])
    assert won["turns"][0]["node"] == lost["turns"][t]["node"]
    assert (won["cost"]["replayed_steps"], won["cost"]["env_steps"]) == (t, len(won["turns"]))
    assert (lost["return_"], won["return_"]) == (0.0, 1.0)


class HandsOver(ScriptedModel):
    """Gives the work to bob where it can, and does it where it has the tools."""

    def _answer(self, messages: list[Any], stop: Any, kwargs: dict[str, Any]) -> Any:
        names = {each["function"]["name"] for each in kwargs.get("tools", [])}
        given = {"task": {"description": "fetch", "subagent_type": "bob"}, "transfer_to_bob": {}}
        said: str | AIMessage = "Done."
        if "look" in names:
            said = says(messages, None)
        elif messages[-1].type == "human" and (tools := [name for name in given if name in names]):
            said = calls((tools[0], given[tools[0]]))
        return ScriptedModel(reply=[said])._answer(messages, stop, kwargs)


def deep(model: Any, world: Any) -> Any:
    """A deep agent, whose subagents run inside a tool."""
    bob = {
        "name": "bob",
        "description": "fetches",
        "system_prompt": "You are bob.",
        "tools": [*tools_of(world).values()],
    }
    return create_deep_agent(model, subagents=[bob])  # type: ignore[list-item]


def supervisor(model: Any, world: Any) -> Any:
    """The package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is made of LangGraph's earlier agent
        return create_supervisor([create_agent(model, [*tools_of(world).values()], name="bob")], model=model).compile()


def swarm(model: Any, world: Any) -> Any:
    """The package's."""
    alice = create_agent(model, [create_handoff_tool(agent_name="bob")], name="alice")
    bob = create_agent(model, [*tools_of(world).values()], name="bob")
    return create_swarm([alice, bob], default_active_agent="alice").compile()


@pytest.mark.parametrize("build", [deep, supervisor, swarm])
@pytest.mark.parametrize("wait", [False, True])
def test_agents_of_others_go_back_into_their_subagents(build: Any, wait: bool, tmp_path: Path) -> None:
    """As they are, with the decision to blame inside the agent that the work was given to."""
    lost, won = explored(tmp_path / "run", build, wait=wait, model=HandsOver(reply=[""])).branches
    assert (lost["end"], won["end"], won["decision_point"]) == ("failure", "success", 2)
    assert "bob" in won["turns"][0]["node"].split("/") and won["cost"]["replayed_steps"] == 2


@pytest.mark.parametrize("build", [ready_made, supervised])
def test_its_run_is_a_run_folder_as_any_other(build: Any, tmp_path: Path) -> None:
    """It is exported as rows with tools, shown, and reported; run again it is given back as it is."""
    run = explored(tmp_path / "run", build)
    summary = export(run, kinds=["counterfactual", "rehearsal", "preference"])
    assert (summary.counterfactual, summary.preference, summary.leaked) == (1, 1, 0)
    rows = [json.loads(line) for line in (tmp_path / "run/examples/examples.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "counterfactual"]
    assert [each["function"]["name"] for each in row["tools"]] == ["look", "take"]
    assert row["completion"][0]["tool_calls"][0]["function"] == {"name": "take", "arguments": {"thing": "lamp"}}
    assert row["prompt"][-1]["content"] == "There are a vase and a lamp."
    assert "You took ['vase']." in transcript(run.branches) and write_report(run).exists()
    log = (tmp_path / "run/branches.jsonl").read_bytes()
    explored(tmp_path / "run", build)
    assert (tmp_path / "run/branches.jsonl").read_bytes() == log


@pytest.mark.parametrize("build", [ready_made, supervised, parallel, functional])
def test_a_run_that_was_killed_goes_on(build: Any, tmp_path: Path) -> None:
    """What was recorded of the first attempt is given back by another process, which knows the log alone."""
    whole = explored(tmp_path / "run", build).branches[1]
    log = tmp_path / "run" / "branches.jsonl"
    first, second = log.read_text().splitlines(keepends=True)
    log.write_text(first + second[:40])
    again = explored(tmp_path / "run", build)
    assert [branch["end"] for branch in again.branches] == ["failure", "success"]
    assert again.branches[1]["cost"]["replayed_steps"] == whole["cost"]["replayed_steps"]
    assert again.branches[1]["turns"][0]["request"]["messages"][-1]["content"].startswith("There are")


def looking(says: Callable[[str], str]) -> Any:
    """An agent whose tool finds in a place what this function says."""

    def build(model: Any, world: Any) -> Any:
        @tool
        def look(place: str) -> str:
            """Look around."""
            return says(place)

        return create_agent(model, [look, tools_of(world)["take"]])

    return build


def test_a_world_that_is_not_what_it_was_is_a_divergence(tmp_path: Path) -> None:
    """What changes beside the world that was declared shows in a prompt: the branch ends, unless that is accepted."""

    def clocked() -> Any:
        times = iter(range(100))
        return looking(lambda place: f"There are a vase and a lamp, at {next(times)}.")

    one = Limits(max_branches=2)
    run = explored(tmp_path / "end", clocked(), limits=one)
    assert run.branches[1]["end"] == "replay_divergence" and "at 1" in str(run.branches[1]["divergence"])
    run = explored(tmp_path / "accept", clocked(), limits=one, on_divergence="accept")
    assert run.branches[1].get("divergence") and run.branches[1]["end"] in ("success", "failure")
    with pytest.raises(ReplayDivergence):
        explored(tmp_path / "raise", clocked(), limits=one, on_divergence="raise")


def test_a_replay_that_ends_too_soon_is_a_divergence(tmp_path: Path) -> None:
    """An agent that no longer asks what was recorded has come another way."""
    attempts = iter(range(9))

    def build(model: Any, world: Any) -> Any:
        if next(attempts) == 1:
            return entrypoint()(lambda given: "nothing")
        return ready_made(model, world)

    run = explored(tmp_path / "run", build, limits=Limits(max_branches=2))
    assert run.branches[1]["end"] == "replay_divergence" and "ended without" in str(run.branches[1]["error"])


SECRET = "ghp_" + "a1B2" * 10


@pytest.mark.parametrize("redact", [True, False])
def test_secrets_are_not_logged_and_replays_go_on_with_them(redact: bool, tmp_path: Path) -> None:
    """What a tool has shown is given back as it was; the log is without the secret, unless that is wanted."""
    build = looking(lambda place: f"There are a vase, a lamp and {SECRET}.")
    run = explored(tmp_path / "run", build, redact=redact)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert (SECRET in (tmp_path / "run/branches.jsonl").read_text()) is not redact


asking = looking(lambda place: f"There are a vase and a lamp; {interrupt(f'May I look into the {place}?')}.")
"""An agent that asks before it takes something."""


def test_what_a_person_answers_is_recorded_and_given_back(tmp_path: Path) -> None:
    """Asked once, and not again where a branch comes by the same question."""
    asked: list[str] = []

    def answer(question: Any) -> str:
        asked.append(question.value)
        return f"yes, the {len(asked)}th time"

    run = explored(tmp_path / "run", asking, answer=answer)
    assert asked == ["May I look into the attic?"] and [b["end"] for b in run.branches] == ["failure", "success"]
    for branch in run.branches:
        assert branch["turns"][1 - branch["decision_point"]]["replies"] == [
            {"asked": asked[0], "answer": "yes, the 1th time"}
        ]
    with pytest.raises(ConfigError, match=r"answer="):
        explored(tmp_path / "nobody", asking)


def test_an_agent_ends_by_its_horizon_its_budget_and_its_failures(tmp_path: Path) -> None:
    """Each by its typed end: an attempt that is cut short is reflected upon, one that failed for others is not."""

    def fails(messages: list[Any], seed: int | None) -> str | AIMessage:
        if len(messages) > 2:
            raise RuntimeError("out of memory")
        return says(messages, seed)

    one = Limits(max_branches=1)
    (branch,) = explored(tmp_path / "long", max_turns=2, limits=Limits(max_branches=2)).branches[:1]
    assert branch["end"] == "max_turns" and branch["reflection"] and len(branch["turns"]) == 2
    (branch,) = explored(tmp_path / "poor", budget=Budget(model_calls=2), limits=one).branches
    assert branch["end"] == "budget" and branch["cost"]["model_calls"] == 2
    with pytest.raises(NothingPlayed, match="out of memory"):
        explored(tmp_path / "model", model=ScriptedModel(reply=fails), limits=one)
    assert RunFolder(tmp_path / "model").branches[0]["end"] == "model_error"

    def broken(model: Any, world: Any) -> Any:
        return entrypoint()(lambda given: {}[model.invoke("You have").text])

    with pytest.raises(NothingPlayed, match="KeyError"):
        explored(tmp_path / "agent", broken, limits=one)
    assert RunFolder(tmp_path / "agent").branches[0]["end"] == "env_error"


def test_many_tasks_are_played_at_once_each_in_its_world(tmp_path: Path) -> None:
    """Functions that wait for others in threads do not wait for ever."""
    run = explored(tmp_path / "run", functional, tasks=[f"Fetch lamp {i}." for i in range(5)], concurrency=5)
    assert len(run.solved) == 5 and len(run.branches) == 10


MODULE = """
from test_explore_agent import House, blames, judge, ready_made as build, says
from leafe_graph.testing import ScriptedModel

def tasks(split, n, start=0):
    return [f"Fetch lamp {start + i} of {split}." for i in range(n)]

def world(task):
    return House()

fork = True
policy, critic = ScriptedModel(reply=says), ScriptedModel(reply=blames)
"""


def test_the_command_line_plays_what_a_module_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent with its tasks, world and judge; settings of environments are refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_agent.py").write_text(MODULE)
    command = ["explore", "--agent", "my_agent:build", "--model", "python:my_agent:policy", "--out", "run"]
    command += ["--reflector", "python:my_agent:critic", "--tasks", "2", "--start", "3"]
    assert main(command) == 0
    run = RunFolder("run")
    assert run.solved == {task["id"] for task in (branch["task"] for branch in run.branches)} and len(run.solved) == 2
    assert (
        run.branches[0]["task"]["instruction"].startswith("Fetch lamp")
        and run.settings.model == "python:my_agent:policy"
    )
    assert main(command) == 0 and len(RunFolder("run").logged) == 4
    assert main([*command, "--env", "webshop"]) == 2
    assert "has no environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"build": lambda model, world: "agent"}, "compiled graph"),
        ({"build": lambda model, world: entrypoint()(lambda given: 1)}, "asked no model"),
        ({"world": lambda task: {}}, "expected a World"),
        ({"model": create_agent(ScriptedModel(reply=["x"]))}, "explore_agent"),
        ({"judge": lambda result, world, task: "good"}, "expected a Verdict"),
        ({"history": 3}, "history"),
        ({"reflect_every": 2}, "reflect_every"),
    ],
)
def test_what_cannot_be_is_said(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Each in one line that says what was expected."""
    with pytest.raises(ConfigError, match=said):
        explored(tmp_path / "run", **more)
