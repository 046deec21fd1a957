"""Seven kinds of agents that exist already go back into their middle: alone, as a part of another, beside another."""

import asyncio
import json
import operator
import sqlite3
from pathlib import Path
from typing import Annotated, Any

import pytest
from agents import calls
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command
from test_explore_agent import (
    TIP,
    HandsOver,
    House,
    deep,
    explored,
    own_graph,
    ready_made,
    says,
    supervisor,
    swarm,
    tools_of,
)
from typing_extensions import TypedDict

from leafe_graph import Budget, ConfigError, Limits, NothingPlayed, RunFolder, Verdict, export
from leafe_graph.env.worlds import SqliteFile
from leafe_graph.errors import ModelError
from leafe_graph.testing import ScriptedModel

# ---- tools over a database, as tau-bench has them


def shop(model: Any, world: Any) -> Any:
    """An agent that looks into a database and changes it."""

    def asked(query: str, *values: Any) -> list[Any]:
        with sqlite3.connect(world.path) as base:
            found = base.execute(query, values).fetchall()
        base.close()
        return found

    @tool
    def look(place: str) -> str:
        """Look around."""
        things = [name for (name,) in asked("select name from things where at = ?", place)]
        return f"There are {', '.join(things)}."

    @tool
    def take(thing: str) -> str:
        """Take something."""
        asked("update things set at = 'hand' where name = ?", thing)
        return f"You have {asked('select count(*) from things where at = ?', 'hand')[0][0]} thing."

    return create_agent(model, [look, take])


def shelf(path: Path) -> SqliteFile:
    """A database as it is at the task's start."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.execute("create table things (name, at)")
        base.executemany("insert into things values (?, 'attic')", [("lamp",), ("vase",)])
    base.close()
    return SqliteFile(path)


def only_the_lamp(result: Any, world: Any, task: Any) -> Verdict:
    """Whether it was taken, and nothing else."""
    with sqlite3.connect(world.path) as base:
        taken = [name for (name,) in base.execute("select name from things where at = 'hand'")]
    base.close()
    return Verdict(taken == ["lamp"], f"You took {taken}.")


# ---- a likeness of open_deep_research: researchers side by side, and exceptions that are swallowed everywhere


class Notes(TypedDict, total=False):
    """What supervisor and researchers share."""

    messages: Annotated[list[Any], add_messages]
    said: Annotated[list[Any], operator.add]
    notes: Annotated[list[str], operator.add]
    topic: str


class Researches(ScriptedModel):
    """The supervisor's, the researchers' and the writer's answers."""

    def _answer(self, messages: list[Any], stop: Any, kwargs: dict[str, Any]) -> Any:
        names = {each["function"]["name"] for each in kwargs.get("tools", [])}
        said: str | AIMessage = "It is written."
        if "research" in names:
            done = messages[-1].type == "tool"
            said = "enough" if done else calls(("research", {"topic": "attic"}), ("research", {"topic": "cellar"}))
        elif "look" in names:
            said = "You have nothing." if "cellar" in messages[0].text else says(messages, None)
        return ScriptedModel(reply=[said])._answer(messages, stop, kwargs)


