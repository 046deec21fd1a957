"""`LeafeMiddleware`: an agent of `create_agent` goes back to its mistakes in place, with all that it changed."""

import asyncio
from typing import Any

import pytest
from agents import StreamingModel, calls
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from leafe_graph import ConfigError, LeafeMiddleware, Verdict
from leafe_graph.env.worlds import STATELESS, PyObject
from leafe_graph.testing import ScriptedModel

ASK = {"messages": [HumanMessage("Find the key.")]}
TIP = "look in the cellar"


def reflection(step: int | None, experience: str = TIP) -> str:
    """A reflector's answer."""
    return f'{{"step": {"null" if step is None else step}, "experience": "{experience}"}}'


class Seeker:
    """An agent that searches the attic first, and where it is told; its prompts and its house are kept."""

    def __init__(self, model: type[ScriptedModel] = ScriptedModel, **settings: Any) -> None:
        self.prompts: list[list[Any]] = []
        self.house: dict[str, list[str]] = {"searched": []}
        self.settings = {"judge": self.judge, "worlds": [PyObject(self.house)], "reflector": reflector(0)} | settings
        self.middleware = LeafeMiddleware(**self.settings)
        self.model = model(reply=self.reply)

    def reply(self, messages: list[Any], seed: int | None) -> str | AIMessage:
        self.prompts.append(list(messages))
        told = TIP in messages[-1].text
        if messages[-1].type == "tool" and not told:
            return f"I have searched: {messages[-1].text}"
        if messages[-1].type == "tool":
            return "I have searched the cellar."
        return calls(("search", {"place": "cellar" if told else "attic"}))

    def search(self, place: str) -> str:
        """Search a place."""
        self.house["searched"].append(place)
        return f"{place}: {'key' if place == 'cellar' else 'nothing'}"

    def judge(self, state: Any, runtime: Any) -> Verdict:
        return Verdict(self.house["searched"] == ["cellar"], "there is no key in the attic")

    def agent(self, *before: Any, tools: Any = (), **rest: Any) -> Any:
        return create_agent(self.model, [self.search, *tools], middleware=[*before, self.middleware], **rest)


def reflector(*steps: int | None) -> ScriptedModel:
    """A reflector that names these steps one after the other."""
    left = list(steps)
    return ScriptedModel(reply=lambda messages, seed: reflection(left.pop(0) if len(left) > 1 else left[0]))


def texts(messages: list[Any]) -> list[str]:
    """What was said, without calls."""
    return [message.text for message in messages]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_attempt_that_failed_is_rewound_and_made_anew(asynchronous: bool) -> None:
    """Messages and world are as if it had not been; the experience is in the prompts alone."""
    seeker = Seeker()
    agent = seeker.agent()
    done = asyncio.run(agent.ainvoke(ASK)) if asynchronous else agent.invoke(ASK)
    assert texts(done["messages"]) == ["Find the key.", "", "cellar: key", "I have searched the cellar."]
    assert seeker.house == {"searched": ["cellar"]}
    assert TIP not in str(done) and "leafe" not in done
    assert [TIP in prompt[-1].text for prompt in seeker.prompts] == [False, False, True, True]


def test_the_users_model_gets_no_door() -> None:
    """It is asked as it is, in a copy of its own class."""
    seeker = Seeker()
    seeker.agent().invoke(ASK)
    assert type(seeker.model) is ScriptedModel


def test_an_attempt_without_opinion_or_with_success_stands() -> None:
    """Nobody is asked for a reflection then."""
    refuses = ScriptedModel(reply=lambda messages, seed: 1 / 0)  # type: ignore[arg-type, return-value]
    for said in (None, True, Verdict(None)):
        seeker = Seeker(judge=lambda state, runtime, said=said: said, reflector=refuses)
        assert len(seeker.agent().invoke(ASK)["messages"]) == 4


def test_rewinds_end_and_the_last_attempt_stands() -> None:
    """After as many as are allowed, or where the reflector sees nothing to do otherwise."""
    never = Seeker(judge=lambda state, runtime: False, max_rewinds=2)
    assert len(never.agent().invoke(ASK)["messages"]) == 4 and len(never.prompts) == 6
    on_track = Seeker(judge=lambda state, runtime: False, reflector=reflector(None))
    on_track.agent().invoke(ASK)
    assert len(on_track.prompts) == 2


