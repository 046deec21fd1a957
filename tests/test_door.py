"""The model's door: what an agent asks its model, recorded, told and given back, wherever the model is asked."""

import asyncio
import operator
import warnings
from typing import Annotated, Any

import pytest
from agents import StreamingModel, calls
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm
from pydantic import BaseModel
from typing_extensions import TypedDict

from leafe_graph import Budget, BudgetExceeded, ConfigError, Episode, Ledger, ReplayDivergence, policy
from leafe_graph.testing import ScriptedModel

ASK = {"messages": [HumanMessage("go")]}


def look(place: str) -> str:
    """Look at a place."""
    return f"{place} is empty"


def run(agent: Any, episode: Episode, given: Any = ASK) -> Any:
    """One run of an agent, in an episode."""
    return agent.invoke(given, {"configurable": {"leafe_episode": episode}})


class Answer(BaseModel):
    """An answer in a form."""

    word: str


def scripted(*replies: str | AIMessage, model: type[ScriptedModel] = ScriptedModel) -> Any:
    """A model that says these one after the other."""
    return policy(model(reply=list(replies)))


def test_the_door_is_the_model_in_a_subclass_of_its_own_class() -> None:
    """What looks at its class, its name or its settings sees the model; the one that was given has no door."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="any", api_key="none")  # type: ignore[arg-type]
    door = policy(model)
    assert isinstance(door, ChatOpenAI) and type(door) is not ChatOpenAI and type(model) is ChatOpenAI
    assert (door._llm_type, door.lc_id(), door._get_ls_params()) == (
        model._llm_type,
        model.lc_id(),
        model._get_ls_params(),
    )
    assert policy(door) is door
    assert door.bind_tools([look]).kwargs == model.bind_tools([look]).kwargs  # type: ignore[attr-defined]
    assert door.with_structured_output(Answer).first.bound is not model  # type: ignore[attr-defined]
    assert door.client is model.client
    assert door._should_stream(async_api=False, stream=True)


def test_without_an_episode_it_is_the_plain_model() -> None:
    """What the one counts, the other has counted: they share all that a model keeps."""
    model = FakeMessagesListChatModel(responses=[AIMessage("one"), AIMessage("two")])
    assert [policy(model).invoke("x").text, model.invoke("x").text] == ["one", "two"]
    streaming = StreamingModel(reply=["a b"])
    assert [chunk.text for chunk in policy(streaming).stream("x")] == [chunk.text for chunk in streaming.stream("x")]
    assert not policy(ScriptedModel(reply=["a"]))._should_stream(async_api=True, stream=True)


def test_what_a_provider_gets_and_answers_is_recorded() -> None:
    """Messages in TRL's form with arguments as objects, the tools of that very call, the answer with all its calls."""
    episode = Episode()
    model = scripted(calls(("look", {"place": "attic"}), ("look", {"place": "cellar"})), "Nothing there.")
    run(create_agent(model, [look], system_prompt="Search."), episode)
    first, second = episode.decisions
    assert first.node == "model"
    assert [message["role"] for message in first.request["messages"]] == ["system", "user"]
    assert first.request["tools"][0]["function"]["name"] == "look"
    assert first.message["tool_calls"] == [{"name": "look", "args": {"place": p}} for p in ("attic", "cellar")]
    called, told = second.request["messages"][2], second.request["messages"][3]
    assert called["tool_calls"][0]["function"] == {"name": "look", "arguments": {"place": "attic"}}
    assert (told["role"], told["name"], told["content"]) == ("tool", "look", "attic is empty")
    assert told["tool_call_id"] == called["tool_calls"][0]["id"]
    assert second.message["content"] == "Nothing there." and second.message.keys() == {"content", "usage", "time"}
    assert first.message["time"]["ended"] <= second.message["time"]["started"]
    assert first.began < first.ended < second.began


def test_output_tools_that_are_bound_last_are_recorded() -> None:
    """The tool of a structured response is in the request that the provider got, and so is that it must call one."""
    episode = Episode()
    model = scripted(calls(("Answer", {"word": "yes"})))
    done = run(create_agent(model, [look], response_format=ToolStrategy(Answer)), episode)
    assert done["structured_response"] == Answer(word="yes")
    (decision,) = episode.decisions
    assert {tool["function"]["name"] for tool in decision.request["tools"]} == {"look", "Answer"}
    assert decision.settings == {"tool_choice": "any"}