def research(model: Any, world: Any) -> Any:
    """A supervisor whose researchers run side by side, and a writer; what any of them raises is swallowed."""
    tools = tools_of(world)

    def conduct(topic: str) -> str:
        """Research a topic."""
        raise NotImplementedError

    conduct.__name__ = "research"
    able = model.bind_tools(list(tools.values()))

    async def researcher(state: Notes) -> Any:
        try:
            answer = await able.ainvoke([SystemMessage(f"Research the {state['topic']}."), *state["said"]])
        except Exception:
            return Command(goto="compress")
        return Command(goto="use" if answer.tool_calls else "compress", update={"said": [answer]})

    async def use(state: Notes) -> Any:
        async def safely(call: Any) -> Any:
            try:
                return await tools[call["name"]].ainvoke({**call, "type": "tool_call"})
            except Exception as error:
                return f"Error: {error}"

        return {"said": await asyncio.gather(*map(safely, state["said"][-1].tool_calls))}

    async def compress(state: Notes) -> Any:
        for _ in range(3):
            try:
                return {"notes": [(await model.ainvoke([HumanMessage(f"Sum up {state['said'][-1].text}")])).text]}
            except Exception:
                continue
        return {"notes": ["Error: no summary"]}

    one = StateGraph(Notes)
    one.add_node("researcher", researcher, destinations=("use", "compress"))
    one.add_node("use", use)
    one.add_node("compress", compress)
    one.add_edge(START, "researcher")
    one.add_edge("use", "researcher")
    one.add_edge("compress", END)
    researchers = one.compile()

    async def supervise(state: Notes) -> Any:
        said: list[Any] = [SystemMessage("You lead."), HumanMessage("Lead.")]
        while True:
            try:
                answer = await model.bind_tools([conduct]).ainvoke(said)
                if not answer.tool_calls:
                    return {}
                given = [{"said": [HumanMessage("Go on.")], "topic": c["args"]["topic"]} for c in answer.tool_calls]
                found = await asyncio.gather(*(researchers.ainvoke(each) for each in given))  # type: ignore[arg-type]
                results = [
                    {"role": "tool", "tool_call_id": call["id"], "content": each["notes"][-1]}
                    for call, each in zip(answer.tool_calls, found, strict=True)
                ]
                said += [answer, *results]
            except Exception:
                return {}

    async def write(state: Notes) -> Any:
        try:
            return {"messages": [await model.ainvoke([HumanMessage("Write it.")])]}
        except Exception as error:
            return {"messages": [AIMessage(f"Error generating final report: {error}")]}

    graph = StateGraph(Notes)
    graph.add_node("supervise", supervise)
    graph.add_node("write", write)
    graph.add_edge(START, "supervise")
    graph.add_edge("supervise", "write")
    graph.add_edge("write", END)
    return graph.compile()


# ---- where an agent stands


class Shared(TypedDict):
    """What an agent and the one around it share."""

    messages: Annotated[list[Any], add_messages]


def alone(build: Any) -> Any:
    """The agent as it is."""
    return build


def inside(build: Any) -> Any:
    """A node of another agent, which speaks before and after."""

    def outer(model: Any, world: Any) -> Any:
        graph = StateGraph(Shared)
        graph.add_node("boss", lambda state: {"messages": model.invoke([HumanMessage("You have a boss.")]) and []})
        graph.add_node("part", build(model, world))
        graph.add_node("end", lambda state: {"messages": [model.invoke([HumanMessage("You have done.")])]})
        graph.add_edge(START, "boss")
        graph.add_edge("boss", "part")
        graph.add_edge("part", "end")
        return graph.compile()

    return outer


def beside(build: Any) -> Any:
    """A node of another agent, in which a second one is at work at the same time."""

    def outer(model: Any, world: Any) -> Any:
        def other(state: Any) -> Any:
            for place in range(3):
                model.invoke([HumanMessage(f"You have {place} cellars.")])
            return {"messages": []}

        graph = StateGraph(Shared)
        graph.add_node("part", build(model, world))
        graph.add_node("other", other)
        graph.add_node("end", lambda state: {"messages": [model.invoke([HumanMessage("You have done.")])]})
        graph.add_edge(START, "part")
        graph.add_edge(START, "other")
        graph.add_edge(["part", "other"], "end")
        return graph.compile()

    return outer


KINDS: dict[str, tuple[Any, Any]] = {
    "create_agent": (ready_made, ScriptedModel(reply=says)),
    "own graph": (own_graph, ScriptedModel(reply=says)),
    "deepagents": (deep, HandsOver(reply=[""])),
    "swarm": (swarm, HandsOver(reply=[""])),
    "supervisor": (supervisor, HandsOver(reply=[""])),
    "tools over a database": (shop, ScriptedModel(reply=says)),
    "researchers": (research, Researches(reply=[""])),
}


def grown(kind: str, out: Path, where: Any = alone, **more: Any) -> RunFolder:
    """Trees of an agent of that kind."""
    build, model = KINDS[kind]
    model = more.pop("model", model)
    database: Any = {"world": lambda task: shelf(out.parent / "things.db"), "judge": only_the_lamp}
    return explored(out, where(build), model=model, **(database if build is shop else {}) | more)


