"""A whole episode as one superstep, where nobody asks for checkpoints in its middle.

The nodes are those of the graph and their order is the graph's, so what is played is the same; only the state between
them is not handed to LangGraph, which takes most of the time of a turn whose model is small.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer
from typing_extensions import TypedDict

from ..env.seat import Seat
from . import nodes
from .context import Context, PerRun
from .graph import when_to_reflect
from .model_calls import Update
from .runnables import Inline, Make, context_of, driven, later
from .state import APPENDED, AgentInput, State, append


class Whole(TypedDict):
    """The graph's one channel."""

    state: State | AgentInput
    """A task to begin, or where to go on; then where the episode ended."""


EpisodeAgent = CompiledStateGraph[Whole, Context | PerRun, Whole, Whole]


def build_episode(default: Context, checkpointer: Checkpointer = None) -> EpisodeAgent:
    """A graph that plays an episode to its end in its only node, for `explore`: a rewind ends the episode.

    It is a graph still, so that it is traced as one, refuses what waits for an answer, and hands its state to a saver.
    """
    graph = StateGraph(Whole, context_schema=PerRun)

    async def play(given: Whole) -> dict[str, Any]:
        return {"state": await episode(given["state"], context_of(default), later)}

    def alone(given: Whole) -> dict[str, Any]:
        return asyncio.run(play(given))

    graph.add_node("play", Inline(alone, play, name="play"))
    graph.add_edge(START, "play")
    graph.add_edge("play", END)
    return cast(EpisodeAgent, graph.compile(checkpointer=checkpointer))


async def episode(start: State | AgentInput, ctx: Context, make: Make) -> State:
    """Play on to the end of the episode; where it ended.

    The environment is asked in a thread unless it is ``instant``.
    """
    seat = Seat(ctx.envs)
    ctx = replace(ctx, envs=seat)

    async def step(node: Callable[[Any, Context], Update]) -> Update:
        return node(state, ctx) if seat.instant else await asyncio.to_thread(node, state, ctx)

    state = cast(State, dict(start))
    try:
        if "turns" not in start:
            _change(state, await step(nodes.reset))
        while not state["end"]:
            _change(state, await driven(nodes.act, state, ctx, make))
            if not state["end"]:
                _change(state, await step(nodes.step))
            if when_to_reflect(state, ctx):
                _change(state, await driven(nodes.reflect, state, ctx, make))
    finally:
        seat.leave()
    return state


def _change(state: State, update: Update) -> None:
    """What LangGraph's channels do with an update."""
    fields = cast(dict[str, Any], state)
    for name, value in update.items():
        if name not in APPENDED:
            fields[name] = value
        elif isinstance(value, list):
            fields[name] += value
        else:
            fields[name] = append(fields.get(name, []), [value])
