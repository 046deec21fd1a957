"""LangGraph's ways of leaving a node, raised inside an environment, a model or a reflector: they are no failures."""

from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from test_graph import LOST, THREAD, WON, Match, play
from worlds import PIT, Recorder, actions, pit_reply

from leafe_graph import ConfigError, SubprocessEnv, create_leafe_agent, explore
from leafe_graph.prompts import Prompts
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld


class Asking:
    """Asks before it says what came of a step ``asks`` names, when it has walked already; the answer is shown."""

    asks = "up"

    def step(self, action: str) -> Any:
        observation, *rest = super().step(action)  # type: ignore[misc]
        if action in type(self).asks.split():
            observation = f"{interrupt(f'go {action}?')}! {observation}"
        return observation, *rest


class AskingGridWorld(Asking, GridWorld):
    """Replayed."""


class AskingSnapshotGridWorld(Asking, SnapshotGridWorld):
    """Restored."""


class Often(AskingSnapshotGridWorld):
    """Asks at most steps."""

    asks = "up right"


class OftenReplayed(AskingGridWorld):
    """Asks at steps that must be played again to come back to a later one."""

    asks = "up right"


class AskingAtStart(SnapshotGridWorld):
    """Asks where a task starts."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return f"{interrupt('ready?')}! {observation}", info


def asked(state: Any) -> list[str]:
    """What a run that was interrupted asks."""
    return [each.value for each in state.get("__interrupt__", ())]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("env", [AskingGridWorld, AskingSnapshotGridWorld])
def test_interrupt_inside_a_step_is_answered_and_the_step_played_once(env: Any, way: str) -> None:
    """It comes out as LangGraph's; after the answer the step is played from where it began, in the next run too."""
    agent = create_leafe_agent(Recorder().model, env=env, checkpointer=InMemorySaver(), max_rewinds=1)
    state = play(agent, {"task": PIT}, THREAD, way=way)
    assert (asked(state), actions(state)) == (["go up?"], LOST[:2])
    state = play(agent, Command(resume="lost"), THREAD, way=way)  # into the pit; it reflects, rewinds, and asks again
    assert (asked(state), actions(state)) == (["go up?"], WON[:3])
    state = play(agent, Command(resume="well"), THREAD, way=way)
    assert (state["end"], actions(state), asked(state)) == ("success", WON, [])
    assert state["observation"] == "well! reached the goal; you are at 2,0; the goal is at 2,0"
    assert actions(state["abandoned"][0]) == LOST
    assert state["cost"]["env_steps"] == len(LOST) + 2


def test_interrupts_at_many_steps_are_answered_one_by_one() -> None:
    """Each answer belongs to the step that asked, also where an agent of another process goes on."""
    saver = InMemorySaver()

    def agent() -> Any:
        return create_leafe_agent(Recorder().model, env=Often, checkpointer=saver, max_rewinds=1)

    state = agent().invoke({"task": PIT}, THREAD)
    for answer in ("a", "b", "c", "d"):
        assert asked(state)
        state = agent().invoke(Command(resume=answer), THREAD)
    assert (state["end"], actions(state)) == ("success", WON)
    assert [turn["observation"][:2] for turn in state["turns"][2:]] == ["a!", "c!"]
    assert state["observation"][:2] == "d!"


def test_question_in_a_step_that_is_played_again_is_refused() -> None:
    """Its answer would be another step's: a ConfigError says that snapshots are needed."""
    agent = create_leafe_agent(Recorder().model, env=OftenReplayed, checkpointer=InMemorySaver())
    state = agent.invoke({"task": PIT}, THREAD)
    assert asked(state) == ["go right?"]
    state = agent.invoke(Command(resume="a"), THREAD)
    assert asked(state) == ["go up?"]
    with pytest.raises(ConfigError, match=r"called interrupt\(\) while the way back .* give it snapshot\(\)"):
        agent.invoke(Command(resume="b"), THREAD)