@pytest.mark.parametrize(("where", "wait"), [(alone, False), (alone, True), (inside, True), (beside, False)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_agent_goes_back_and_is_exported(kind: str, where: Any, wait: bool, tmp_path: Path) -> None:
    """To the decision to blame, wherever it was made, by either call; its row is the revised call, with its tools."""
    run = grown(kind, tmp_path / "run", where, wait=wait)
    lost, won = run.branches
    assert (lost["end"], won["end"], won["experience"]) == ("failure", "success", TIP)
    t = won["decision_point"]
    assert lost["turns"][t]["message"]["tool_calls"][0]["args"] == {"thing": "vase"}
    assert won["turns"][0]["message"]["tool_calls"][0]["args"] == {"thing": "lamp"}
    assert won["turns"][0]["request"] == lost["turns"][t]["request"] and TIP not in str(won["turns"])
    assert where is alone or won["turns"][0]["node"].startswith("part/")
    assert export(run, kinds=["counterfactual"]).leaked == 0
    (row,) = map(json.loads, (tmp_path / "run/examples/examples.jsonl").read_text().splitlines())
    assert row["completion"][0]["tool_calls"][0]["function"] == {"name": "take", "arguments": {"thing": "lamp"}}
    assert {"look", "take"} <= {each["function"]["name"] for each in row["tools"]}


# ---- what an agent swallows


def careless(model: Any, world: Any) -> Any:
    """A loop around a model, in a plain function: what is raised is tried again, until somebody answers."""
    able = model.bind_tools(list(tools_of(world).values()))

    def node(state: Shared) -> Any:
        said: list[Any] = list(state["messages"])
        while True:
            try:
                answer = able.invoke(said)
            except Exception:
                continue
            said.append(answer)
            if not answer.tool_calls:
                return {"messages": [answer]}
            said += [tools_of(world)[c["name"]].invoke({**c, "type": "tool_call"}) for c in answer.tool_calls]

    graph = StateGraph(Shared)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile()


class Searches(ScriptedModel):
    """Uses a tool that runs at its provider."""

    def _answer(self, messages: list[Any], stop: Any, kwargs: dict[str, Any]) -> Any:
        result = super()._answer(messages, stop, kwargs)
        result.generations[0].message.content = [{"type": "web_search_call", "id": "w"}]
        return result


@pytest.mark.parametrize("kind", ["researchers", "careless"])
def test_what_stops_an_agent_that_swallows_it_is_its_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget that is spent, a horizon, a divergence, a mistake of the caller: never a failure of the policy."""
    monkeypatch.setitem(KINDS, "careless", (careless, ScriptedModel(reply=says)))
    one = Limits(max_branches=1)
    (poor,) = grown(kind, tmp_path / "poor", budget=Budget(model_calls=2), limits=one).branches
    (short,) = grown(kind, tmp_path / "short", max_turns=2, limits=one).branches
    assert [poor["end"], short["end"]] == ["budget", "max_turns"]
    times = iter(range(100))

    class Clocked(House):
        def seen(self) -> str:
            return f"{super().seen()[:-1]} at {next(times)}."

    run = grown(kind, tmp_path / "clock", world=lambda task: Clocked(), limits=Limits(max_branches=2))
    assert [branch["end"] for branch in run.branches] == ["failure", "replay_divergence"]
    with pytest.raises(ConfigError, match="at the provider"):
        grown(kind, tmp_path / "server", model=Searches(reply=["x"]))


def test_a_model_that_failed_and_was_not_asked_again_is_no_failure_of_the_policy(tmp_path: Path) -> None:
    """An agent that swallows it has no result to judge; where it asks again and is answered, it has."""

    def after(calls_before: int, *, times: int) -> Any:
        counted = iter(range(1000))

        class Falters(Researches):
            def _answer(self, messages: list[Any], stop: Any, kwargs: dict[str, Any]) -> Any:
                if calls_before <= next(counted) < calls_before + times:
                    raise ConnectionError("the server is gone")
                return super()._answer(messages, stop, kwargs)

        return Falters(reply=[""])

    one = Limits(max_branches=1)
    for name, falters in (("at once", after(0, times=999)), ("on the way", after(3, times=999))):
        with pytest.raises(NothingPlayed, match="the server is gone"):
            explored(tmp_path / name, research, model=falters, limits=one)
        assert RunFolder(tmp_path / name).branches[0]["end"] == "model_error"
    with pytest.raises(ModelError, match="model calls in a row have failed"):
        tasks = [f"Fetch lamp {n}." for n in range(5)]
        explored(tmp_path / "many", research, model=after(0, times=999), limits=one, tasks=tasks, max_failed_calls=2)
    (branch,) = explored(tmp_path / "once", research, model=after(1, times=1), limits=one).branches
    assert branch["end"] == "failure"