@pytest.mark.parametrize(
    ("last", "then"),
    [
        (HumanMessage("go"), "go\n\nTIP"),
        (ToolMessage("seen", tool_call_id="a"), "seen\n\nTIP"),
        (
            HumanMessage([{"type": "text", "text": "go"}]),
            [{"type": "text", "text": "go"}, {"type": "text", "text": "TIP"}],
        ),
        (AIMessage("so far"), "TIP"),
    ],
)
def test_the_experience_ends_the_last_message_of_the_request_alone(last: Any, then: Any) -> None:
    """A text block where the content is a list; the agent's messages and the record do not have it."""
    seen: list[Any] = []

    def reply(messages: list[Any], seed: int | None) -> str:
        seen.append(messages[-1].content)
        return "done"

    episode = Episode(experience="TIP")
    before = last.content
    run(create_agent(policy(ScriptedModel(reply=reply))), episode, {"messages": [HumanMessage("first"), last]})
    assert seen == [then] and last.content == before
    assert "TIP" not in str(episode.decisions[0].request) and episode.decisions[0].told


def swarm(model: Any) -> Any:
    """Two agents, of which the first hands over to the other."""
    alice = create_agent(model, [create_handoff_tool(agent_name="bob")], name="alice")
    return create_swarm([alice, create_agent(model, [look], name="bob")], default_active_agent="alice").compile()


def supervisor(model: Any) -> Any:
    """An agent that gives the work to another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is made of LangGraph's earlier agent
        return create_supervisor([create_agent(model, [look], name="bob")], model=model).compile()


def deep(model: Any) -> Any:
    """A deep agent with a subagent."""
    bob = {"name": "bob", "description": "looks", "system_prompt": "You are bob.", "tools": [look]}
    return create_deep_agent(model, subagents=[bob])  # type: ignore[list-item]


def custom(model: Any) -> Any:
    """A graph of one's own, whose messages are added up."""

    class State(TypedDict):
        messages: Annotated[list[Any], operator.add]

    graph = StateGraph(State)
    graph.add_node("bob", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "bob")
    graph.add_edge("bob", END)
    return graph.compile()


HANDS_OVER = {
    swarm: calls(("transfer_to_bob", {})),
    supervisor: calls(("transfer_to_bob", {})),
    deep: calls(("task", {"description": "look around", "subagent_type": "bob"})),
    custom: AIMessage("nobody"),
}


@pytest.mark.parametrize("build", list(HANDS_OVER))
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_episode_is_seen_in_agents_within_agents(build: Any, asynchronous: bool) -> None:
    """Swarm, supervisor, deep agents' subagents, graphs of one's own; each decision says whose it is."""
    first = HANDS_OVER[build]
    said: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        said.append("x")
        return first if len(said) == 1 and build is not custom else "I am done."

    agent, episode = build(policy(ScriptedModel(reply=reply))), Episode()
    config = {"configurable": {"leafe_episode": episode}}
    if asynchronous:
        asyncio.run(agent.ainvoke(ASK, config))
    else:
        agent.invoke(ASK, config)
    assert len(episode.decisions) == len(said)
    assert any("bob" in decision.node.split("/") for decision in episode.decisions)


def test_a_stream_that_is_consumed_later_keeps_its_episode() -> None:
    """The run was begun where the episode was known, and is played where it is read."""
    episode = Episode(experience="TIP")
    agent = create_agent(scripted("one two", model=StreamingModel))
    stream = agent.stream(ASK, {"configurable": {"leafe_episode": episode}}, stream_mode="messages")
    assert episode.decisions == []
    assert [chunk.text for chunk, _ in stream if chunk.text] == ["one ", "two "]  # type: ignore[misc, union-attr]
    assert episode.decisions[0].message["content"] == "one two " and episode.decisions[0].told

    async def later() -> list[str]:
        found = agent.astream(ASK, {"configurable": {"leafe_episode": episode}}, stream_mode="messages")
        return [chunk.text async for chunk, _ in found if chunk.text]  # type: ignore[misc, union-attr]

    assert asyncio.run(later()) == ["one ", "two "]
    assert len(episode.decisions) == 2