def test_a_judge_may_be_asynchronous_where_the_agent_is() -> None:
    """Else it is told."""

    async def judge(state: Any, runtime: Any) -> bool:
        return "cellar" in state["messages"][-1].text

    seeker = Seeker(judge=judge)
    assert asyncio.run(seeker.agent().ainvoke(ASK))["messages"][-1].text == "I have searched the cellar."
    with pytest.raises(ConfigError, match="ainvoke"):
        seeker.agent().invoke(ASK)


def test_the_reflector_is_asked_about_steps_and_feedback() -> None:
    """With the numbers that it may answer."""
    asked: list[str] = []

    def reply(messages: list[Any], seed: int | None) -> str:
        asked.append(messages[-1].text)
        return reflection(0)

    Seeker(reflector=ScriptedModel(reply=reply)).agent().invoke(ASK)
    assert '0. {"args": {"place": "attic"}, "name": "search"} -> attic: nothing' in asked[0]
    assert "1. I have searched: attic: nothing" in asked[0]
    assert "there is no key in the attic" in asked[0] and asked[0].startswith("Start:\nFind the key.")


def test_the_agents_own_model_reflects_unless_another_is_given() -> None:
    """As in the paper."""
    seeker = Seeker(reflector=None)
    plain = seeker.reply
    seeker.model.reply = lambda messages, seed: (
        reflection(0) if "Which step was the mistake" in messages[-1].text else plain(messages, seed)
    )
    assert seeker.agent().invoke(ASK)["messages"][-1].text == "I have searched the cellar."


def test_two_user_turns_on_one_thread() -> None:
    """A rewind of the second takes nothing of the first, nor the user's second message."""
    seeker = Seeker()
    seeker.house["searched"] = []
    agent = seeker.agent(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    first = agent.invoke(ASK, config)
    seeker.house["searched"].clear()
    second = agent.invoke({"messages": [HumanMessage("Find the key again.")]}, config)
    assert texts(second["messages"])[:4] == texts(first["messages"])
    assert texts(second["messages"])[4:] == ["Find the key again.", "", "cellar: key", "I have searched the cellar."]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_k_decisions_it_reflects_on_the_way(asynchronous: bool) -> None:
    """Without waiting for the end, and without a judge."""
    seeker = Seeker(judge=None, reflect_every=1, reflector=reflector(0, None))
    agent = seeker.agent()
    done = asyncio.run(agent.ainvoke(ASK)) if asynchronous else agent.invoke(ASK)
    assert texts(done["messages"])[2:] == ["cellar: key", "I have searched the cellar."]
    assert seeker.house == {"searched": ["cellar"]}
    assert len(seeker.prompts) == 3


def test_a_rewind_is_told_to_those_who_stream() -> None:
    """In ``custom`` by an event, in ``messages`` by messages that remove what was shown; reflections are in neither."""
    seeker = Seeker(model=StreamingModel, reflector=StreamingModel(reply=[reflection(0)]))
    events = list(seeker.agent().stream(ASK, stream_mode=["custom", "messages", "values"]))
    custom = [event["leafe"] for mode, event in events if mode == "custom"]
    assert [event["event"] for event in custom] == ["reflection", "rewind"]
    shown = [event[0] for mode, event in events if mode == "messages"]
    removed = [message.id for message in shown if isinstance(message, RemoveMessage)]
    assert removed == [REMOVE_ALL_MESSAGES] and len(custom[1]["removed"]) == 3
    assert "".join(message.text for message in shown).count("I have searched") == 2
    assert not any("step" in message.text for message in shown)
    values = [event for mode, event in events if mode == "values"]
    assert TIP not in str(values) and any(event.get("leafe", {}).get("experience") for event in values)


def test_reflections_are_tagged() -> None:
    """So that traces and streams tell them from the agent's own calls."""
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[Any] = []

    class Watch(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **rest: Any) -> None:
            seen.append((rest.get("tags"), rest.get("metadata", {}).get("lc_source")))

    Seeker().agent().invoke(ASK, {"callbacks": [Watch()]})
    reflections = [tags for tags, source in seen if source == "leafe"]
    assert len(reflections) == 1 and "langsmith:nostream" in reflections[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"judge": None}, "nothing would ever be reflected upon"),
        ({"reflect_every": 0}, "reflect_every=0"),
        ({"max_rewinds": -1}, "max_rewinds=-1"),
        ({"irreversible": "send"}, "expected names"),
        ({"worlds": PyObject({})}, "give a list"),
        ({"reflector": 3}, "reflector is 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    """Where they are given."""
    with pytest.raises(ConfigError, match=says):
        LeafeMiddleware(**{"judge": lambda state, runtime: True, "worlds": STATELESS} | settings)
