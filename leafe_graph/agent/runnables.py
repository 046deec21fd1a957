"""From node functions to what LangGraph runs."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.runtime import get_runtime

from ..processes import daemon
from ..settings import Play
from .context import Context, Model
from .model_calls import Call, Update, chat, innermost
from .state import State

Make = Callable[[Call], Awaitable[AIMessage | Exception]]
"""Makes a model call; what it raises is handed over, since a coroutine cannot raise StopIteration."""
Calling = Callable[[State, Context], Generator[Call, AIMessage, Update]]
"""A node that makes model calls."""
Step = Callable[[Callable[[State, Context], Update], State, Context], Awaitable[Update]]
"""Runs a node without model calls."""
EXIT_SECONDS = 5.0
"""When the interpreter ends, a call that was left behind is waited for so long: its model may compute in C++."""


class Inline(Runnable[Any, Any]):
    """A function as LangGraph runs it, and nothing around it: LangGraph traces the node already.

    LangChain's RunnableLambda would look at the function's signature at every call and hand a function without an
    async form, such as a route, to a thread: a fifth of a turn's time.
    """

    def __init__(
        self, run: Callable[[Any], Any], arun: Callable[[Any], Awaitable[Any]] | None = None, *, name: str | None = None
    ) -> None:
        self.run, self.arun, self.name = run, arun, name or run.__name__

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        """Call it, inside the run's config: LangGraph gives routes none."""
        with set_config_context(config or {}) as context:
            return context.run(self.run, input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        """Call its async form if it has one, else itself: then it must not block."""
        return self.invoke(input, config) if self.arun is None else await self.arun(input)


def plain(node: Callable[[Any, Context], Update], default: Context) -> Inline:
    """A node without model calls; under asyncio it runs in a thread, as an environment may block."""

    def run(state: Any) -> Update:
        return node(state, context_of(default))

    async def arun(state: Any) -> Update:
        return await asyncio.to_thread(run, state)

    return Inline(run, arun, name=node.__name__)


def calling(
    node: Calling,
    default: Context,
    *,
    then: Callable[[State, Context], Update] | None = None,
) -> Inline:
    """A node that asks for model calls by yielding them: one text for the sync and the async way.

    ``then``: a node without model calls that is run in the same superstep, unless the first one ended the episode.
    """

    async def play(state: State, make: Make, step: Step) -> Update:
        ctx = context_of(default)
        update = await driven(node, state, ctx, make)
        if then is None or update.get("end"):
            return update
        return _changes(state, update | await step(then, _after(state, update), ctx))

    def run(state: State) -> Update:
        return _without_loop(play(state, _now, _step))

    async def arun(state: State) -> Update:
        return await play(state, later, asyncio.to_thread)

    return Inline(run, arun, name=node.__name__)


async def driven(node: Calling, state: State, ctx: Context, make: Make) -> Update:
    """What a node changes that asks for model calls by yielding them."""
    steps = node(state, ctx)
    try:
        call = next(steps)
        while True:
            outcome = await make(call)
            call = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
    except StopIteration as done:
        return dict(done.value)


def _without_loop(waiting: Coroutine[Any, Any, Update]) -> Update:
    """The result of a coroutine that waits for nothing: the way to run the one text without an event loop."""
    try:
        waiting.send(None)
    except StopIteration as done:
        update: Update = done.value
        return update
    raise RuntimeError("a synchronous node waited")


async def _step(node: Callable[[State, Context], Update], state: State, ctx: Context) -> Update:
    """Run a node here and now."""
    return node(state, ctx)


def _changes(state: State, update: Update) -> Update:
    """Without what was and stays None: every write is stored."""
    return {name: value for name, value in update.items() if value is not None or state.get(name) is not None}


def _after(state: State, update: Update) -> State:
    """The state with an update of channels that keep their last value."""
    return cast(State, {**state, **update})


async def _now(call: Call) -> AIMessage | Exception:
    try:
        return _invoke(call)
    except Exception as error:
        return error


async def later(call: Call) -> AIMessage | Exception:
    """Make the call without holding up the event loop."""
    try:
        return await _ainvoke(call)
    except Exception as error:
        return error


def _invoke(call: Call) -> AIMessage:
    """Make the call. One that hangs is left behind in its thread, since no thread can be ended."""
    if call.wait:
        time.sleep(call.wait)
    if call.timeout is None:
        return call.model.invoke(chat(call), **call.settings())
    answer = _in_thread(call)
    try:
        return answer.result(call.timeout)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {call.timeout:g} s") from None


def _in_thread(call: Call) -> "Future[AIMessage]":
    """Make the call in a thread of its own: one that hangs takes no place of the others'."""
    answer: Future[AIMessage] = Future()
    answer.set_running_or_notify_cancel()  # from now on it is not cancelled, only left

    def run() -> None:
        try:
            answer.set_result(call.model.invoke(chat(call), **call.settings()))
        except BaseException as error:  # it is raised where the call was made
            answer.set_exception(error)

    context = contextvars.copy_context()
    daemon.start(lambda: context.run(run), name="leafe-call", patience=EXIT_SECONDS)
    return answer


async def _ainvoke(call: Call) -> AIMessage:
    """Make the call; one that takes too long is cancelled or, where the model knows no asyncio, left in its thread."""
    if call.wait:
        await asyncio.sleep(call.wait)
    try:
        async with asyncio.timeout(call.timeout) as limit:
            if _only_synchronous(call.model):
                return await asyncio.wrap_future(_in_thread(call))
            return await call.model.ainvoke(chat(call), **call.settings())
    except TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(f"no answer within {call.timeout:g} s") from None


def _only_synchronous(model: Model) -> bool:
    """Whether LangChain would have this chat model wait in the event loop's own threads."""
    kind = type(innermost(model))
    return issubclass(kind, BaseChatModel) and (kind._agenerate, kind._astream) == (
        BaseChatModel._agenerate,
        BaseChatModel._astream,
    )


def context_of(default: Context) -> Context:
    """The run's own context if it was given one of ours, else the agent's, with the settings that a run brought."""
    given: object = get_runtime().context
    if isinstance(given, Play):
        return default.told(given)
    return given if isinstance(given, Context) else default
