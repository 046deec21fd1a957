"""What `LeafeMiddleware` takes back beside messages, what it never goes back behind, and what it refuses to rewind."""

import asyncio
import operator
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pytest
from agents import calls
from deepagents import create_deep_agent
from deepagents.backends.utils import create_file_data
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ShellToolMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
)
from langchain.agents.middleware.types import OmitFromInput, PrivateStateAttr
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool, tool
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel
from test_middleware import ASK, TIP, Seeker, reflection, reflector, texts

from leafe_graph import ConfigError, Episode, LeafeMiddleware, MissingDependency, RunFolder, Verdict
from leafe_graph.agent import turn_worlds
from leafe_graph.env.worlds import STATELESS, PyObject
from leafe_graph.errors import WorldBusy, WorldLost
from leafe_graph.testing import ScriptedModel

THREAD: Any = {"configurable": {"thread_id": "1"}}


class Watched(PyObject):
    """A world that tells in which threads it is asked, and may fail."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj)
        self.threads: set[int] = set()
        self.forgotten: list[str] = []
        self.fails = 0

    def snapshot(self) -> str:
        self.threads.add(threading.get_ident())
        return super().snapshot()

    def restore(self, ref: str) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("the disk is full")
        super().restore(ref)

    def forget(self, ref: str) -> None:
        self.forgotten.append(ref)
        super().forget(ref)


def script(*said: str | AIMessage, told: tuple[str | AIMessage, ...] = ()) -> ScriptedModel:
    """A model that says these in order, and the others once it was told something; never the same call id twice."""
    numbers = iter(range(1000))

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        at = sum(message.type == "ai" for message in messages)
        if TIP in messages[-1].text:
            reply.told = at  # type: ignore[attr-defined]
        begun = getattr(reply, "told", None)
        answer = said[at] if begun is None else told[at - begun]
        if isinstance(answer, str):
            return answer
        fresh = [{**call, "id": f"call-{next(numbers)}"} for call in answer.tool_calls]
        return AIMessage(answer.text, tool_calls=fresh)

    return ScriptedModel(reply=reply)


def failed_once() -> Any:
    """A judge that is content with the second attempt."""
    said = iter([False, True, True, True])
    return lambda state, runtime: Verdict(next(said))


# ---- worlds


def test_world_work_is_done_off_the_event_loop() -> None:
    """It waits for disks."""
    seeker = Seeker()
    world = Watched(seeker.house)
    seeker = Seeker(worlds=[world])
    seeker.house = world._obj
    asyncio.run(seeker.agent().ainvoke(ASK))
    assert world.threads and threading.get_ident() not in world.threads


def test_snapshots_are_forgotten_when_nothing_can_go_back_to_them() -> None:
    """Those that a rewind left behind, and all when the turn is over."""
    seeker = Seeker()
    world = Watched(seeker.house)
    seeker.middleware = LeafeMiddleware(judge=seeker.judge, worlds=[world], reflector=reflector(0))
    seeker.agent().invoke(ASK)
    assert seeker.house == {"searched": ["cellar"]}
    assert len(world.forgotten) == 3 and world._kept == {}


def test_every_thread_may_have_worlds_of_its_own() -> None:
    """``worlds=`` takes a function of the runtime, asked once a turn."""
    houses: dict[str, dict[str, list[str]]] = {}

    def worlds(runtime: Any) -> list[PyObject]:
        return [PyObject(houses.setdefault(runtime.execution_info.thread_id, {"searched": []}))]

    @tool
    def search(place: str, runtime: Any = None) -> str:
        """Search."""
        from langgraph.config import get_config

        houses[get_config()["configurable"]["thread_id"]]["searched"].append(place)
        return place

    def judge(state: Any, runtime: Any) -> bool:
        return houses[runtime.execution_info.thread_id]["searched"] == ["cellar"]

    seeker = Seeker()
    middleware = LeafeMiddleware(judge=judge, worlds=worlds, reflector=reflector(0))
    agent = create_agent(seeker.model, [search], middleware=[middleware], checkpointer=InMemorySaver())
    for name in ("a", "b"):
        agent.invoke(ASK, {"configurable": {"thread_id": name}})
    assert houses == {name: {"searched": ["cellar"]} for name in ("a", "b")}


def test_two_episodes_on_one_world_are_refused() -> None:
    """They would rewind each other's work."""
    seeker = Seeker()
    inner: list[Any] = []

    def judge(state: Any, runtime: Any) -> bool:
        if not inner:
            inner.append(1)
            with pytest.raises(WorldBusy):
                agent.invoke(ASK, {"configurable": {"thread_id": "2"}})
        return True

    seeker.middleware.rewinder.judge = judge
    agent = seeker.agent(checkpointer=InMemorySaver())
    agent.invoke(ASK, THREAD)
    assert inner
    agent.invoke(ASK, {"configurable": {"thread_id": "2"}})  # the first has ended


