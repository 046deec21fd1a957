"""An agent of ``langchain.agents.create_agent`` that goes back to its mistakes, in place: LangChain's hooks."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from langchain_core.runnables.config import var_child_runnable_config

from ..env.worlds import World
from ..errors import ConfigError, MissingDependency
from ..prompts import Prompts
from .effects import run_later, run_now
from .graph import as_model
from .points import Progress
from .recorder import Recorder
from .rewinder import Rewinder
from .surroundings import OWN, Surroundings
from .turn_worlds import TurnWorlds

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
    from langchain.agents.middleware.types import PrivateStateAttr
except ImportError as error:
    raise MissingDependency(extra="langchain", needed_for="LeafeMiddleware") from error


class LeafeState(AgentState):  # type: ignore[misc]
    """The agent's state, and the middleware's own account in it."""

    leafe: NotRequired[Annotated[Progress, PrivateStateAttr]]  # type: ignore[valid-type]


class LeafeMiddleware(AgentMiddleware):  # type: ignore[misc]
    """Reflects on an attempt that failed, goes back to the decision that caused it, and tries again knowing better.

    The last of ``create_agent(…, middleware=[…, LeafeMiddleware(judge=…)])``. Taken back are the messages, the channels
    and worlds that are named, and what compensations undo.

    Args:
        judge: ``judge(state, runtime)`` says of an attempt that has ended whether it is a success: a `Verdict`, or its
            ``success`` alone. It may be asynchronous where the agent is.
        worlds: what tools change, see `leafe_graph.World`; or a function of the runtime that gives them, so that each
            thread of a server has its own; or ``STATELESS`` where tools only look things up.
        compensate: by tool, ``undo(args, tool_message)``: run for every call that is taken back and had succeeded, the
            newest first. One that was running when the process died is run again.
        irreversible: tools after which nothing before them can be undone. So are those whose ``metadata["leafe"]`` is
            ``"irreversible"`` and, unless they are compensated, those that a person is asked about (``interrupt_on``).
        restore: further channels that are brought back, such as ``{"todos", "files"}``; or by name whether they are,
            ``{"todos": True, "visits": False}``.
        reflector: another model for the reflections; the agent's own unless given.
        reflect_every: K: reflect after every so many decisions of an attempt as well as on failure.
        max_rewinds: how often a user's turn may go back.
        prompts: the texts.
        record: a run folder, to which each attempt is written as a branch: what rows are made of. The next process
            goes on with the decisions of one that died. An attempt of which some are not there is not in it.
        redact: what is recorded is recorded without secrets; False: as it is; or a function of a text that takes out
            more, see `leafe_graph.redaction`.

    Raises:
        ConfigError: nothing would ever be reflected upon.
        MissingDependency: langchain is not installed.
    """

    state_schema = LeafeState

    def __init__(
        self,
        *,
        judge: Callable[..., Any] | None = None,
        worlds: Sequence[World] | Callable[[Any], Sequence[World]] = (),
        compensate: Mapping[str, Callable[..., Any]] | None = None,
        irreversible: Collection[str] = (),
        restore: Collection[str] | Mapping[str, bool] = (),
        reflector: Any = None,
        reflect_every: int | None = None,
        max_rewinds: int = 3,
        prompts: Prompts | None = None,
        record: str | Path | None = None,
        redact: bool | Callable[[str], str] = True,
    ) -> None:
        super().__init__()
        if judge is None and reflect_every is None:
            raise ConfigError("neither judge= nor reflect_every= is given: nothing would ever be reflected upon")
        if reflect_every is not None and reflect_every < 1:
            raise ConfigError(f"reflect_every={reflect_every!r}; expected 1 or more")
        if max_rewinds < 0:
            raise ConfigError(f"max_rewinds={max_rewinds!r}; expected 0 or more")
        for name, value in {"irreversible": irreversible, "restore": restore}.items():
            if isinstance(value, str):
                raise ConfigError(f"{name}={value!r} is a text; expected names, as {{{value!r}}}")
        if isinstance(worlds, World):
            raise ConfigError(
                f"worlds={type(worlds).__name__}(…) is one world; give a list, or a function of the runtime"
            )
        prompts = prompts or Prompts()
        self.rewinder = Rewinder(
            Surroundings(self.name, worlds, compensate or {}, irreversible, restore),
            TurnWorlds(worlds),
            judge,
            None if reflector is None else as_model(reflector, "reflector"),
            reflect_every,
            max_rewinds,
            prompts,
            None
            if record is None
            else Recorder(record, {"texts": prompts.texts, "reflect_every": reflect_every}, redact),
        )

    def attach(self, agent: Any) -> Any:
        """The same agent, looked at: where it has channels of its own or asks a person, the middleware must know it.

        ``agent = middleware.attach(create_agent(…, middleware=[…, middleware]))``

        Raises:
            ConfigError: the middleware is not the agent's last, or ``restore=`` names what is not the agent's to give.
        """
        self.rewinder.around.attach(agent)
        return agent

    # ---- LangChain's hooks

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """A user's turn begins: nothing of an earlier one can be undone."""
        return run_now(self.rewinder.begin(state, runtime))

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self.rewinder.begin(state, runtime))

    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The moment before a decision, which can be gone back to; the last part of a rewind."""
        return run_now(self.rewinder.decide(state, runtime))

    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self.rewinder.decide(state, runtime))

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """The model is asked at its door."""
        with self.rewinder.watched(request.state, "model"):
            if (asked := self.rewinder.asked(request)) is None:
                return handler(request)
            request, config = asked
            token = var_child_runnable_config.set(config)
            try:
                answer = handler(request)
            finally:
                var_child_runnable_config.reset(token)
            self.rewinder.answered(request, config)
            return answer

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same."""
        with self.rewinder.watched(request.state, "model"):
            if (asked := self.rewinder.asked(request)) is None:
                return await handler(request)
            request, config = asked
            token = var_child_runnable_config.set(config)
            try:
                answer = await handler(request)
            finally:
                var_child_runnable_config.reset(token)
            if self.rewinder.recorder is not None:  # it is searched for secrets, and written
                await asyncio.to_thread(self.rewinder.answered, request, config)
            return answer

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """A tool finds its world as it was decided to call it."""
        with self.rewinder.watched(request.state, request.tool_call["id"]):
            if self.rewinder.is_resumed(request):
                self.rewinder.worlds.resume(request.state[OWN], request.runtime)
            return self.rewinder.around.marked(request, handler(request))

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same."""
        with self.rewinder.watched(request.state, request.tool_call["id"]):
            if self.rewinder.is_resumed(request):
                await asyncio.to_thread(self.rewinder.worlds.resume, request.state[OWN], request.runtime)
            return self.rewinder.around.marked(request, await handler(request))

    @hook_config(can_jump_to=["model"])  # type: ignore[untyped-decorator]
    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The attempt has ended: it is judged and, if it failed, reflected upon."""
        return run_now(self.rewinder.end(state, runtime))

    @hook_config(can_jump_to=["model"])  # type: ignore[untyped-decorator]
    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self.rewinder.end(state, runtime))
