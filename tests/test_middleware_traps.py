"""`LeafeMiddleware` among other middleware, other agents and things that fail: nothing is lost, nothing is hidden."""

import asyncio
import contextvars
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pytest
from agents import StreamingModel, calls
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    HumanInTheLoopMiddleware,
    ModelRetryMiddleware,
    ShellToolMiddleware,
    SummarizationMiddleware,
)
from langchain.tools import ToolRuntime
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool, tool
from langgraph.channels import DeltaChannel, EphemeralValue, Topic
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm
from test_middleware import ASK, TIP, Seeker, reflection, reflector, texts
from test_middleware_world import THREAD, failed_once, script

from leafe_graph import ConfigError, LeafeMiddleware, Verdict
from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.env.worlds import STATELESS, PyObject, SqliteFile
from leafe_graph.errors import WorldBusy, WorldLost
from leafe_graph.testing import ScriptedModel

both = pytest.mark.parametrize("asynchronous", [False, True])


def invoked(agent: Any, given: Any, asynchronous: bool, config: Any = None) -> Any:
    """The agent's last state."""
    return asyncio.run(agent.ainvoke(given, config)) if asynchronous else agent.invoke(given, config)


# ---- what is swallowed


@both
@pytest.mark.parametrize("on", ["continue", "error"])
def test_a_refusal_that_another_middleware_swallows_stops_the_run(on: Any, asynchronous: bool) -> None:
    """An answer that tells of an error is no attempt: what was refused is raised by the next hook."""
    retries = ModelRetryMiddleware(max_retries=1, on_failure=on, initial_delay=0, jitter=False)
    seeker = Seeker(worlds=())
    with pytest.raises(ConfigError, match="may change what no world brings back"):
        invoked(seeker.agent(retries), ASK, asynchronous)
    assert seeker.prompts == []


def test_what_was_refused_once_and_then_went_well_stops_nothing() -> None:
    """A model call that is made again by another middleware, and answered."""
    tries = iter([WorldBusy("later")])
    seeker = Seeker()
    asked = seeker.middleware.rewinder.asked

    def refuses(request: Any) -> Any:
        if error := next(tries, None):
            raise error
        return asked(request)

    seeker.middleware.rewinder.asked = refuses  # type: ignore[method-assign]
    retries = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)
    assert seeker.agent(retries).invoke(ASK)["messages"][-1].text == "I have searched the cellar."


