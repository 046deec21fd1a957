"""The model's door: where an agent that exists already asks its model, decisions are recorded, told and given back.

The door is the model itself in a subclass of its own class, so ``isinstance``, ``bind_tools``,
``with_structured_output``, ``with_retry``, ``with_fallbacks`` and streaming are the model's. Without an episode
in the run it is the plain model.
"""

import functools
import json
import time
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp

from ..clock import now, since
from ..errors import ConfigError, LeafeError
from ..types import Request
from .bounds import completion_bound, limits_tokens, prompt_bound
from .checked import checked_model
from .episode import KEY, Decision, Episode, node_of, with_experience
from .load import load_model
from .requests import model_message, refuse_state_elsewhere, request_of, same_asked

M = TypeVar("M", bound=Runnable[Any, Any])

_ASKED = ("tool_choice", "response_format")
_CHECKPOINT = ("thread_id", "checkpoint_ns", "checkpoint_id")


def policy(model: M | str) -> M:
    """The same model with a door: what an agent asks and is answered is recorded where its run has an episode.

    The model that was given stays as it is; both share settings and connections. Of a model with tools or settings
    bound to it, or with retries or fallbacks, the models inside get the door.

    Args:
        model: a chat model, or a text that `leafe_graph.load_model` knows.

    Raises:
        ConfigError: it is no chat model, such as an agent or a chain.
    """
    given: Any = load_model(model) if isinstance(model, str) else checked_model(model)
    if isinstance(given, BaseChatModel):
        return given if hasattr(type(given), "_leafe_plain") else _seen_as(given, _with_door(type(given)))  # type: ignore[return-value]
    if isinstance(given, RunnableBindingBase):
        return given.model_copy(update={"bound": policy(given.bound)})  # type: ignore[return-value]
    if isinstance(given, RunnableWithFallbacks):
        inside = {"runnable": policy(given.runnable), "fallbacks": [policy(each) for each in given.fallbacks]}
        return given.model_copy(update=inside)  # type: ignore[return-value]
    raise ConfigError(
        f"the model is a {type(given).__name__}; give policy() the chat model, and make the chain of what it gives back"
    )


def current_episode() -> Episode | None:
    """The episode of the run that this is called in; None outside of one."""
    try:
        found = get_config().get("configurable", {}).get(KEY)
    except RuntimeError:
        return None
    if found is not None and not isinstance(found, Episode):
        raise ConfigError(f"configurable[{KEY!r}] is {found!r:.80}; expected a leafe_graph.Episode")
    return found


def _seen_as(model: BaseChatModel, kind: type[BaseChatModel]) -> BaseChatModel:
    """The very same model as an instance of another class: what one changes of itself, a counter say, the other has."""
    other = kind.__new__(kind)
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(other, name, getattr(model, name))
    return other