def test_interrupt_inside_reset_is_answered() -> None:
    """The task starts when the answer is there."""
    agent = create_leafe_agent(
        ScriptedModel(reply=["down"]), env=AskingAtStart, checkpointer=InMemorySaver(), max_turns=1, max_rewinds=0
    )
    assert asked(agent.invoke({"task": PIT}, THREAD)) == ["ready?"]
    state = agent.invoke(Command(resume="yes"), THREAD)
    assert (state["end"], state["turns"][0]["observation"][:4]) == ("max_turns", "yes!")


def test_interrupt_inside_an_agent_of_a_bigger_graph_is_answered() -> None:
    """It comes out of the graph around it and goes back in."""
    graph = StateGraph(Match)
    graph.add_node("player", create_leafe_agent(Recorder().model, env=AskingSnapshotGridWorld, max_rewinds=0))
    graph.add_edge(START, "player")
    whole = graph.compile(checkpointer=InMemorySaver())
    assert asked(whole.invoke({"task": PIT, "log": []}, THREAD)) == ["go up?"]
    assert whole.invoke(Command(resume="yes"), THREAD)["end"] == "failure"


@pytest.mark.parametrize(
    ("strategy", "checkpointer"), [("leafe", "memory"), ("leafe", "sqlite"), ("independent", None)]
)
def test_interrupt_while_exploring_is_refused(tmp_path: Any, strategy: str, checkpointer: str | None) -> None:
    """Nobody is there to answer: a ConfigError says so and what to do, for environments and for models."""
    human = RunnableLambda(lambda messages: AIMessage(interrupt("your move?")))
    for model, env, question in [
        (Recorder().model, AskingSnapshotGridWorld, "go up?"),
        (human, SnapshotGridWorld, "your move?"),
    ]:
        with pytest.raises(ConfigError, match=f"task 'pit': .* asked '{question[:-1]}.' by interrupt.*nobody"):
            explore(model, env, [PIT], out=tmp_path / question[:2], strategy=strategy, checkpointer=checkpointer)


def test_interrupt_in_a_process_of_its_own_is_refused() -> None:
    """There is no run of LangGraph's in there: a ConfigError says so, where the branch was an env_error."""
    agent = create_leafe_agent(
        ScriptedModel(reply=["up"]),
        env=partial(SubprocessEnv, AskingSnapshotGridWorld),
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(ConfigError, match=r"called interrupt\(\) in a process or thread of its own"):
        agent.invoke({"task": PIT | {"options": {}}}, THREAD)


def leave(where: str, error: Exception) -> tuple[Any, Any, Any, Prompts | None]:
    """A model, a reflector, an environment and prompts, one of which raises."""

    def raising(*args: Any) -> Any:
        raise error

    class Env(SnapshotGridWorld):
        step = raising if where == "step" else SnapshotGridWorld.step
        reset = (lambda self, **_: raising()) if where == "reset" else SnapshotGridWorld.reset
        snapshot = raising if where == "snapshot" else SnapshotGridWorld.snapshot

    prompts = Prompts(action=raising) if where == "prompts" else None
    scripted = ScriptedModel(reply=pit_reply)
    model = RunnableLambda(raising) if where == "model" else scripted
    return model, RunnableLambda(raising) if where == "reflector" else scripted, Env, prompts


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("where", ["model", "reflector", "reset", "step", "snapshot", "prompts"])
def test_what_leaves_a_graph_ends_no_branch(where: str, way: str) -> None:
    """A command to the graph around the agent and an interrupt raised by hand are LangGraph's from everywhere."""

    def around(error: Exception) -> Any:
        model, reflector, env, prompts = leave(where, error)
        graph = StateGraph(Match)
        agent = create_leafe_agent(model, env=env, reflector=reflector, prompts=prompts)
        graph.add_node("player", agent, destinations=("after",))
        graph.add_node("after", lambda state: {"log": ["handed over"]})
        graph.add_edge(START, "player")
        return graph.compile(checkpointer=InMemorySaver())

    handed = around(ParentCommand(Command(graph=Command.PARENT, goto="after")))
    assert play(handed, {"task": PIT, "log": []}, THREAD, way=way)["log"] == ["handed over"]
    stopped = around(GraphInterrupt())
    assert play(stopped, {"task": PIT, "log": []}, THREAD, way=way).get("end") is None
