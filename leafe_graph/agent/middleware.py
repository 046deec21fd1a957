"""An agent of ``langchain.agents.create_agent`` that goes back to its mistakes, in place.

Each hook is a generator (`leafe_graph.agent.effects`), so that one text serves the sync and the async way. A rewind
takes several supersteps: one takes the messages back and notes what is to follow, one each compensates a call, and the
last brings back the worlds. So a process that dies in the middle goes on there, nothing is compensated twice, and no
judge sees a world that is half restored.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, NotRequired

from langchain_core.messages import AIMessage, RemoveMessage, ToolMessage
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from ..env.worlds import World, occupy, vacate
from ..errors import ConfigError, MissingDependency, WorldLost
from ..models.door import policy
from ..models.episode import KEY, Episode
from ..prompts import Prompts
from .effects import Effect, Steps, blocking, run_later, run_now, users
from .graph import as_model
from .points import (
    Pending,
    Point,
    Progress,
    fresh_turn,
    hidden,
    living,
    prefixes,
    ran,
    shown,
    tool_name,
    undo_of,
    undoable,
)
from .reflection import parse_reflection
from .surroundings import OWN, Surroundings
from .transcript import reflect_messages
from .verdict import Verdict

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
    from langchain.agents.middleware.types import PrivateStateAttr
except ImportError as error:
    raise MissingDependency(extra="langchain", needed_for="LeafeMiddleware") from error

log = logging.getLogger(__name__)

REFLECTION: Any = {
    "tags": [TAG_NOSTREAM, "langsmith:nostream", "leafe:reflection"],
    "metadata": {"lc_source": "leafe"},
    "run_name": "leafe_reflection",
}
"""How a reflection is traced: it is no part of the agent's own stream."""

