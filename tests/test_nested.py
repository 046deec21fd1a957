"""An agent inside a bigger graph: what goes on inside it, and what is refused."""

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from test_graph import THREAD, Match, bigger_graph, play
from worlds import PIT, WORLDS, Recorder, actions

from leafe_graph.errors import ConfigError

DONE = ["asked", "it was a success in 4 turns"]


def twice_nested(recorder: Recorder, env: Any, saver: Any) -> Any:
    """A graph around the graph around the agent."""
    graph = StateGraph(Match)
    graph.add_node("match", bigger_graph(recorder, env))
    graph.add_edge(START, "match")
    graph.add_edge("match", END)
    return graph.compile(checkpointer=saver)


def checkpoints_inside(graph: Any) -> list[Any]:
    """Play a match; the checkpoints that the agent left in its own namespace."""
    stream = graph.stream({"task": PIT, "log": []}, THREAD, stream_mode="checkpoints", subgraphs=True)
    return [chunk for where, chunk in stream if where and where[-1].startswith("player:")]


@pytest.mark.parametrize("make", [bigger_graph, twice_nested])
@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("forked", [False, True])
def test_checkpoint_inside_a_subgraph_is_not_gone_on_from(make: Any, way: str, forked: bool) -> None:
    """Replayed or forked from inside, the whole episode would run again: refused, before anything is paid for."""
    recorder = Recorder()
    graph = make(recorder, WORLDS[0], InMemorySaver())
    decision = next(c for c in checkpoints_inside(graph) if c["next"] == ["act"] and len(c["values"]["turns"]) == 2)
    assert len(recorder.prompts) == 6
    config = decision["config"]
    if forked:
        config = graph.update_state(config, {"experience": "Walk right."}, as_node="rewind")
    asked_for = config["configurable"]["checkpoint_id"]
    with pytest.raises(ConfigError, match=f"checkpoint {asked_for} was asked for.* run the agent alone"):
        play(graph, None, config, way=way)
    assert len(recorder.prompts) == 6


@pytest.mark.parametrize("env", WORLDS)
def test_every_checkpoint_inside_is_refused_and_can_still_be_read(env: Any) -> None:
    """From the first decision to the end, also after the rewind in place; reading them is no trouble."""
    graph = bigger_graph(Recorder(), env, InMemorySaver())
    inside = checkpoints_inside(graph)
    assert len(inside) == 15
    for chunk in inside:
        assert actions(graph.get_state(chunk["config"]).values) == actions(chunk["values"])
    for chunk in inside[2:-1:4]:
        with pytest.raises(ConfigError, match="of a bigger graph"):
            graph.invoke(None, chunk["config"])


@pytest.mark.parametrize("way", ["sync", "async"])
def test_bigger_graph_itself_may_travel_in_time(way: str) -> None:
    """Forked before the agent's node, the bigger graph plays a new episode, as it should."""
    recorder = Recorder()
    graph = bigger_graph(recorder, WORLDS[1], InMemorySaver())
    play(graph, {"task": PIT, "log": []}, THREAD, way=way)
    before = next(state for state in graph.get_state_history(THREAD) if state.next == ("player",))
    assert play(graph, None, before.config, way=way)["log"] == DONE
    assert len(recorder.prompts) == 12
    after = next(state for state in graph.get_state_history(THREAD) if state.next == ("after",))
    assert play(graph, None, after.config, way=way)["log"] == DONE
    assert len(recorder.prompts) == 12


def test_agent_in_a_loop_of_a_bigger_graph_plays_every_time() -> None:
    """The same node twice in one run, and once more on the same thread: each is an episode of its own."""
    recorder = Recorder()
    graph = StateGraph(Match)
    graph.add_node("player", bigger_graph(recorder, WORLDS[1]))
    graph.add_edge(START, "player")
    graph.add_conditional_edges("player", lambda state: "player" if len(state["log"]) < 10 else END, ["player", END])
    loop = graph.compile(checkpointer=InMemorySaver())
    play(loop, {"task": PIT, "log": []}, THREAD)
    assert len(recorder.prompts) % 6 == 0
    assert len(recorder.prompts) >= 12
    first = len(recorder.prompts)
    play(loop, {"task": PIT, "log": []}, THREAD)
    assert len(recorder.prompts) > first
