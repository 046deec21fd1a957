"""What `leafe_graph.agent.middleware.LeafeMiddleware` does at each of its hooks.

Each is a generator (`leafe_graph.agent.effects`), so that one text serves the sync and the async way. A rewind takes
several supersteps: one takes the messages back and notes what is to follow, one each compensates a call, and the last
brings back the worlds. So a process that dies in the middle goes on there, nothing is compensated twice, and no judge
sees a world that is half restored. One that dies inside a tool leaves a world that the tool has begun to change: then
the next process brings back the decision's snapshot before it calls the tool again.
"""

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, RemoveMessage, ToolMessage
from langgraph.config import get_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from ..clock import now, since
from ..errors import ConfigError, LeafeError
from ..models.door import policy
from ..models.episode import KEY, Episode
from ..models.requests import model_message
from ..prompts import Prompts
from ..types import Reflection
from .context import Model
from .effects import Effect, Steps, blocking, users
from .points import (
    Pending,
    Point,
    Progress,
    fresh_turn,
    hidden,
    living,
    prefixes,
    shown,
    undo_of,
    undoable,
)
from .recorder import Recorder
from .reflection import parse_reflection
from .surroundings import OWN, Surroundings
from .transcript import reflect_messages
from .turn_worlds import TurnWorlds, refuse_lost
from .verdict import Verdict, verdict_of

log = logging.getLogger(__name__)

REFLECTION: Any = {
    "tags": [TAG_NOSTREAM, "langsmith:nostream", "leafe:reflection"],
    "metadata": {"lc_source": "leafe"},
    "run_name": "leafe_reflection",
}
"""How a reflection is traced: it is no part of the agent's own stream."""