def test_a_run_whose_model_failed_leaves_its_world() -> None:
    """Without a thread nobody can go on with it."""
    seeker = Seeker()
    plain = seeker.reply
    seeker.model.reply = lambda messages, seed: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        seeker.agent().invoke(ASK)
    seeker.model.reply = plain
    assert seeker.agent().invoke(ASK)["messages"][-1].text == "I have searched the cellar."


def test_a_world_that_cannot_be_brought_back_is_not_taken_for_one_that_was() -> None:
    """The run stops; when it is gone on with, the world is brought back, and nobody is asked to judge it before."""
    seeker = Seeker()
    world = Watched(seeker.house)
    judged: list[list[str]] = []

    def judge(state: Any, runtime: Any) -> bool:
        judged.append(list(seeker.house["searched"]))
        return judged[-1] == ["cellar"]

    seeker.middleware = LeafeMiddleware(judge=judge, worlds=[world], reflector=reflector(0))
    agent = seeker.agent(checkpointer=InMemorySaver())
    world.fails = 1
    with pytest.raises(OSError, match="the disk is full"):
        agent.invoke(ASK, THREAD)
    done = agent.invoke(None, THREAD)
    assert done["messages"][-1].text == "I have searched the cellar."
    assert judged == [["attic"], ["cellar"]]


def test_a_tool_called_anew_from_a_checkpoint_of_the_turn_finds_its_world() -> None:
    """As long as the turn lasts: a user who goes back by hand does what was done there once, not twice."""
    places = iter(["attic", "shed", "shed"])
    seeker = Seeker(judge=lambda state, runtime: True)
    seeker.model = ScriptedModel(reply=lambda messages, seed: calls(("search", {"place": next(places)})))
    agent = seeker.agent(checkpointer=InMemorySaver(), interrupt_before=["tools"])
    agent.invoke(ASK, THREAD)
    past = agent.get_state(THREAD)
    agent.invoke(None, THREAD)
    assert seeker.house == {"searched": ["attic"]} and past.next == ("tools",)
    agent.invoke(None, past.config)
    assert seeker.house == {"searched": ["attic"]}