@pytest.mark.parametrize("model", [ScriptedModel, StreamingModel])
def test_recorded_answers_are_given_back(model: type[ScriptedModel]) -> None:
    """Before the decision that is taken anew the model is not asked; there it is told the experience, and goes on."""
    asked: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        asked.append(str(messages[-1].content))
        if "TIP" in asked[-1]:
            return "the cellar"
        return calls(("look", {"place": "attic"})) if len(messages) == 1 else "nowhere"

    agent, first = create_agent(policy(model(reply=reply)), [look]), Episode()
    run(agent, first)
    assert len(asked) == 2
    ledger = Ledger()
    again = Episode(experience="TIP", history=first.decisions, at=1, ledger=ledger)
    config = {"configurable": {"leafe_episode": again}}
    messages = [*agent.stream(ASK, config, stream_mode="values")][-1]["messages"]
    assert [m.text for m in messages][1:] == ["", "attic is empty", messages[-1].text]
    assert messages[-1].text.strip() == "the cellar" and again.arrived
    assert asked[2:] == ["attic is empty\n\nTIP"]
    assert [(d.given_back, d.told) for d in again.decisions] == [(True, False), (False, True)]
    assert (ledger.spent["model_calls"], ledger.spent["replayed_steps"]) == (1, 1)


def test_parallel_decisions_are_given_back_by_what_was_asked() -> None:
    """Not by their number, which is another whenever they are quicker or slower."""

    class State(TypedDict):
        topics: list[str]
        topic: str
        found: Annotated[list[str], operator.add]

    asked: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> str:
        asked.append(messages[-1].content)
        return f"about {messages[-1].content}"

    model = policy(ScriptedModel(reply=reply))

    def graph(topics: list[str]) -> Any:
        made = StateGraph(State)
        made.add_node("research", lambda state: {"found": [model.invoke(state["topic"]).text]})
        made.add_node("write", lambda state: {"found": [model.invoke(" ".join(sorted(state["found"]))).text]})
        made.add_conditional_edges(START, lambda state: [Send("research", {"topic": each}) for each in topics])
        made.add_edge("research", "write")
        return made.compile()

    first = Episode()
    run(graph(["a", "b", "c"]), first, {"found": []})
    tau = next(i for i, decision in enumerate(first.decisions) if decision.node == "write")
    asked.clear()
    again = Episode(experience="TIP", history=first.decisions, at=tau)
    done = run(graph(["c", "a", "b"]), again, {"found": []})
    assert asked == ["about a about b about c\n\nTIP"]
    assert sorted(done["found"])[:3] == ["about a", "about about a about b about c\n\nTIP", "about b"]


def test_a_prompt_that_differs_is_a_divergence_also_where_an_agent_swallows_it() -> None:
    """It is noted on the episode, and nothing is asked after it; where it is accepted the agent goes on."""
    asked: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> str:
        asked.append(messages[-1].content)
        return "well"

    model = policy(ScriptedModel(reply=reply))

    def graph(word: str) -> Any:
        class State(TypedDict):
            said: list[str]

        def node(state: State) -> State:
            try:
                return {"said": [model.invoke(word).text, model.invoke("second").text]}
            except Exception:
                return {"said": ["swallowed"]}

        made = StateGraph(State)
        made.add_node("node", node)
        made.add_edge(START, "node")
        return made.compile()

    first = Episode()
    run(graph("at 10:00"), first, {"said": []})
    asked.clear()
    again = Episode(history=first.decisions, at=1)
    for _ in range(2):
        assert run(graph("at 10:01"), again, {"said": []})["said"] == ["swallowed"]
    assert isinstance(again.stop, ReplayDivergence) and "10:00" in again.stop.expected and asked == []
    accepted = Episode(history=first.decisions, at=1, on_divergence="accept")
    run(graph("at 10:01"), accepted, {"said": []})
    assert accepted.stop is None and "10:01" in str(accepted.divergence and accepted.divergence.actual)
    assert asked == ["at 10:01", "second"]


