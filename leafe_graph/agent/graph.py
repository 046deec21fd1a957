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

from ..budget import Budget
from ..env.pool import EnvPool
from ..env.protocol import TextEnv
from ..prompts import Prompts
from ..types import OnDivergence
from . import nodes
from .context import Context, Model
from .retries import RETRY, TIMEOUT
from .runnables import Inline, calling, context_of, plain
from .state import AgentInput, State


def create_leafe_graph(
    model: str | Model,
    *,
    env: Callable[[], TextEnv] | EnvPool,
    reflector: str | Model | None = None,
    prompts: Prompts | None = None,
    max_turns: int = 30,
    reflect_every: int | None = None,
    max_rewinds: int = 3,
    history: int | None = None,
    experience_turns: int | None = None,
    max_tokens: int | None = None,
    reflect_max_tokens: int | None = None,
    timeout: float | None = TIMEOUT,
    retry: RetryPolicy | None = RETRY,
    on_divergence: OnDivergence = "end",
    budget: Budget | None = None,
    seed: int | None = None,
) -> StateGraph[State, Context, AgentInput, State]:
    """The uncompiled state machine of an agent that reflects and rewinds in place.

    Args:
        model: the policy: a chat model, or a string that `leafe_graph.models.load_model` knows.
        env: makes an environment (a class or function without arguments), or a pool of them.
        reflector: another model for the reflections; the policy itself if None, as in the paper.
        prompts: the texts.
        max_turns: horizon of a path, in decisions.
        reflect_every: K, in turns; None reflects on failure only.
        max_rewinds: how often the agent may go back; 0 never reflects.
        history: earlier turns shown in a prompt; None is all.
        experience_turns: turns of a branch whose prompt shows the experience; None is all of them.
        max_tokens: new tokens of an action, for models that take it.
        reflect_max_tokens: new tokens of a reflection, for models that take it.
        timeout: seconds that one try of a model call may take; None is no limit.
        retry: how model calls that fail are tried again; by default seven tries within about a minute, after rate
            limits, failures of the server, timeouts and lost connections. Each try is counted; None is never.
        on_divergence: what a replay that shows something else than was recorded does: "end" the episode by that reason,
            "raise" `ReplayDivergence`, or "accept": go on, with the state's ``divergence`` as a mark.
        budget: limits of one run of the agent.
        seed: root of the sampling seeds, for models that take one.
    """
    policy = as_model(model)
    context = Context(
        policy=policy,
        reflector=policy if reflector is None else as_model(reflector),
        envs=env if isinstance(env, EnvPool) else EnvPool(env),
        prompts=prompts or Prompts(),
        max_turns=max_turns,
        reflect_every=reflect_every,
        reflect=max_rewinds > 0,
        max_rewinds=max_rewinds,
        history=history,
        experience_turns=experience_turns,
        max_tokens=max_tokens,
        reflect_max_tokens=reflect_max_tokens,
        timeout=timeout,
        retry=retry,
        on_divergence=on_divergence,
        budget=budget or Budget(),
        seed=seed,
    )
    return build_graph(context)


def as_model(model: str | Model) -> Model:
    """A chat model, loaded if it is named by a string (see `leafe_graph.models.load_model`)."""
    if not isinstance(model, str):
        return model
    from ..models.load import load_model

    return load_model(model)


def build_graph(default: Context, *, fused: bool = False) -> StateGraph[State, Context, AgentInput, State]:
    """The state machine with a context to use where a run brings none of its own.

    ``fused``: act and step are one node, called act, so that a turn is one superstep. The decision points are the same.
    """
    graph = StateGraph(State, context_schema=Context, input_schema=AgentInput)
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
        ctx, end = context_of(default), state["end"]
        if not ctx.reflect or end in ("success", "budget", "env_error", "model_error", "replay_divergence"):
            return END if end else "act"
        if ctx.fork and nodes.ledger_of(state, ctx).refuses(env_steps=1):  # no branch could follow
            return END if end else "act"
        if not ctx.fork and len(state["abandoned"]) >= ctx.max_rewinds:
            return END if end else "act"
        played = len(state["turns"]) - state["branch"]["decision_point"]
        due = ctx.reflect_every is not None and played % ctx.reflect_every == 0
        return "reflect" if end or due else "act"

    def after_reflect(state: State) -> str:
        ctx, reflection = context_of(default), state["reflection"]
        if reflection is not None and reflection["verdict"] == "rewind" and not ctx.fork:
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


def create_leafe_agent(
    model: str | Model,
    *,
    env: Callable[[], TextEnv] | EnvPool,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    name: str = "leafe_agent",
    max_turns: int = 30,
    **settings: Any,
) -> CompiledStateGraph[State, Context, AgentInput, State]:
    """A compiled agent: ``agent.invoke({"task": …})["end"]``.

    Takes everything that `create_leafe_graph` takes, and what ``StateGraph.compile`` needs. Without a checkpointer it
    rewinds just as well; with one it also survives its process and can be forked.
    """
    graph = create_leafe_graph(model, env=env, max_turns=max_turns, **settings)
    compiled = graph.compile(checkpointer=checkpointer, store=store, cache=cache, name=name)
    return compiled.with_config(recursion_limit=recursion_limit(max_turns, settings.get("max_rewinds", 3)))


def recursion_limit(max_turns: int, rewinds: int) -> int:
    """Supersteps that the longest possible run takes: two a turn, a reflection a turn, a rewind a path."""
    return (3 * max_turns + 2) * (rewinds + 1) + 10