def test_a_snapshot_that_died_with_its_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages stay as they are."""
    seeker = Seeker()

    def judge(state: Any, runtime: Any) -> bool:
        monkeypatch.setattr(turn_worlds, "PROCESS", "another")
        return False

    seeker.middleware.rewinder.judge = judge
    agent = seeker.agent(checkpointer=InMemorySaver())
    with pytest.raises(WorldLost, match="decision 0's snapshot died with its process"):
        agent.invoke(ASK, THREAD)
    assert len(agent.get_state(THREAD).values["messages"]) == 4


# ---- compensations and barriers


class Desk:
    """Tools that book and cancel, send and look."""

    def __init__(self) -> None:
        self.booked: list[str] = []
        self.undone: list[str] = []
        self.sent: list[str] = []
        self.fails = 0

    def book(self, room: str) -> str:
        """Book a room."""
        if room == "none":
            raise ValueError("there is no such room")
        self.booked.append(room)
        return f"booked {room}"

    def send(self, to: str) -> str:
        """Send a mail."""
        self.sent.append(to)
        return "sent"

    def look(self, room: str) -> str:
        """Look at a room."""
        return "nice"

    def cancel(self, args: dict[str, Any], message: Any) -> None:
        if self.fails and self.undone:
            self.fails -= 1
            raise OSError("the line is dead")
        assert message.text == f"booked {args['room']}"
        self.undone.append(args["room"])


BOOKS = (
    calls(("book", {"room": "one"})),
    calls(("book", {"room": "two"}), ("book", {"room": "three"})),
    "booked",
)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_succeeded_is_compensated_the_newest_first(asynchronous: bool) -> None:
    """From the history alone, after the decision that is gone back to."""
    desk = Desk()
    middleware = LeafeMiddleware(judge=failed_once(), compensate={"book": desk.cancel}, reflector=reflector(0))
    agent = create_agent(script(*BOOKS, told=("sorry",)), [desk.book], middleware=[middleware])
    done = asyncio.run(agent.ainvoke(ASK)) if asynchronous else agent.invoke(ASK)
    assert desk.undone == ["three", "two", "one"] and texts(done["messages"])[1:] == ["sorry"]


def test_what_failed_is_not_compensated() -> None:
    """Nor what came before the decision that is gone back to."""

    class Forgiving(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            from langchain_core.messages import ToolMessage

            try:
                return handler(request)
            except ValueError as error:
                call = request.tool_call
                return ToolMessage(str(error), name=call["name"], tool_call_id=call["id"], status="error")

    desk = Desk()
    middleware = LeafeMiddleware(judge=failed_once(), compensate={"book": desk.cancel}, reflector=reflector(1))
    said = (BOOKS[0], calls(("book", {"room": "two"}), ("book", {"room": "none"})), "booked")
    agent = create_agent(script(*said, told=("sorry",)), [desk.book], middleware=[Forgiving(), middleware])
    agent.invoke(ASK)
    assert desk.undone == ["two"]


def test_nothing_is_compensated_twice() -> None:
    """A compensation that fails stops the run; gone on with, it begins there."""
    desk = Desk()
    middleware = LeafeMiddleware(judge=failed_once(), compensate={"book": desk.cancel}, reflector=reflector(0))
    model = script(*BOOKS, told=("sorry",))
    agent = create_agent(model, [desk.book], middleware=[middleware], checkpointer=InMemorySaver())
    desk.fails = 1
    with pytest.raises(OSError, match="the line is dead"):
        agent.invoke(ASK, THREAD)
    assert desk.undone == ["three"]
    agent.invoke(None, THREAD)
    assert desk.undone == ["three", "two", "one"]


SENDS = (calls(("look", {"room": "a"})), calls(("send", {"to": "b"})), calls(("look", {"room": "c"})), "all is done")


@pytest.mark.parametrize("by", ["name", "metadata", "person"])
def test_nothing_is_gone_back_behind_an_irreversible_tool(by: str) -> None:
    """The reflector is told what can be undone; another decision is out of range, and the attempt stands."""
    desk, asked = Desk(), list[str]()

    def reply(messages: list[Any], seed: int | None) -> str:
        asked.append(messages[-1].text)
        return reflection(1)

    send = StructuredTool.from_function(desk.send)
    before: list[Any] = []
    irreversible = set[str]()
    if by == "name":
        irreversible = {"send"}
    elif by == "metadata":
        send.metadata = {"leafe": "irreversible"}
    else:
        before = [HumanInTheLoopMiddleware(interrupt_on={"send": True})]
    middleware = LeafeMiddleware(
        judge=lambda state, runtime: False,
        worlds=STATELESS,
        irreversible=irreversible,
        reflector=ScriptedModel(reply=reply),
    )
    agent = create_agent(
        script(*SENDS), [desk.look, send], middleware=[*before, middleware], checkpointer=InMemorySaver()
    )
    middleware.attach(agent)
    events = list(agent.stream(ASK, THREAD, stream_mode="custom"))
    if by == "person":
        assert agent.get_state(THREAD).interrupts
        events = list(agent.stream(Command(resume={"decisions": [{"type": "approve"}]}), THREAD, stream_mode="custom"))
    assert [event["leafe"]["verdict"] for event in events] == ["out_of_range"]
    assert "Only steps from 2 on can still be undone." in asked[0]
    assert len(agent.get_state(THREAD).values["messages"]) == 8 and desk.sent == ["b"]


def test_another_process_knows_the_barrier() -> None:
    """Although it has not seen the tools yet: their answers tell."""
    desk, saver = Desk(), InMemorySaver()
    send = StructuredTool.from_function(desk.send, metadata={"leafe": "irreversible"})

    def agent() -> Any:
        middleware = LeafeMiddleware(
            judge=lambda state, runtime: False, worlds=STATELESS, reflector=reflector(0), max_rewinds=1
        )
        model = script(calls(("send", {"to": "b"})), "done")
        return create_agent(model, [send], middleware=[middleware], checkpointer=saver, interrupt_after=["tools"])

    agent().invoke(ASK, THREAD)
    events = list(agent().stream(None, THREAD, stream_mode="custom"))
    assert [event["leafe"]["verdict"] for event in events] == ["out_of_range"]
    assert desk.sent == ["b"]


def test_behind_the_barrier_it_goes_back() -> None:
    """To what came after the irreversible tool."""
    desk = Desk()
    middleware = LeafeMiddleware(judge=failed_once(), worlds=STATELESS, irreversible={"send"}, reflector=reflector(2))
    agent = create_agent(script(*SENDS, told=("well",)), [desk.look, desk.send], middleware=[middleware])
    assert texts(agent.invoke(ASK)["messages"])[1:] == ["", "nice", "", "sent", "well"]


def test_a_person_that_is_asked_can_go_on_after_a_rewind() -> None:
    """An interrupt in the second attempt is as any other."""
    seeker = Seeker(worlds=[], compensate={"search": lambda args, message: seeker.house["searched"].pop()})
    person = HumanInTheLoopMiddleware(interrupt_on={"search": True})
    agent = seeker.middleware.attach(seeker.agent(person, checkpointer=InMemorySaver()))
    agent.invoke(ASK, THREAD)
    for place in ("attic", "cellar"):
        (interrupt,) = agent.get_state(THREAD).interrupts
        assert interrupt.value["action_requests"][0]["args"] == {"place": place}
        done = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
    assert texts(done["messages"])[1:] == ["", "cellar: key", "I have searched the cellar."]
    assert seeker.house == {"searched": ["cellar"]}


def test_a_turn_of_the_user_before_and_a_summary_cannot_be_gone_back_behind() -> None:
    """Their points are dropped; what is asked of them is out of range."""
    seen: list[Any] = []
    summary = SummarizationMiddleware(
        model=ScriptedModel(reply=["in short"]), trigger=("messages", 5), keep=("messages", 2)
    )
    seeker = Seeker(judge=lambda state, runtime: False, worlds=STATELESS, reflector=reflector(0))
    looks = [calls(("search", {"place": place})) for place in "abc"]
    seeker.model = script(*looks, "done")

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        seen.append(len(messages))
        return looks[len(seen) - 1] if len(seen) <= 3 else "done"

    seeker.model = ScriptedModel(reply=reply)
    agent = seeker.middleware.attach(seeker.agent(summary, checkpointer=InMemorySaver()))
    events = list(agent.stream(ASK, THREAD, stream_mode="custom"))
    assert [event["leafe"]["verdict"] for event in events] == ["out_of_range"]
    assert "in short" in agent.get_state(THREAD).values["messages"][0].text


# ---- channels


class State(AgentState):  # type: ignore[misc]
    """A channel of each kind."""

    added: NotRequired[Annotated[list[str], operator.add]]
    last: NotRequired[str]
    listed: NotRequired[Annotated[list[str], OmitFromInput]]
    passing: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]]
    own: NotRequired[Annotated[int, PrivateStateAttr]]


class Writes(AgentMiddleware):
    """Writes to all of them at every decision."""

    state_schema = State

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        n = state.get("own", 0) + 1
        return {"added": [str(n)], "last": str(n), "listed": [str(n)], "own": n, "passing": n}


def test_named_channels_go_back_and_counters_of_others_stay() -> None:
    """Whatever the channel's kind; what was not there yet is empty again."""
    seeker = Seeker(restore={"added", "last", "listed"}, max_rewinds=1)
    agent = seeker.middleware.attach(seeker.agent(Writes(), checkpointer=InMemorySaver()))
    done = agent.invoke(ASK | {"last": "0"}, THREAD)
    assert done["messages"][-1].text == "I have searched the cellar."
    values = agent.get_state(THREAD).values
    # Points lie behind what others write before a decision: the first was taken back to, then two were made.
    assert (values["added"], values["last"], values["listed"]) == (["1", "3", "4"], "4", ["4"])
    assert values["own"] == 4


