"""The wiring: reset → act → step → {act, reflect, END}, reflect → {act, rewind, END}, rewind → act.

Routing is by conditional edges: a fork of a checkpoint whose node routes by ``Command`` silently runs nothing.
"""

from collections.abc import Callable
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer, RetryPolicy
from pydantic import Field

from ..budget import Budget
from ..env.pool import EnvPool
from ..env.protocol import TextEnv
from ..models.checked import checked_model
from ..prompts import Prompts
from ..settings import Live, Play, part, takes
from . import nodes
from .account import ledger_of
from .context import Context, Model, PerRun
from .retries import RETRY, retries
from .runnables import Inline, calling, context_of, plain
from .state import AgentInput, State

Graph = StateGraph[State, Context | PerRun, AgentInput, State]
Agent = CompiledStateGraph[State, Context | PerRun, AgentInput, State]

UNBOUNDED = 10**9
"""LangGraph's limit of supersteps, out of the way: horizon and rewinds bound a run, and it may bring others."""


class GraphArguments(PerRun):
    """What `create_leafe_graph` is called with."""

    model: Live[str | Model] = Field(kw_only=False)
    """The policy: a chat model, or a string that `leafe_graph.load_model` knows."""
    env: Live[Callable[[], TextEnv] | EnvPool]
    """Makes an environment (a class or function without arguments), or a pool of them."""
    reflector: Live[str | Model | None] = None
    """Another model for the reflections; the policy itself unless given, as in the paper."""
    prompts: Live[Prompts | None] = None
    """The texts."""
    retry: Live[RetryPolicy | None] = RETRY
    """Another policy of retries than ``tries`` within about a minute; None is never."""
    seed: int | None = None
    """Root of all sampling seeds, for models that take one; None lets every call be drawn afresh."""


class AgentArguments(GraphArguments):
    """What `create_leafe_agent` is called with."""

    checkpointer: Live[Checkpointer] = None
    """LangGraph's: with one, the agent also survives its process and can be forked."""
    store: Live[BaseStore | None] = None
    """LangGraph's."""
    cache: Live[BaseCache[Any] | None] = None
    """LangGraph's."""
    name: str = "leafe_agent"
    """What the graph is called."""


@takes(GraphArguments)
def create_leafe_graph(given: GraphArguments) -> Graph:
    """The uncompiled state machine of an agent that reflects and rewinds in place.

    Raises:
        ConfigError: a setting is wrong, or nothing understands the model.
    """
    return _graph(given)


@takes(AgentArguments)
def create_leafe_agent(given: AgentArguments) -> Agent:
    """A compiled agent: ``agent.invoke({"task": …})["end"]``.

    Without a checkpointer it rewinds just as well; with one it also survives its process and can be forked. A run may
    bring settings of its own: ``agent.invoke({"task": …}, context={"max_turns": 5})``, see
    `leafe_graph.agent.context.PerRun`.

    Raises:
        ConfigError: a setting is wrong, or nothing understands the model.
    """
    graph = _graph(given)
    compiled = graph.compile(checkpointer=given.checkpointer, store=given.store, cache=given.cache, name=given.name)
    return compiled.with_config(recursion_limit=UNBOUNDED)


def _graph(given: GraphArguments) -> Graph:
    policy = as_model(given.model, "model")
    context = Context(
        policy=policy,
        reflector=policy if given.reflector is None else as_model(given.reflector, "reflector"),
        envs=given.env if isinstance(given.env, EnvPool) else EnvPool(given.env),
        prompts=given.prompts or Prompts(),
        play=part(given, Play),
        retry=retries(given.retry, given.tries),
        max_rewinds=given.max_rewinds,
        budget=given.budget or Budget(),
    )
    return build_graph(context)


def as_model(model: str | Model, role: str) -> Model:
    """A chat model, loaded if it is named by a string (see `leafe_graph.load_model`).

    Raises:
        ConfigError: what was given in this role is no chat model, or nothing understands its name.
    """
    if not isinstance(model, str):
        return checked_model(model, role)
    from ..models.load import load_model

    return load_model(model)


def build_graph(default: Context, *, fused: bool = False) -> Graph:
    """The state machine with a context to use where a run brings none of its own.

    ``fused``: act and step are one node, called act, so that a turn is one superstep. The decision points are the same.
    """
    graph: Graph = StateGraph(State, context_schema=PerRun, input_schema=AgentInput)
    graph.add_node("reset", plain(nodes.reset, default))
    if fused:
        graph.add_node("act", calling(nodes.act, default, then=nodes.step))
    else:
        graph.add_node("act", calling(nodes.act, default))
        graph.add_node("step", plain(nodes.step, default))
    graph.add_node("reflect", calling(nodes.reflect, default))
    graph.add_node("rewind", plain(nodes.rewind, default))

    def after_reset(state: State) -> str:
        return END if state["end"] else "act"

    def after_act(state: State) -> str:
        return END if state["end"] else "step"

    def after_step(state: State) -> str:
        if when_to_reflect(state, context_of(default)):
            return "reflect"
        return END if state["end"] else "act"

    def after_reflect(state: State) -> str:
        reflection = state["reflection"]
        if reflection is not None and reflection["verdict"] == "rewind" and not context_of(default).fork:
            return "rewind"
        return END if state["end"] else "act"

    graph.add_edge(START, "reset")
    graph.add_conditional_edges("reset", Inline(after_reset), ["act", END])
    if fused:
        graph.add_conditional_edges("act", Inline(after_step), ["act", "reflect", END])
    else:
        graph.add_conditional_edges("act", Inline(after_act), ["step", END])
        graph.add_conditional_edges("step", Inline(after_step), ["act", "reflect", END])
    graph.add_conditional_edges("reflect", Inline(after_reflect), ["act", "rewind", END])
    graph.add_edge("rewind", "act")
    return graph


def when_to_reflect(state: State, ctx: Context) -> bool:
    """Whether the reflector is asked after this turn: on failure and every K turns, where a rewind could follow."""
    end = state["end"]
    if not ctx.reflect or end in ("success", "budget", "env_error", "model_error", "replay_divergence"):
        return False
    if ctx.fork:  # a branch needs a step of its own
        could_follow = ledger_of(state, ctx).refuses(env_steps=1) is None
    else:
        could_follow = len(state["abandoned"]) < ctx.max_rewinds
    if not could_follow:
        return False
    played, every = len(state["turns"]) - state["branch"]["decision_point"], ctx.play.reflect_every
    return end is not None or (every is not None and played % every == 0)