class Rewinder:
    """The middleware without LangChain's hooks; its settings are described there."""

    def __init__(
        self,
        around: Surroundings,
        worlds: TurnWorlds,
        judge: Callable[..., Any] | None,
        reflector: Model | None,
        reflect_every: int | None,
        max_rewinds: int,
        prompts: Prompts,
        recorder: Recorder | None = None,
    ) -> None:
        self.around, self.worlds = around, worlds
        self.judge, self.reflector, self.prompts = judge, reflector, prompts
        self.reflect_every, self.max_rewinds, self.recorder = reflect_every, max_rewinds, recorder
        self._reflected: dict[str, list[Reflection]] = {}  # of the present attempt, by turn
        self._stopped: dict[tuple[str, str | None], LeafeError] = {}  # by turn and call

    def begin(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        """A user's turn begins."""
        if self._driven():
            return None
        progress = fresh_turn(uuid.uuid4().hex)
        if (old := state.get(OWN)) is not None:
            yield blocking(lambda: self.worlds.end(old, runtime, old["points"]))
            if (recorder := self.recorder) is not None:
                yield blocking(lambda: recorder.forget(old["run"]))
        return {OWN: progress}

    def decide(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        """A decision is to be made: a point; or the last part of a rewind."""
        if self._driven():
            return None
        self._refuse(state.get(OWN))
        progress: Progress = {**(state.get(OWN) or fresh_turn(uuid.uuid4().hex))}
        if (pending := progress["pending"]) is not None:
            if pending["undo"]:
                return (yield from self._compensate(progress, pending)) | {"jump_to": "end"}
            return (yield from self._bring_back(progress, runtime, pending))
        messages = state["messages"]
        progress["points"], lost = living(progress, messages)
        if self._passed_barrier(progress, messages):
            progress["first"] = progress["next"]
        if lost:
            yield blocking(lambda: self.worlds.forget(progress, runtime, lost, progress["points"]))
        before = progress["points"][-1] if progress["points"] else None
        if before is not None and before["n"] == len(messages) and before["t"] == progress["next"] - 1:
            self.worlds.arrived(progress)
            return None  # gone back to, and nothing has happened since
        t = progress["next"]
        behind = t - progress["since"]
        if self.reflect_every and behind and behind % self.reflect_every == 0:
            update = yield from self._reflect(state, runtime, progress, Verdict(None), ended=False)
            if update is not None:
                return update | {"jump_to": "end"}
        refs, process = yield blocking(lambda: self.worlds.snapshot(progress, runtime))
        point = Point(
            t=t,
            n=len(messages),
            ids=prefixes(messages, len(messages))[-1],
            refs=refs,
            process=process,
            kept=self.around.kept(state),
            seen=self.around.seen(state),
        )
        progress = {**progress, "points": [*progress["points"], point], "next": t + 1}
        self.worlds.arrived(progress)
        return {OWN: progress}

    def end(self, state: Any, runtime: Any) -> Steps[dict[str, Any] | None]:
        """The attempt has ended."""
        progress: Progress | None = state.get(OWN)
        if self._driven() or progress is None:
            return None
        self._refuse(progress)
        if (pending := progress["pending"]) is not None:
            # Another middleware, such as a limit of calls, may have ended the run before `decide`.
            part = (
                self._compensate(progress, pending) if pending["undo"] else self._bring_back(progress, runtime, pending)
            )
            return (yield from part) | {"jump_to": "model"}
        progress = {**progress}
        messages = state["messages"]
        progress["points"], lost = living(progress, messages)
        if self._passed_barrier(progress, messages):
            progress["first"] = progress["next"]
        verdict = Verdict(None)
        if self.judge is not None:
            judge = self.judge
            verdict = verdict_of((yield users(lambda: judge(state, runtime), "judge=")))
        if verdict.success is False:
            update = yield from self._reflect(state, runtime, progress, verdict, ended=True)
            if update is not None:
                return update | {"jump_to": "model"}
        yield from self._record(state, progress, verdict, over=True)
        over = [*progress["points"], *lost]
        yield blocking(lambda: self.worlds.end(progress, runtime, over))
        return {OWN: {**progress, "points": []}}

    def _reflect(
        self, state: Any, runtime: Any, progress: Progress, verdict: Verdict, *, ended: bool
    ) -> Steps[dict[str, Any] | None]:
        """Ask the reflector; the update that goes back, if it says so and that can be done."""
        can = [point for point in undoable(progress) if point["t"] < progress["next"]]
        if progress["rewinds"] >= self.max_rewinds or not can:
            return None
        model = self.reflector or self.around.model
        if model is None:
            raise ConfigError(
                "the model is not known in this process, where none was called yet: give reflector=, or attach(agent)"
            )
        asked = reflect_messages(self.prompts, state["messages"], progress, ended=ended, feedback=verdict.feedback)
        prompt: Any = [dict(message) for message in asked]
        started = now()
        try:
            answer: AIMessage = yield Effect(
                lambda: model.invoke(prompt, REFLECTION), lambda: model.ainvoke(prompt, REFLECTION)
            )
        except Exception as error:
            log.warning("the reflector raised; the attempt stands as it is: %s: %s", type(error).__name__, error)
            _tell(runtime, {"event": "reflection_failed", "error": f"{type(error).__name__}: {error}"})
            return None
        said, t, experience = parse_reflection(answer.text, done := progress["next"])
        point = next((each for each in can if each["t"] == t), None)
        if said == "rewind" and point is None:
            said = "out_of_range"
        _tell(runtime, {"event": "reflection", "verdict": said, "decision": t, "experience": experience})
        reflection = Reflection(turn=done, verdict=said, decision_point=t, experience=experience, raw=answer.text)
        reflection["time"] = since(started)
        if "usage" in (message := model_message(answer)):
            reflection["usage"] = message["usage"]
        self._reflected.setdefault(progress["run"], []).append(reflection)
        if said == "out_of_range":
            progress["out_of_range"] += 1
        if said != "rewind" or point is None or experience is None:
            return None
        update = self._go_back(state, runtime, progress, point, experience)
        yield from self._record(state, progress, verdict, over=False)
        if (recorder := self.recorder) is not None:
            yield blocking(lambda: recorder.gone_back(progress, point["t"]))
        return update

    def _go_back(self, state: Any, runtime: Any, progress: Progress, point: Point, experience: str) -> dict[str, Any]:
        """The update that takes back what came after a point, and notes what is to follow."""
        t, dropped = point["t"], state["messages"][point["n"] :]
        refuse_lost(point)
        self.around.refuse_changed(point["seen"], state, t)
        undo = undo_of(dropped, self.around.compensate, self.around.asked_about)
        kept = [each for each in progress["points"] if each["t"] <= t]
        changed = Progress(
            **{
                **progress,
                "points": kept,
                "next": t + 1,
                "since": t,
                "rewinds": progress["rewinds"] + 1,
                "experience": hidden(experience),
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
            **self.around.restored(point["kept"]),
            # Messages that are removed one by one are not streamed: they have been.
            "messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *state["messages"][: point["n"]]],
            OWN: changed,
        }
        if state.get("structured_response") is not None:
            update["structured_response"] = None
        return update

    def _bring_back(self, progress: Progress, runtime: Any, pending: Pending) -> Steps[dict[str, Any]]:
        """The last part of a rewind."""
        yield blocking(lambda: self.worlds.restore(progress, runtime, pending))
        yield blocking(lambda: self.worlds.forget(progress, runtime, pending["left"], progress["points"]))
        self.worlds.arrived(progress)
        return {OWN: {**progress, "pending": None}}

    def _compensate(self, progress: Progress, pending: Pending) -> Steps[dict[str, Any]]:
        """Undo the newest call that is left: one a superstep."""
        last = pending["undo"][-1]
        if (undo := self.around.compensate.get(last["name"])) is None:
            raise ConfigError(f"compensate= no longer has {last['name']!r}, whose work is to be undone")
        message = ToolMessage(last["content"], name=last["name"], tool_call_id=last["tool_call_id"])
        yield users(lambda: undo(last["args"], message), f"compensate[{last['name']!r}]")
        return {OWN: {**progress, "pending": {**pending, "undo": pending["undo"][:-1]}}}

    def _driven(self) -> bool:
        """Whether a driver has the episode: then it goes back, and the middleware stands aside."""
        config = get_config()["configurable"]
        if KEY not in config:
            self.around.seen_in(config)
        return KEY in config

    def asked(self, request: Any) -> tuple[Any, Any] | None:
        """The request at the model's door, and the config of its call; None where a driver has the episode."""
        self.around.check(request.tools)
        if self.around.model is None:
            self.around.model = request.model
        config = get_config()
        if KEY in config["configurable"]:
            return None
        progress: Progress | None = request.state.get(OWN)
        token = progress["experience"] if progress else None
        told = None if token is None else self.prompts.experience.format(experience=shown(token))
        episode = Episode(experience=told, keep=self.recorder is not None)
        inside = {**config, "configurable": {**config["configurable"], KEY: episode}}
        return request.override(model=policy(request.model)), inside

    def answered(self, request: Any, config: Any) -> None:
        """The model has answered at its door."""
        if self.recorder is not None:
            self.recorder.decided(request.state[OWN], config["configurable"][KEY].decisions)

    def _record(self, state: Any, progress: Progress, verdict: Verdict, *, over: bool) -> Steps[None]:
        """Log the attempt that ends here, where that is wanted."""
        reflected, recorder = self._reflected.pop(progress["run"], []), self.recorder
        if recorder is None:
            return
        first = progress["points"][0]["n"] if progress["points"] else len(state["messages"])
        asked = [message.text for message in state["messages"][:first] if message.type == "human"]
        yield blocking(
            lambda: recorder.ended(
                progress,
                self.around.model,
                instruction=asked[-1] if asked else "",
                success=verdict.success,
                reflected=reflected,
                rewinds=not over,
                feedback=verdict.feedback,
                over=over,
            )
        )

    def _passed_barrier(self, progress: Progress, messages: Sequence[Any]) -> bool:
        """Whether an irreversible tool has run since the last point."""
        return self.around.passed_barrier(messages[progress["points"][-1]["n"] if progress["points"] else 0 :])

    def is_resumed(self, request: Any) -> bool:
        """Whether another process decided to call this tool, and died: not where it waited for a person."""
        progress: Progress | None = request.state.get(OWN)
        if self._driven() or not progress or not self.around.worlds:
            return False
        waited = getattr(get_config()["configurable"].get("__pregel_scratchpad"), "resume", None) or self.around.asks
        return not waited and not self.worlds.is_here(progress)

    @contextlib.contextmanager
    def watched(self, state: Any, call: str | None) -> Iterator[None]:
        """Around a call of the model or of a tool, whose errors another middleware may swallow.

        One of ours is raised again by the next hook. A run that nobody can go on with leaves its worlds; one whose call
        is made again takes them again.
        """
        progress: Progress | None = state.get(OWN)
        key = (progress["run"] if progress else "", call)
        try:
            yield
            self._stopped.pop(key, None)
        except BaseException as error:
            if progress and isinstance(error, LeafeError):
                self._stopped[key] = error
            if progress and get_config()["configurable"].get("thread_id") is None:
                self.worlds.leave(progress, over=False)
            raise

    def _refuse(self, progress: Progress | None) -> None:
        """Raise what stopped this turn, where somebody has swallowed it."""
        for key in [key for key in self._stopped if progress and key[0] == progress["run"]]:
            raise self._stopped.pop(key)


def _tell(runtime: Any, what: dict[str, Any]) -> None:
    """For whoever streams ``custom``."""
    runtime.stream_writer({"leafe": what})