def test_todos_go_back_and_limits_of_calls_stay() -> None:
    """As deep agents have them."""
    todo = calls(("write_todos", {"todos": [{"content": "attic", "status": "pending"}]}))
    seeker = Seeker(restore={"todos"})
    seeker.model = script(todo, "done", told=("done again",))
    seeker.middleware.rewinder.judge = failed_once()
    limit = ModelCallLimitMiddleware(thread_limit=10)
    agent = seeker.middleware.attach(seeker.agent(TodoListMiddleware(), limit, checkpointer=InMemorySaver()))
    assert agent.invoke(ASK, THREAD).get("todos") == []
    assert agent.get_state(THREAD).values["thread_model_call_count"] == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_limit_of_calls_that_falls_into_a_rewind_ends_it_whole(tmp_path: Path, asynchronous: bool) -> None:
    """The world is back at the decision, nothing is played on, and no attempt is recorded that made no decision."""
    seeker = Seeker(record=tmp_path / "run")
    agent = seeker.middleware.attach(seeker.agent(ModelCallLimitMiddleware(run_limit=2)))
    config = {"recursion_limit": 60}
    done = asyncio.run(agent.ainvoke(ASK, config)) if asynchronous else agent.invoke(ASK, config)
    assert "Model call limits exceeded" in done["messages"][-1].text
    assert {message.type for message in done["messages"][1:]} == {"ai"}
    assert seeker.house == {"searched": []} and len(seeker.prompts) == 2
    assert [branch["end"] for branch in RunFolder(tmp_path / "run").branches] == ["failure"]