@both
def test_a_tools_world_that_is_lost_stops_the_run_though_the_error_is_swallowed(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the agent would go on in a world that nobody knows."""

    class Forgiving(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return handler(request)
            except Exception as error:
                return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return await handler(request)
            except Exception as error:
                return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")

    def resume(progress: Any, runtime: Any) -> None:
        raise WorldLost("it is gone")

    seeker = Seeker()
    monkeypatch.setattr(seeker.middleware.rewinder, "is_resumed", lambda request: True)
    monkeypatch.setattr(seeker.middleware.rewinder.worlds, "resume", resume)
    with pytest.raises(WorldLost, match="it is gone"):
        invoked(seeker.agent(Forgiving()), ASK, asynchronous)
    assert seeker.house == {"searched": []}


# ---- a database that somebody keeps locked


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of places that were searched."""
    path = tmp_path / "house.db"
    with sqlite3.connect(path) as base:
        base.execute("create table searched (place)")
    base.close()
    return path


def places(path: Path) -> list[str]:
    """What was searched."""
    with sqlite3.connect(path) as base:
        found = [place for (place,) in base.execute("select place from searched")]
    base.close()
    return found


class Archive(Seeker):
    """Searches are rows of a database, which somebody may hold locked at one moment."""

    def __init__(self, path: Path, locked: str, **settings: Any) -> None:
        self.path, self.locked = path, locked
        self.holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        super().__init__(worlds=[SqliteFile(path, wait=0.05)], **settings)

    def lock(self, when: str) -> None:
        if self.locked == when:
            self.locked = ""
            self.holder.execute("begin immediate")

    def search(self, place: str) -> str:
        """Search a place."""
        with sqlite3.connect(self.path) as base:
            base.execute("insert into searched values (?)", (place,))
        base.close()
        self.lock("a point")
        return f"{place}: {'key' if place == 'cellar' else 'nothing'}"

    def judge(self, state: Any, runtime: Any) -> Verdict:
        found = places(self.path)
        self.lock("a restore")
        return Verdict(found == ["cellar"], "there is no key in the attic")


@both
@pytest.mark.parametrize("locked", ["a point", "a restore"])
def test_a_locked_database_stops_the_run_which_goes_on_when_it_is_free(
    locked: str, asynchronous: bool, database: Path
) -> None:
    """After a bounded wait, with an error that says what to do; then nothing was lost, and nothing was done twice."""
    archive = Archive(database, locked)
    agent = archive.agent(checkpointer=InMemorySaver())
    with pytest.raises(WorldBusy, match=r"another connection has held it for 0\.05 s"):
        invoked(agent, ASK, asynchronous, THREAD)
    assert places(database) == ["attic"]
    archive.holder.execute("rollback")
    done = invoked(agent, None, asynchronous, THREAD)
    assert texts(done["messages"]) == ["Find the key.", "", "cellar: key", "I have searched the cellar."]
    assert places(database) == ["cellar"]
    archive.holder.close()


# ---- streams, summaries, turns


@both
def test_a_stream_that_is_read_elsewhere_and_later_is_rewound(asynchronous: bool) -> None:
    """In another thread and context, or by another task, than the one that asked for it."""
    seeker = Seeker(model=StreamingModel, reflector=StreamingModel(reply=[reflection(0)]))
    agent, found = seeker.agent(), list[Any]()

    async def later() -> None:
        stream = agent.astream(ASK, stream_mode="values")

        async def read() -> None:
            found.extend([state async for state in stream])

        await asyncio.create_task(read(), context=contextvars.Context())

    if asynchronous:
        asyncio.run(later())
    else:
        stream: Iterator[Any] = agent.stream(ASK, stream_mode="values")
        reader = threading.Thread(target=lambda: contextvars.Context().run(lambda: found.extend(stream)))
        reader.start()
        reader.join()
    assert found[-1]["messages"][-1].text.strip() == "I have searched the cellar."
    assert seeker.house == {"searched": ["cellar"]} and [TIP in p[-1].text for p in seeker.prompts] == [0, 0, 1, 1]


def summary(*, after: int) -> SummarizationMiddleware:
    """Puts two lines in the place of all but the last messages."""
    return SummarizationMiddleware(
        model=ScriptedModel(reply=lambda messages, seed: f"in short: {'vase' in str(messages)}"),
        trigger=("messages", after),
        keep=("messages", 1),
    )


@both
def test_behind_a_summary_it_goes_back_and_the_summary_stays(asynchronous: bool) -> None:
    """To a decision that was made after the summary; what is taken back is in no later prompt."""
    prompts: list[str] = []
    said = ["a", "b", "c"]
    seeker = Seeker(worlds=STATELESS, judge=failed_once())

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        prompts.append(str([message.text for message in messages]))
        if TIP in messages[-1].text:
            return "I know better."
        return calls(("search", {"place": said.pop(0)})) if said else "I have it: the vase."

    seeker.model = ScriptedModel(reply=reply)
    seeker.middleware.rewinder.reflector = reflector(3)
    agent = seeker.agent(summary(after=5))
    done = invoked(agent, ASK, asynchronous)
    assert "in short: False" in done["messages"][0].text
    assert texts(done["messages"])[1:] == ["", "c: nothing", "I know better."]
    assert "the vase" not in prompts[-1] and "in short" in prompts[-1]


def test_before_a_summary_it_would_keep_what_was_dropped_and_is_refused() -> None:
    """At the first run, attached or not."""
    seeker = Seeker()
    agent = create_agent(seeker.model, [seeker.search], middleware=[seeker.middleware, summary(after=50)])
    with pytest.raises(ConfigError, match="stands before SummarizationMiddleware; put it last"):
        agent.invoke(ASK)
    assert seeker.prompts == []


@both
def test_a_turn_that_failed_is_no_hindrance_to_the_next(asynchronous: bool) -> None:
    """The next turn of the user has its own points in the same world, and goes back to none of the turn before."""
    seeker = Seeker()
    plain, fails = seeker.reply, [False, True]

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        if fails and fails.pop(0):
            raise TimeoutError("the server is slow")
        return plain(messages, seed)

    seeker.model.reply = reply
    agent = seeker.agent(checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        invoked(agent, ASK, asynchronous, THREAD)
    assert seeker.house == {"searched": ["attic"]}
    seeker.middleware.rewinder.judge = lambda state, runtime: seeker.house["searched"] == ["attic", "cellar"]
    done = invoked(agent, {"messages": [HumanMessage("Again.")]}, asynchronous, THREAD)
    assert texts(done["messages"])[:4] == ["Find the key.", "", "attic: nothing", "Again."]
    assert texts(done["messages"])[4:] == ["", "cellar: key", "I have searched the cellar."]
    assert seeker.house == {"searched": ["attic", "cellar"]}


def test_decisions_that_are_out_of_range_are_counted() -> None:
    """In the middleware's account."""
    seeker = Seeker(judge=lambda state, runtime: False, reflector=reflector(7))
    agent = seeker.agent(checkpointer=InMemorySaver())
    states = [state for state in agent.stream(ASK, THREAD, stream_mode="values") if "leafe" in state]
    assert agent.get_state(THREAD).values["leafe"]["out_of_range"] == 1
    assert states[-1]["messages"][-1].text == "I have searched: attic: nothing"


# ---- channels


def joined(held: list[str], writes: Any) -> list[str]:
    """A reducer of many writes at once."""
    return [*held, *(each for write in writes for each in write)]


class State(AgentState):  # type: ignore[misc]
    """Channels of the rarer kinds."""

    delta: NotRequired[Annotated[list[str], DeltaChannel(joined)]]
    topic: NotRequired[Annotated[list[str], Topic(str, accumulate=True)]]
    passing: NotRequired[Annotated[str, EphemeralValue(str)]]


class Writes(AgentMiddleware):
    """Writes to all of them at every decision."""

    state_schema = State

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        self.n += 1
        return {"delta": [str(self.n)], "topic": [str(self.n)], "passing": str(self.n)}


@both
def test_a_channel_of_deltas_goes_back(asynchronous: bool) -> None:
    """It holds what it held, also where a saver keeps nothing but what was written."""
    seeker = Seeker(restore={"delta": True, "topic": False, "passing": False})
    agent = seeker.middleware.attach(seeker.agent(Writes(), checkpointer=InMemorySaver()))
    done = invoked(agent, ASK, asynchronous, THREAD)
    # Written before each decision: the first was gone back to, and two were made.
    assert done["delta"] == ["1", "3", "4"] == agent.get_state(THREAD).values["delta"]
    assert done["topic"] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("name", "kind"), [("topic", "Topic"), ("passing", "EphemeralValue")])
@pytest.mark.parametrize("attached", [False, True])
def test_a_channel_that_holds_nothing_to_go_back_to_is_refused(attached: bool, name: str, kind: str) -> None:
    """Before anything was played."""
    seeker = Seeker(restore={"delta": False, "topic": False, "passing": False} | {name: True})
    agent = seeker.agent(Writes())
    with pytest.raises(ConfigError, match=f"restore='{name}': it is a {kind}"):
        seeker.middleware.attach(agent) if attached else agent.invoke(ASK)
    assert seeker.prompts == []


# ---- what cannot be gone back to


@both
@pytest.mark.parametrize(
    "block",
    [
        {"type": "web_search_call", "id": "w"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
        {"type": "mcp_tool_use", "id": "m", "name": "x", "input": {}},
        {"type": "code_interpreter_call", "id": "c"},
    ],
)
def test_tools_that_run_at_the_provider_are_refused(block: Any, asynchronous: bool) -> None:
    """At the first answer that tells of one."""
    model = FakeMessagesListChatModel(responses=[AIMessage([block])])
    middleware = LeafeMiddleware(judge=lambda state, runtime: True, worlds=STATELESS)
    with pytest.raises(ConfigError, match=f"{block['type']}.*at the provider"):
        invoked(create_agent(model, middleware=[middleware]), ASK, asynchronous)


@both
def test_a_history_that_is_kept_at_the_provider_is_refused(asynchronous: bool) -> None:
    """At the first answer that goes on from it."""

    class Remembers(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model_settings={"previous_response_id": "r1"}))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(model_settings={"previous_response_id": "r1"}))

    seeker = Seeker()
    with pytest.raises(ConfigError, match="previous_response_id, so the provider keeps the history"):
        invoked(seeker.agent(Remembers()), ASK, asynchronous)