@functools.cache
def _with_door(kind: type[BaseChatModel]) -> type[BaseChatModel]:
    """The subclass. It overrides what the class itself has, as LangChain looks at that to see whether it streams."""

    def plain(self: BaseChatModel) -> BaseChatModel:  # so what the model calls of itself goes through no door
        return _seen_as(self, kind)

    def _generate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if (call := _Call.at_door(self, messages, kwargs)) is None:
            return plain(self)._generate(messages, *args, **kwargs)
        with call:
            if call.known is not None:
                return ChatResult(generations=[ChatGeneration(message=call.known)])
            return call.answered(plain(self)._generate(call.messages, *args, **kwargs))

    async def _agenerate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if (call := _Call.at_door(self, messages, kwargs)) is None:
            return await plain(self)._agenerate(messages, *args, **kwargs)
        with call:
            if call.known is not None:
                return ChatResult(generations=[ChatGeneration(message=call.known)])
            return call.answered(await plain(self)._agenerate(call.messages, *args, **kwargs))

    def _stream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if (call := _Call.at_door(self, messages, kwargs)) is None:
            yield from plain(self)._stream(messages, *args, **kwargs)
            return
        with call:
            if call.known is not None:
                yield _chunk(call.known)
                return
            chunks = []
            for chunk in plain(self)._stream(call.messages, *args, **kwargs):
                chunks.append(chunk)
                yield chunk
            call.answered(generate_from_stream(iter(chunks)))

    async def _astream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if (call := _Call.at_door(self, messages, kwargs)) is None:
            async for chunk in plain(self)._astream(messages, *args, **kwargs):
                yield chunk
            return
        with call:
            if call.known is not None:
                yield _chunk(call.known)
                return
            chunks = []
            async for chunk in plain(self)._astream(call.messages, *args, **kwargs):
                chunks.append(chunk)
                yield chunk
            call.answered(generate_from_stream(iter(chunks)))

    # An answer from LangChain's cache would pass by the door.
    def _generate_with_cache(self: BaseChatModel, *args: Any, **kwargs: Any) -> ChatResult:
        return kind._generate_with_cache(_uncached(self), *args, **kwargs)

    async def _agenerate_with_cache(self: BaseChatModel, *args: Any, **kwargs: Any) -> ChatResult:
        return await kind._agenerate_with_cache(_uncached(self), *args, **kwargs)

    overrides: dict[str, Any] = {
        each.__name__: each
        for each in (_generate, _agenerate, _stream, _astream)
        if getattr(kind, each.__name__) is not getattr(BaseChatModel, each.__name__)
    }
    own_events = ("_stream_chat_model_events", "_astream_chat_model_events")
    members = {
        **overrides,
        **dict.fromkeys([name for name in own_events if getattr(kind, name, None)]),  # LangChain makes them of _stream
        "_generate_with_cache": _generate_with_cache,
        "_agenerate_with_cache": _agenerate_with_cache,
        "__module__": kind.__module__,  # with the name: traces and providers' settings go by them
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    made = types.new_class(kind.__name__, (kind,), {}, lambda body: body.update(members))
    type.__setattr__(made, "_leafe_plain", kind)
    return made


def _uncached(model: BaseChatModel) -> BaseChatModel:
    cached = model.cache or (model.cache is None and get_llm_cache() is not None)
    return model.model_copy(update={"cache": False}) if cached and current_episode() else model


def _chunk(answer: AIMessage) -> ChatGenerationChunk:
    """A whole answer as the one chunk of a stream."""
    calls = [
        tool_call_chunk(name=call["name"], args=_json(call["args"]), id=call["id"], index=place)
        for place, call in enumerate([*answer.tool_calls, *answer.invalid_tool_calls])
    ]
    kept = {name: getattr(answer, name) for name in ("content", "additional_kwargs", "response_metadata", "name")}
    message = AIMessageChunk(
        **kept, usage_metadata=answer.usage_metadata, tool_call_chunks=calls, chunk_position="last"
    )
    return ChatGenerationChunk(message=message)


def _json(args: Any) -> str:
    return args if isinstance(args, str) else json.dumps(args or {})


class _Call:
    """One call at the door in an episode: reserved in its ledger, told the experience, recorded when answered."""

    @classmethod
    def at_door(cls, model: BaseChatModel, messages: list[BaseMessage], kwargs: dict[str, Any]) -> "_Call | None":
        """The call, where there is an episode.

        Raises:
            LeafeError: what stops the episode, or has stopped it; it is noted there.
            Halted: the agent asks on and on all the same.
        """
        episode = current_episode()
        if episode is None:
            return None
        episode.refuse()
        try:
            return cls(episode, model, messages, kwargs)
        except LeafeError as error:
            episode.stopped(error)
            raise

    def __init__(
        self, episode: Episode, model: BaseChatModel, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> None:
        self.episode, self.model, self.settings = episode, model, kwargs
        config: Any = get_config()
        self.node, namespace = node_of(config)
        tools = kwargs.get("tools") or ()
        self.request = request_of(messages, tools) if episode.keep else Request(messages=[], tools=[])
        self.config = {name: config["configurable"][name] for name in _CHECKPOINT if name in config["configurable"]}
        self.step = (config["configurable"].get("checkpoint_map") or {}).get("")
        key = same_asked(self.node, self.request) if episode.replays else ""
        known = episode.known(key)
        self.known = None if known is None else known.answer.model_copy(update={"id": None})
        self.anew = known is None and episode.arrives(key, namespace)
        self.told = known is None and episode.tells(namespace)
        self.messages = with_experience(messages, episode.experience or "") if self.told else messages
        self._reserved: dict[str, int] = {}
        if known is not None:
            episode.replayed()
        elif episode.ledger is not None:
            if limits_tokens(episode.ledger):
                bound = prompt_bound(model, self.messages, kwargs.get("tools") or ())
                self._reserved = {"prompt_tokens": bound, "completion_tokens": completion_bound(model, kwargs)}
            episode.ledger.charge(model_calls=1, env_steps=1, **self._reserved)
        self._started, self._at, self._began = time.perf_counter(), now(), episode.tick()
        self._answer: AIMessage | None = self.known

    def answered(self, result: ChatResult) -> ChatResult:
        """Take the provider's answer."""
        self._answer = answer = result.generations[0].message  # type: ignore[assignment]
        if not isinstance(answer, AIMessage):
            raise ConfigError(f"the model answered {answer!r:.80}, which is no AIMessage")
        refuse_state_elsewhere(self.model, self.settings, answer)
        return result

    def __enter__(self) -> "_Call":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LeafeError):
            self.episode.stopped(error)
        elif error is None:
            self.episode.failed = None
        elif isinstance(error, Exception) and not isinstance(error, GraphBubbleUp):
            self.episode.failed = error
            self.episode.failures.append(error)
        if self.known is None:
            self._settle(error)
        if error is None and self._answer is not None and self.episode.keep:
            self._record(self._answer)

    def _settle(self, error: BaseException | None) -> None:
        if self.episode.ledger is None:
            return
        used = dict.fromkeys(self._reserved, 0) if error is not None else dict(self._reserved)  # uncounted: the bound
        if self._answer is not None and (usage := self._answer.usage_metadata):
            used = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
        spent = {name: used[name] - self._reserved.get(name, 0) for name in used}
        if error is not None:  # the try was one, and the step of the environment is not taken
            spent |= {"env_steps": -1, "model_calls": -1 if isinstance(error, GraphBubbleUp) else 0}
        self.episode.ledger.record(**spent, seconds=time.perf_counter() - self._started)

    def _record(self, answer: AIMessage) -> None:
        message = model_message(answer)
        message["time"] = since(self._at)
        if self.told:
            message.pop("prompt_token_ids", None)  # they spell the experience, which is no part of the request
        self.episode.add(
            Decision(
                node=self.node,
                request=self.request,
                settings={name: self.settings[name] for name in _ASKED if self.settings.get(name) is not None},
                message=message,
                answer=answer.model_copy(),  # agents rename and repair what they got
                began=self._began,
                ended=self.episode.tick(),
                told=self.told,
                anew=self.anew,
                given_back=self.known is not None,
                config=self.config,
                step=self.step,
            )
        )