def test_a_public_channel_that_changed_and_is_not_named_is_told() -> None:
    """It would stay as the attempt made it."""
    seeker = Seeker()
    agent = seeker.middleware.attach(seeker.agent(Writes()))
    with pytest.raises(ConfigError, match=r"\['added', 'last', 'listed'\] changed since decision 0"):
        agent.invoke(ASK)


@pytest.mark.parametrize(
    ("before", "restore", "says"),
    [
        ([Writes()], {"nothing"}, "no such channel"),
        ([Writes()], {"own"}, "another middleware's own account"),
        ([Writes()], {"passing"}, "another middleware's own account"),
    ],
)
def test_channels_that_cannot_be_restored_are_refused(before: list[Any], restore: set[str], says: str) -> None:
    """When the agent is attached."""
    seeker = Seeker(restore=restore)
    with pytest.raises(ConfigError, match=says):
        seeker.middleware.attach(seeker.agent(*before))


@pytest.mark.parametrize("before", [TodoListMiddleware(), HumanInTheLoopMiddleware(interrupt_on={"search": True})])
def test_an_agent_with_more_is_to_be_attached(before: Any) -> None:
    """Told at its first run, before anything was played."""
    seeker = Seeker()
    with pytest.raises(ConfigError, match="attach"):
        seeker.agent(before).invoke(ASK)
    assert seeker.prompts == []


def test_the_middleware_is_the_last() -> None:
    """Else another's hooks saw what is taken back."""
    seeker = Seeker()
    agent = create_agent(seeker.model, [seeker.search], middleware=[seeker.middleware, Writes()])
    with pytest.raises(ConfigError, match="stands before Writes; put it last"):
        seeker.middleware.attach(agent)
    with pytest.raises(ConfigError, match="there is no LeafeMiddleware"):
        seeker.middleware.attach(create_agent(seeker.model))


def test_a_structured_response_that_failed_is_taken_back() -> None:
    """The second attempt makes its own."""

    class Found(BaseModel):
        """Where it was."""

        place: str

    said: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> AIMessage:
        said.append("x")
        return AIMessage("", tool_calls=[{"name": "Found", "args": {"place": str(len(said))}, "id": f"c{len(said)}"}])

    middleware = LeafeMiddleware(judge=failed_once(), worlds=STATELESS, reflector=reflector(0))
    agent = create_agent(ScriptedModel(reply=reply), response_format=Found, middleware=[middleware])
    assert agent.invoke(ASK)["structured_response"] == Found(place="2")


# ---- what is refused


def test_tools_without_a_world_are_refused_unless_they_are_said_to_be_stateless() -> None:
    """Before the first call of the model."""
    seeker = Seeker(worlds=())
    with pytest.raises(ConfigError, match=r"\['search'\] may change what no world brings back"):
        seeker.agent().invoke(ASK)
    assert seeker.prompts == []
    stateless = StructuredTool.from_function(seeker.search, metadata={"leafe": "stateless"})
    middleware = LeafeMiddleware(judge=lambda state, runtime: True)
    create_agent(seeker.model, [stateless], middleware=[middleware]).invoke(ASK)
    wrong = StructuredTool.from_function(seeker.search, metadata={"leafe": "harmless"})
    with pytest.raises(ConfigError, match="'harmless'"):
        create_agent(seeker.model, [wrong], middleware=[LeafeMiddleware(judge=seeker.judge)]).invoke(ASK)