def test_an_agent_with_a_shell_session_is_refused() -> None:
    """When it is attached, before a shell was started; unless the tool is irreversible."""
    seeker = Seeker()
    with pytest.raises(ConfigError, match="'shell' holds a session"):
        seeker.middleware.attach(seeker.agent(ShellToolMiddleware()))
    allowed = Seeker(irreversible={"shell"})
    allowed.middleware.attach(allowed.agent(ShellToolMiddleware()))


GRAPH = create_agent(ScriptedModel(reply=["x"]))


@pytest.mark.parametrize(
    "given",
    [
        lambda: LeafeMiddleware(judge=failed_once(), reflector=GRAPH),
        lambda: create_leafe_agent(GRAPH, env=lambda: None),  # type: ignore[arg-type, return-value]
    ],
)
def test_an_agent_that_is_given_as_a_model_is_told_what_to_use(given: Any) -> None:
    """At the call."""
    with pytest.raises(ConfigError, match=r"LeafeMiddleware.*explore_agent"):
        given()


def test_anthropics_caching_knows_its_model_behind_the_door() -> None:
    """It looks at the model's class, and warns of any other."""
    from langchain_anthropic import ChatAnthropic
    from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware

    class Answers(ChatAnthropic):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return ScriptedModel(reply=["done"])._generate(messages)

    model = Answers(model_name="claude", api_key="none", timeout=None, stop=None)  # type: ignore[arg-type]
    middleware = LeafeMiddleware(judge=lambda state, runtime: True, worlds=STATELESS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = create_agent(model, middleware=[AnthropicPromptCachingMiddleware(), middleware])
        assert agent.invoke(ASK)["messages"][-1].text == "done"


# ---- agents in agents


def member(seeker: Seeker, name: str) -> Any:
    """An agent of its own, with the middleware, as a part of another."""
    plain = seeker.reply

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        if "transferred" in messages[-1].text:  # to it, by a tool's message
            messages = [*messages, HumanMessage(messages[-1].text)]
        return plain(messages, seed)

    seeker.model.reply = reply
    return create_agent(seeker.model, [seeker.search], middleware=[seeker.middleware], name=name)


def in_swarm(seeker: Seeker) -> Any:
    """It is handed over to."""
    alice = create_agent(script(calls(("transfer_to_bob", {}))), [create_handoff_tool(agent_name="bob")], name="alice")
    return create_swarm([alice, member(seeker, "bob")], default_active_agent="alice").compile()


def in_supervisor(seeker: Seeker) -> Any:
    """It is given the work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is made of LangGraph's earlier agent
        boss = ScriptedModel(reply=[calls(("transfer_to_bob", {})), "it is found"])
        return create_supervisor([member(seeker, "bob")], model=boss).compile()


def in_graph(seeker: Seeker) -> Any:
    """It is a node, and another one is at work beside it."""
    graph = StateGraph(MessagesState)
    graph.add_node("bob", member(seeker, "bob"))
    graph.add_node("other", lambda state: {"messages": []})
    graph.add_edge(START, "bob")
    graph.add_edge(START, "other")
    graph.add_edge(["bob", "other"], END)
    return graph.compile()


def in_tool(seeker: Seeker) -> Any:
    """It runs inside a tool."""
    bob = member(seeker, "bob")

    @tool
    def delegate(what: str) -> str:
        """Have somebody do it."""
        return str(bob.invoke({"messages": [HumanMessage(what)]})["messages"][-1].text)

    return create_agent(script(calls(("delegate", {"what": "Find the key."})), "it is found"), [delegate])


@both
@pytest.mark.parametrize("saver", [False, True])
@pytest.mark.parametrize("build", [in_swarm, in_supervisor, in_graph, in_tool])
def test_a_member_of_a_team_goes_back_by_itself(build: Any, saver: bool, asynchronous: bool) -> None:
    """Its messages and its world; the others see its second attempt alone."""
    seeker = Seeker()
    agent = build(seeker)
    if saver:
        agent.checkpointer = InMemorySaver()
    done = invoked(agent, ASK, asynchronous, THREAD if saver else None)
    assert seeker.house == {"searched": ["cellar"]} and TIP not in str(done)
    assert not any("attic" in message.text for message in done["messages"])


def twice(worker: dict[str, Any], saver: Any) -> Any:
    """A deep agent that has two of them at work at once."""
    tasks = [("task", {"description": f"Find key {n}.", "subagent_type": "worker"}) for n in range(2)]
    return create_deep_agent(script(calls(*tasks), "all is found"), subagents=[worker], checkpointer=saver)  # type: ignore[list-item]


@both
@pytest.mark.parametrize("saver", [False, True])
def test_agents_side_by_side_have_no_world_in_common(saver: bool, asynchronous: bool) -> None:
    """With one for each, both go back; in the same, they would rewind each other's work."""
    houses: dict[str, dict[str, list[str]]] = {}

    def house() -> dict[str, list[str]]:
        """That of the agent one is in: of one call of the tool that it runs inside."""
        inside = get_config()["configurable"]["checkpoint_ns"].split("|")[0]
        return houses.setdefault(inside, {"searched": []})

    @tool
    def search(place: str) -> str:
        """Search a place."""
        house()["searched"].append(place)
        return f"{place}: {'key' if place == 'cellar' else 'nothing'}"

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        if messages[-1].type == "tool":
            return "done"
        return calls(("search", {"place": "cellar" if TIP in messages[-1].text else "attic"}))

    def judge(state: Any, runtime: Any) -> bool:
        return house()["searched"] == ["cellar"]

    worker = {"name": "worker", "description": "searches", "system_prompt": "You search.", "tools": [search]}

    def played(worlds: Any, delay: float = 0) -> Any:
        middleware = LeafeMiddleware(judge=judge, worlds=worlds, reflector=reflector(0), restore={"files": True})
        model = ScriptedModel(reply=reply, delay=delay)
        agent = twice(worker | {"model": model, "middleware": [middleware]}, InMemorySaver() if saver else None)
        return invoked(agent, ASK, asynchronous, THREAD if saver else None)

    assert played(lambda runtime: [PyObject(house())])["messages"][-1].text == "all is found"
    assert [*houses.values()] == [{"searched": ["cellar"]}] * 2
    with pytest.raises(WorldBusy, match="two episodes would rewind each other's work"):
        played([PyObject(houses)], delay=0.2)  # both are at work, whichever was first


# ---- a person who is asked


class Sends:
    """An agent that sends a mail, for which a person is asked, and a judge who is not content once."""

    def __init__(self, **settings: Any) -> None:
        self.sent: list[str] = []
        self.undone: list[Any] = []
        given: Any = {"judge": failed_once(), "worlds": STATELESS, "reflector": reflector(0)} | settings
        self.middleware = LeafeMiddleware(**given)
        model = script(calls(("look", {})), calls(("send", {"to": "b"})), "it is sent", told=("well",))
        person = HumanInTheLoopMiddleware(interrupt_on={"send": True})
        agent = create_agent(
            model, [self.look, self.send], middleware=[person, self.middleware], checkpointer=InMemorySaver()
        )
        self.agent = self.middleware.attach(agent)

    def look(self) -> str:
        """Look around."""
        return "nice"

    def send(self, to: str) -> str:
        """Send a mail."""
        self.sent.append(to)
        return f"sent to {to}"

    def undo(self, args: dict[str, Any], message: Any) -> None:
        self.undone.append((args, message.text))

    def decided(self, decision: dict[str, Any], asynchronous: bool) -> list[str]:
        """The texts of the agent's messages when the person has decided so."""
        invoked(self.agent, ASK, asynchronous, THREAD)
        done = invoked(self.agent, Command(resume={"decisions": [decision]}), asynchronous, THREAD)
        return texts(done["messages"])


@both
@pytest.mark.parametrize("reason", [{}, {"message": "not him"}])
def test_what_a_person_rejected_is_no_barrier(reason: dict[str, str], asynchronous: bool) -> None:
    """The irreversible tool has not run; with a yes it has."""
    sends = Sends()
    assert sends.decided({"type": "reject", **reason}, asynchronous) == ["Find the key.", "well"]
    assert sends.sent == []
    sends = Sends()
    assert sends.decided({"type": "approve"}, asynchronous)[-1] == "it is sent"


@both
def test_what_a_person_edited_is_compensated_as_it_ran(asynchronous: bool) -> None:
    """Not as the model had wanted it; and what a person answered in the tool's place is not compensated."""
    sends = Sends()
    sends = Sends(compensate={"send": lambda args, message: sends.undo(args, message)}, worlds=STATELESS)
    edited = {"type": "edit", "edited_action": {"name": "send", "args": {"to": "c"}}}
    assert sends.decided(edited, asynchronous) == ["Find the key.", "well"]
    ((args, told),) = sends.undone
    assert sends.sent == ["c"] and args == {"to": "c"} and "sent to c" in told
    other = Sends(compensate={"send": lambda args, message: other.undo(args, message)}, worlds=STATELESS)
    assert other.decided({"type": "respond", "message": "I did"}, asynchronous) == ["Find the key.", "well"]
    assert (other.sent, other.undone) == ([], [])


@both
def test_an_irreversible_tool_that_gives_a_command_is_a_barrier_in_any_process(asynchronous: bool) -> None:
    """Its answer is in the command's update, where it tells."""
    saver = InMemorySaver()

    def send(to: str, runtime: ToolRuntime) -> Command[Any]:
        """Send a mail."""
        return Command(update={"messages": [ToolMessage("sent", tool_call_id=runtime.tool_call_id)]})

    tool = StructuredTool.from_function(send, metadata={"leafe": "irreversible"})

    def agent() -> Any:
        middleware = LeafeMiddleware(judge=lambda state, runtime: False, worlds=STATELESS, reflector=reflector(0))
        model = script(calls(("send", {"to": "b"})), "done")
        return create_agent(model, [tool], middleware=[middleware], checkpointer=saver, interrupt_after=["tools"])

    invoked(agent(), ASK, asynchronous, THREAD)
    events = [event["leafe"]["verdict"] for event in agent().stream(None, THREAD, stream_mode="custom")]
    assert events == ["out_of_range"]