_PROCESS = uuid.uuid4().hex


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
        self.judge, self.reflect_every, self.max_rewinds = judge, reflect_every, max_rewinds
        self.prompts = prompts or Prompts()
        self._reflector = None if reflector is None else as_model(reflector, "reflector")
        self._around = Surroundings(self.name, worlds, compensate or {}, irreversible, restore)
        self._worlds: dict[str, list[World]] = {}

    def attach(self, agent: Any) -> Any:
        """The same agent, looked at: where it has channels of its own or asks a person, the middleware must know it.

        ``agent = middleware.attach(create_agent(…, middleware=[…, middleware]))``

        Raises:
            ConfigError: the middleware is not the agent's last, or ``restore=`` names what is not the agent's to give.
        """
        self._around.attach(agent)
        return agent

    # ---- LangChain's hooks

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """A user's turn begins: nothing of an earlier one can be undone."""
        return run_now(self._begin(state, runtime))

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self._begin(state, runtime))

    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The moment before a decision, which can be gone back to; the last part of a rewind."""
        return run_now(self._decide(state, runtime))

    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def abefore_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self._decide(state, runtime))

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """The model is asked at its door."""
        if (asked := self._asked(request)) is None:
            return handler(request)
        request, config = asked
        token = var_child_runnable_config.set(config)
        try:
            return handler(request)
        except BaseException:
            self._given_up(request.state)
            raise
        finally:
            var_child_runnable_config.reset(token)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same."""
        if (asked := self._asked(request)) is None:
            return await handler(request)
        request, config = asked
        token = var_child_runnable_config.set(config)
        try:
            return await handler(request)
        except BaseException:
            self._given_up(request.state)
            raise
        finally:
            var_child_runnable_config.reset(token)

    @hook_config(can_jump_to=["model"])  # type: ignore[untyped-decorator]
    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The attempt has ended: it is judged and, if it failed, reflected upon."""
        return run_now(self._end(state, runtime))

    @hook_config(can_jump_to=["model"])  # type: ignore[untyped-decorator]
    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """The same."""
        return await run_later(self._end(state, runtime))

    # ---- what they do

    def _begin(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        if self._driven():
            return None
        progress = fresh_turn(uuid.uuid4().hex)
        if (old := state.get(OWN)) is not None:
            worlds = yield from self._of(old, runtime)
            yield from self._forget(worlds, old["points"])
            self._worlds.pop(old["run"], None)
        return {OWN: progress}

    def _decide(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        if self._driven():
            return None
        progress: Progress = {**(state.get(OWN) or fresh_turn(uuid.uuid4().hex))}
        worlds = yield from self._of(progress, runtime)
        if (pending := progress["pending"]) is not None:
            if pending["undo"]:
                return (yield from self._compensate(progress, pending)) | {"jump_to": "end"}
            yield from self._bring_back(pending, worlds)
            yield from self._forget(worlds, pending["left"], but=progress["points"])
            return {OWN: {**progress, "pending": None}}
        messages = state["messages"]
        progress["points"], lost = living(progress, messages)
        if self._passed_barrier(progress, messages):
            progress["first"] = progress["next"]
        yield from self._forget(worlds, lost, but=progress["points"])
        before = progress["points"][-1] if progress["points"] else None
        if before is not None and before["n"] == len(messages) and before["t"] == progress["next"] - 1:
            return None  # gone back to, and nothing has happened since
        t = progress["next"]
        behind = t - progress["since"]
        if self.reflect_every and behind and behind % self.reflect_every == 0:
            update = yield from self._reflect(state, runtime, progress, Verdict(None), ended=False)
            if update is not None:
                return update | {"jump_to": "end"}
        refs = yield blocking(lambda: [world.snapshot() for world in worlds])
        point = Point(
            t=t,
            n=len(messages),
            ids=prefixes(messages, len(messages))[-1],
            refs=refs,
            process=_PROCESS if any(not world.durable for world in worlds) else "",
            kept=self._around.kept(state),
            seen=self._around.seen(state),
        )
        return {OWN: {**progress, "points": [*progress["points"], point], "next": t + 1}}

    def _end(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        progress: Progress | None = state.get(OWN)
        if self._driven() or progress is None:
            return None
        if (pending := progress["pending"]) is not None:
            done = (yield from self._compensate(progress, pending)) if pending["undo"] else {}
            return {**done, "jump_to": "model"}
        progress = {**progress}
        messages = state["messages"]
        progress["points"], lost = living(progress, messages)
        if self._passed_barrier(progress, messages):
            progress["first"] = progress["next"]
        verdict = Verdict(None)
        if self.judge is not None:
            judge = self.judge
            verdict = _verdict((yield users(lambda: judge(state, runtime), "judge=")))
        if verdict.success is False:
            update = yield from self._reflect(state, runtime, progress, verdict, ended=True)
            if update is not None:
                return update | {"jump_to": "model"}
        worlds = yield from self._of(progress, runtime)
        yield from self._forget(worlds, [*progress["points"], *lost])
        self._leave(progress["run"])
        return {OWN: {**progress, "points": []}}

    def _reflect(
        self, state: Any, runtime: Any, progress: Progress, verdict: Verdict, *, ended: bool
    ) -> Steps[dict[str, Any] | None]:
        """Ask the reflector; the update that goes back, if it says so and that can be done."""
        can = [point for point in undoable(progress) if point["t"] < progress["next"]]
        if progress["rewinds"] >= self.max_rewinds or not can:
            return None
        model = self._reflector or self._around.model
        if model is None:
            raise ConfigError(
                "the model is not known in this process, where none was called yet: give reflector=, or attach(agent)"
            )
        asked = reflect_messages(self.prompts, state["messages"], progress, ended=ended, feedback=verdict.feedback)
        prompt: Any = [dict(message) for message in asked]
        try:
            answer: AIMessage = yield Effect(
                lambda: model.invoke(prompt, REFLECTION), lambda: model.ainvoke(prompt, REFLECTION)
            )
        except Exception as error:
            log.warning("the reflector raised; the attempt stands as it is: %s: %s", type(error).__name__, error)
            _tell(runtime, {"event": "reflection_failed", "error": f"{type(error).__name__}: {error}"})
            return None
        said, t, experience = parse_reflection(answer.text, progress["next"])
        point = next((each for each in can if each["t"] == t), None)
        if said == "rewind" and point is None:
            said = "out_of_range"
        _tell(runtime, {"event": "reflection", "verdict": said, "decision": t, "experience": experience})
        if said == "out_of_range":
            progress["out_of_range"] += 1
        if said != "rewind" or point is None or experience is None:
            return None
        return self._go_back(state, runtime, progress, point, experience)

    def _go_back(self, state: Any, runtime: Any, progress: Progress, point: Point, experience: str) -> dict[str, Any]:
        """The update that takes back what came after a point, and notes what is to follow."""
        t, dropped = point["t"], state["messages"][point["n"] :]
        self._refuse_lost(point)
        self._around.refuse_changed(point["seen"], state, t)
        undo = undo_of(dropped, self._around.compensate)
        kept = [each for each in progress["points"] if each["t"] <= t]
        told = hidden(self.prompts.experience.format(experience=experience))
        changed = Progress(
            **{
                **progress,
                "points": kept,
                "next": t + 1,
                "since": t,
                "rewinds": progress["rewinds"] + 1,
                "experience": told,
                "pending": Pending(
                    t=t,
                    refs=point["refs"],
                    process=point["process"],
                    undo=undo,
                    left=[each for each in progress["points"] if each["t"] > t],
                ),
            }
        )
        _tell(runtime, {"event": "rewind", "decision": t, "removed": [each.id for each in dropped]})
        update = {
            **self._around.restored(point["kept"]),
            # Messages that are removed one by one are not streamed: they have been.
            "messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *state["messages"][: point["n"]]],
            OWN: changed,
        }
        if state.get("structured_response") is not None:
            update["structured_response"] = None
        return update

    def _compensate(self, progress: Progress, pending: Pending) -> Steps[dict[str, Any]]:
        """Undo the newest call that is left: one a superstep."""
        last = pending["undo"][-1]
        if (undo := self._around.compensate.get(last["name"])) is None:
            raise ConfigError(f"compensate= no longer has {last['name']!r}, whose work is to be undone")
        message = ToolMessage(last["content"], name=last["name"], tool_call_id=last["tool_call_id"])
        yield users(lambda: undo(last["args"], message), f"compensate[{last['name']!r}]")
        return {OWN: {**progress, "pending": {**pending, "undo": pending["undo"][:-1]}}}

    def _bring_back(self, pending: Pending, worlds: list[World]) -> Steps[None]:
        self._refuse_lost(pending)
        if len(worlds) != len(pending["refs"]):
            raise ConfigError(f"worlds= has {len(worlds)} worlds, and decision {pending['t']} {len(pending['refs'])}")

        def restore() -> None:
            for world, ref in zip(worlds, pending["refs"], strict=True):
                world.restore(ref)

        yield blocking(restore)

    # ---- helpers

    def _driven(self) -> bool:
        """Whether a driver has the episode: then it goes back, and the middleware stands aside."""
        config = get_config()["configurable"]
        if KEY not in config:
            self._around.seen_in(config)
        return KEY in config

    def _refuse_lost(self, point: Point | Pending) -> None:
        if point["process"] not in ("", _PROCESS):
            raise WorldLost(
                f"decision {point['t']}'s snapshot died with its process: give worlds that are durable, or invoke "
                "the agent anew"
            )

    def _asked(self, request: Any) -> tuple[Any, Any] | None:
        """The request at the model's door, and the config of its call; None where a driver has the episode."""
        self._around.check(request.tools)
        if self._around.model is None:
            self._around.model = request.model
        config = get_config()
        if KEY in config["configurable"]:
            return None
        progress: Progress | None = request.state.get(OWN)
        token = progress["experience"] if progress else None
        episode = Episode(experience=None if token is None else shown(token))
        inside = {**config, "configurable": {**config["configurable"], KEY: episode}}
        return request.override(model=policy(request.model)), inside

    def _passed_barrier(self, progress: Progress, messages: Sequence[Any]) -> bool:
        """Whether an irreversible tool has run since the last point."""
        since = progress["points"][-1]["n"] if progress["points"] else 0
        new, barriers = messages[since:], self._around.barriers
        return any(tool_name(message, new) in barriers for message, _ in ran(new))

    def _of(self, progress: Progress, runtime: Any) -> Steps[list[World]]:
        """This turn's worlds, taken for it."""
        if (held := self._worlds.get(progress["run"])) is not None:
            return held
        given, owner = self._around.worlds, _owner(progress["run"])

        def take() -> list[World]:
            worlds = list(given(runtime) if callable(given) else given)
            for world in worlds:
                occupy(world, owner)
            return worlds

        worlds: list[World] = yield blocking(take)
        self._worlds[progress["run"]] = worlds
        return worlds

    def _forget(self, worlds: list[World], points: Sequence[Point], but: Sequence[Point] = ()) -> Steps[None]:
        """Let go of snapshots, unless another point has the same."""
        held = {pair for point in but for pair in enumerate(point["refs"])}
        refs = [pair for point in points for pair in enumerate(point["refs"]) if pair not in held]

        def forget() -> None:
            for place, ref in refs:
                if place < len(worlds):
                    worlds[place].forget(ref)

        if refs:
            yield blocking(forget)

    def _given_up(self, state: Any) -> None:
        """A run that nobody can go on with leaves its worlds."""
        if get_config()["configurable"].get("thread_id") is None and (progress := state.get(OWN)):
            self._leave(progress["run"])

    def _leave(self, run: str) -> None:
        for world in self._worlds.pop(run, ()):
            vacate(world, _owner(run))


def _owner(run: str) -> str:
    """Who has the worlds: the thread, whose next run goes on; without one this run."""
    return str(get_config()["configurable"].get("thread_id") or run)


def _verdict(said: Any) -> Verdict:
    if isinstance(said, Verdict):
        return said
    if said is None or isinstance(said, bool):
        return Verdict(said)
    raise ConfigError(f"the judge said {said!r:.80}; expected a Verdict(success, feedback)")


def _tell(runtime: Any, what: dict[str, Any]) -> None:
    """For whoever streams ``custom``."""
    runtime.stream_writer({"leafe": what})