def test_the_ledger_is_charged_and_stops_the_episode() -> None:
    """Before the call that it does not allow; tokens that were reserved and not used are given back."""
    ledger = Ledger(Budget(model_calls=1, completion_tokens=100))
    episode = Episode(ledger=ledger)
    agent = create_agent(scripted(calls(("look", {"place": "attic"})), "no").bind(max_tokens=50).bound, [look])
    with pytest.raises(ConfigError, match="max_tokens"):
        run(agent, episode)
    bounded = policy(
        ScriptedModel(reply=[calls(("look", {"place": "attic"}), text="so be it"), "no"]).bind(max_tokens=50)
    )

    class State(TypedDict):
        said: list[str]

    def node(state: State) -> State:
        return {"said": [bounded.invoke("one").text, bounded.invoke("two").text]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    episode = Episode(ledger=ledger)
    with pytest.raises(BudgetExceeded):
        run(graph.compile(), episode, {"said": []})
    assert isinstance(episode.stop, BudgetExceeded) and episode.stop.limit == "model_calls"
    assert (ledger.spent["model_calls"], ledger.spent["env_steps"], ledger.spent["completion_tokens"]) == (1, 1, 3)


def test_retries_and_fallbacks_go_through_the_door() -> None:
    """Each try is charged, what answers is recorded."""
    tries: list[int] = []

    def falters(messages: list[Any], seed: int | None) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise TimeoutError("slow")
        return "at last"

    def fails(messages: list[Any], seed: int | None) -> str:
        raise ValueError("never")

    retried = policy(ScriptedModel(reply=falters).with_retry(wait_exponential_jitter=False))
    rescued = policy(ScriptedModel(reply=fails).with_fallbacks([ScriptedModel(reply=["other"])]))

    class State(TypedDict):
        said: list[str]

    graph = StateGraph(State)
    graph.add_node("node", lambda state: {"said": [retried.invoke("x").text, rescued.invoke("x").text]})
    graph.add_edge(START, "node")
    ledger = Ledger()
    episode = Episode(ledger=ledger)
    assert run(graph.compile(), episode, {"said": []})["said"] == ["at last", "other"]
    assert [decision.message["content"] for decision in episode.decisions] == ["at last", "other"]
    assert (ledger.spent["model_calls"], ledger.spent["env_steps"]) == (5, 2)


def test_an_answer_from_a_cache_is_asked_for_in_an_episode() -> None:
    """Else a decision would be missing from it."""
    model = policy(ScriptedModel(reply=["a"], cache=InMemoryCache()))
    episode = Episode()
    for _ in range(2):
        run(custom(model), episode)
    assert len(episode.decisions) == 2


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (create_agent(ScriptedModel(reply=["x"])), "LeafeMiddleware"),
        (lambda messages: "x", "expected a chat model"),
        (ScriptedModel(reply=["x"]) | (lambda message: message), "RunnableSequence"),
    ],
)
def test_what_is_no_chat_model_gets_no_door(model: Any, says: str) -> None:
    """An agent is told from a model where it is given."""
    with pytest.raises(ConfigError, match=says):
        policy(model)


def test_state_at_the_provider_is_refused_at_the_first_answer() -> None:
    """What a provider remembers, or does with tools of its own, cannot be gone back to."""
    episode = Episode()
    with pytest.raises(ConfigError, match="previous_response_id"):
        run(custom(policy(ScriptedModel(reply=["x"])).bind(previous_response_id="r1")), episode)
    assert isinstance(episode.stop, ConfigError)

    searched = FakeMessagesListChatModel(responses=[AIMessage([{"type": "web_search_call", "id": "w"}])])
    with pytest.raises(ConfigError, match="web_search_call"):
        run(custom(policy(searched)), Episode())
    with pytest.raises(ConfigError, match="web_search_preview"):
        run(custom(policy(ScriptedModel(reply=["x"])).bind(tools=[{"type": "web_search_preview"}])), Episode())


def test_tools_are_recorded_in_one_form_whoever_is_asked() -> None:
    """Anthropic's and Google's declarations are read."""
    from leafe_graph.models.requests import openai_tools

    schema = {"type": "object", "properties": {"place": {"type": "string"}}}
    anthropic = {"name": "look", "description": "d", "input_schema": schema}
    google = {"function_declarations": [{"name": "look", "description": "d", "parameters": schema}]}
    responses = {"type": "function", "name": "look", "description": "d", "parameters": schema}
    wanted = {"type": "function", "function": {"name": "look", "description": "d", "parameters": schema}}
    assert openai_tools([anthropic, google, responses]) == [wanted] * 3
