"""Stage 1 for an agent that exists already: a whole compiled graph, or functional entrypoint, is the policy."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from langgraph.types import Interrupt
from pydantic import Field

from ..agent.context import Model
from ..env.worlds import World
from ..errors import ConfigError
from ..settings import Live, Pace, takes
from ..tree.run_folder import RunFolder
from ..types import Task
from .attempt import WholeAgent
from .ctrl_c import without_loop
from .growing import MEMORY, Growing, grow_trees
from .replayed import Replayed

THREADS = 8
"""Threads for each task that is played at once: functions of an agent that are no coroutines run in one each."""
_NOT_OURS = ("history", "experience_turns", "reflect_every", "max_tokens")


class AgentArguments(Growing):
    """What `explore_agent` is called with."""

    build: Live[Callable[..., Any]] = Field(kw_only=False)
    """``build(model, world)`` makes the agent: a compiled graph, or an entrypoint. It uses this model, which is the one
    below with a door, and tools that change this world. It may be asynchronous, and is called for every branch."""
    model: Live[str | Model] = Field(kw_only=False)
    """The policy, as a chat model or a string for `leafe_graph.load_model`."""
    tasks: Live[Sequence[Task | str]] = Field(kw_only=False)
    """With unique ids."""
    judge: Live[Callable[..., Any]]
    """``judge(result, world, task)`` says whether an attempt is a success: a `Verdict`, or its ``success`` alone. The
    result is what the agent's ``invoke`` gives. It may be asynchronous."""
    world: Live[Callable[[Task], World] | None] = None
    """``world(task)`` makes what the agent's tools change, as it is at the task's start; called once for each tree.
    None: tools change nothing."""
    inputs: Live[Callable[[Task], Any] | None] = None
    """From a task to the agent's input; unless given, its instruction as a person's message."""
    answer: Live[Callable[[Interrupt], Any] | None] = None
    """Answers what the agent asks by ``interrupt()``, with JSON; it may be asynchronous. Its answers are recorded, and
    given back by a replay."""
    fork: Annotated[bool, Pace] = False
    """Begin a branch at the step of the outermost graph that its decision is in, in the state and the world of that
    moment, in place of a replay from the start: tools and nodes before it are not run again, and need not do the same
    again. What is neither in the graph's channels nor in its world, such as what ``build`` made beside them, is new
    then; and the world is kept before every step. The branches are the same. Where that step is gone, as after a kill,
    or a person was asked, or the agent has a saver, a store or untracked channels, it is a replay."""
    redact: Live[bool | Callable[[str], str]] = True
    """Take secrets out of what is logged, see `leafe_graph.redaction`; a function of a text does more. A branch that
    comes by one is not played again from the log: after a kill it ends as a divergence. False keeps all."""


@takes(AgentArguments)
def explore_agent(given: AgentArguments) -> RunFolder:
    """`aexplore_agent` for callers without an event loop; Ctrl-C is as with `leafe_graph.explore`."""
    return without_loop(
        lambda stop: _explore(given.model_copy(update={"stop": stop})),
        stop=given.stop,
        threads=THREADS * given.concurrency,
        name="explore_agent",
    )


@takes(AgentArguments)
async def aexplore_agent(given: AgentArguments) -> RunFolder:
    """Grow a tree of attempts of an agent for every task; run again with the same arguments, it resumes.

    A decision is one call of the model, by whichever of its agents. A branch at a decision plays the agent anew: the
    recorded answers before it are given back by node, prompt and tools, tools run again in a world that was brought
    back to the start, and from the decision on the agent is told the experience. A prompt that differs from what was
    recorded is a divergence. With ``fork`` it begins at the decision's step instead.

    Returns:
        The run folder, as `leafe_graph.explore` gives it, with rows that have tools.

    Raises:
        ConfigError: the agent does not use the model that it was given, is no graph, or asks a person where there is
            no ``answer``; or as with `leafe_graph.explore`.
        RunFolderError: as with `leafe_graph.explore`, and so the others.
    """
    return await _explore(given)


async def _explore(given: AgentArguments) -> RunFolder:
    if wrong := [name for name in _NOT_OURS if getattr(given, name) != AgentArguments.model_fields[name].default]:
        raise ConfigError(
            f"{', '.join(wrong)}: an agent of your own makes its prompts and calls itself, and is reflected upon at "
            "its end; leave these settings out"
        )
    agent = WholeAgent(
        build=given.build,
        world=given.world,
        judge=given.judge,
        inputs=given.inputs,
        answer=given.answer,
        redact=given.redact,
    )
    named = getattr(given.build, "__qualname__", type(given.build).__qualname__)
    own = {"agent": f"{getattr(given.build, '__module__', '')}:{named}"} | (given.config or {})
    return await grow_trees(
        given.model_copy(update={"config": own}),
        given.model,
        given.tasks,
        lambda context, points, strategy: lambda: Replayed(agent, fork=given.fork and strategy.forks),
        env=_no_env,
        checkpointer=MEMORY,
    )


def _no_env() -> Any:
    raise ConfigError("an agent of your own has no environment")