def test_tools_with_a_session_are_refused_unless_they_are_irreversible() -> None:
    """No world brings back the processes of a shell, nor the server behind MCP."""
    seeker = Seeker(worlds=[PyObject({})], judge=lambda state, runtime: True)
    shell: Any = ShellToolMiddleware()
    with pytest.raises(ConfigError, match="'shell' holds a session"):
        seeker.middleware.rewinder.around.check(shell.tools)
    allowed = Seeker(irreversible={"shell"})
    allowed.middleware.rewinder.around.check(shell.tools)

    def remote(x: str) -> str:
        """Ask a server."""
        return x

    remote.__module__ = "langchain_mcp_adapters.tools"
    with pytest.raises(ConfigError, match="'remote' holds a session"):
        create_agent(seeker.model, [StructuredTool.from_function(remote)], middleware=[seeker.middleware]).invoke(ASK)


def test_a_judge_says_a_verdict() -> None:
    """Anything else is told, rather than taken for one."""
    with pytest.raises(ConfigError, match="the judge said"):
        Seeker(judge=lambda state, runtime: 0.9).agent().invoke(ASK)


def test_without_langchain_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every extra."""
    monkeypatch.delitem(sys.modules, "leafe_graph.agent.middleware")
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    from importlib import import_module

    with pytest.raises(MissingDependency, match=r"LeafeMiddleware needs packages .*\[langchain\]"):
        import_module("leafe_graph.agent.middleware")


# ---- agents around agents


def test_under_a_driver_it_stands_aside() -> None:
    """Whoever gave the run an episode goes back itself."""
    seeker = Seeker()
    episode = Episode()
    seeker.model = __import__("leafe_graph").policy(seeker.model)
    seeker.agent().invoke(ASK, {"configurable": {"leafe_episode": episode}})
    assert len(episode.decisions) == 2 and seeker.house == {"searched": ["attic"]}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("where", ["main", "subagent"])
def test_deep_agents_and_their_subagents_go_back(where: str, asynchronous: bool) -> None:
    """The middleware is the last of the agent that it is given to."""
    seeker = Seeker(restore={"files"})
    if where == "main":
        agent = create_deep_agent(seeker.model, [seeker.search], middleware=[seeker.middleware])
        seeker.middleware.attach(agent)
    else:
        worker = {
            "name": "worker",
            "description": "searches",
            "system_prompt": "You search.",
            "tools": [seeker.search],
            "model": seeker.model,
            "middleware": [seeker.middleware],
        }
        boss = script(calls(("task", {"description": "Find the key.", "subagent_type": "worker"})), "it is found")
        agent = create_deep_agent(boss, subagents=[worker])  # type: ignore[list-item]
    done = asyncio.run(agent.ainvoke(ASK)) if asynchronous else agent.invoke(ASK)
    assert seeker.house == {"searched": ["cellar"]}
    said = texts(done["messages"])
    assert said[-1] == ("I have searched the cellar." if where == "main" else "it is found")
    assert where == "main" or said[-2] == "I have searched the cellar."


def test_deep_agents_with_memory_skills_and_approval_go_back() -> None:
    """What `create_deep_agent` puts behind the middleware is no hindrance, and who is asked is known."""
    seeker = Seeker(restore={"files"})
    agent = create_deep_agent(
        seeker.model,
        [seeker.search],
        middleware=[seeker.middleware],
        memory=["/AGENTS.md"],
        skills=["/skills"],
        interrupt_on={"write_file": True},
    )
    files = {"/AGENTS.md": create_file_data("Be quick."), "/skills/look/SKILL.md": create_file_data(SKILL)}
    done = seeker.middleware.attach(agent).invoke({**ASK, "files": files})
    assert seeker.house == {"searched": ["cellar"]} and done["files"].keys() == files.keys()
    assert done["messages"][-1].text == "I have searched the cellar."
    assert all("Be quick." in prompt[0].text and "Looks closely" in prompt[0].text for prompt in seeker.prompts)
    assert "write_file" in seeker.middleware.rewinder.around.barriers


SKILL = """\
---
name: look
description: Looks closely
---
Look twice.
"""
