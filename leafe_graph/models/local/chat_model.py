"""`LocalChatModel`: a Hugging Face folder as a LangChain chat model that gathers concurrent calls into batches.

Works with any decoder-only model whose tokenizer has a chat template, own tiny ones included. Constructing checks the
folders; the weights load at the first call, LoRA adapters merged into them. Models of the same folder, adapters and
batch settings share weights, worker thread and memo within a process, so copies and bindings cost nothing.
"""

import asyncio
import hashlib
import os
import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManager, CallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr, field_validator

from ...errors import ConfigError, PromptError
from ...files import holding, path_of
from ..adapters import check_adapter
from ..identity import Digests, adapter_files, identity
from ..tool_calls import no_calls, read_tool_calls
from .engine import Engine, shared_engine
from .loading import load, version
from .memo import Ids
from .prompts import Chat, ChatPrompts, chat_of, plain_chat
from .sampling import Answer, Sampling

_ids = random.Random()  # no call of the system for each id
os.register_at_fork(after_in_child=_ids.seed)
SETTINGS = tuple(setting.name for setting in fields(Sampling))


class LocalChatModel(BaseChatModel):
    """A causal language model in this process.

    ``temperature``, ``top_p``, ``max_tokens``, ``stop``, ``seed`` and ``logprobs`` can be given to each call
    (``model.invoke(messages, seed=3)``); calls of different settings share a batch. A message carries
    ``usage_metadata`` and ``response_metadata`` with ``finish_reason`` ("stop" | "length") and ``model_name``.
    Control tokens that a message spells out are text to it (see `leafe_graph.models.chat_tokens`).

    Raises:
        ConfigError: a folder that is not a model or not an adapter, a setting out of range, no chat template.
        PromptError: a prompt longer than the model's context, or one that its chat template refuses for its words.
        ModelError: a forward that failed.
    """

    path: str
    """Folder of the model and its tokenizer."""
    adapter: str | list[str] | None = None
    """PEFT folder, or several that are merged into the weights one after the other."""
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Draw from the smallest set of most probable tokens whose probability reaches this."""
    max_tokens: int = 64
    """Most new tokens, the stop token included."""
    stop: list[str] | None = None
    """The answer ends before the first of these texts."""
    seed: int | None = None
    """Same seed and same prompt, same answer; None draws afresh."""
    logprobs: bool = False
    """Put ``prompt_token_ids``, ``token_ids`` (stop token included) and ``logprobs`` into ``response_metadata``.

    The log-probabilities are those of the model itself, at temperature 1 and with nothing filtered, whatever the
    settings of the draw."""
    max_batch_size: int = 64
    """Most sequences that are decoded together."""
    batch_window: float = 0.005
    """Seconds without a new call after which an idle worker starts with what it has. It starts at once when as many
    calls wait as waited together before."""
    memo_bytes: int = 256 * 2**20
    """Bound of the memo of next-token logits by exact token sequence, with the distributions of small vocabularies; 0
    turns it off."""
    batch_invariant: bool = False
    """Compute each answer by itself, or draw all of it from what was computed so: same seed and prompt, same answer to
    the last bit, whoever asks beside, on a machine of the same kind with as many threads. Many times as slow where
    prompts are new. Else what is computed together, or from what is remembered in part, differs in rounding, which now
    and then decides a token."""

    _engine: Engine | None = PrivateAttr(default=None)
    _engine_key: Any = PrivateAttr(default=None)
    _prompts: ChatPrompts | None = PrivateAttr(default=None)
    _versions: tuple[tuple[str, ...], str] | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self._sampling({})
        holding(self.path, "a Hugging Face model folder", ("config.json",))
        for folder in self._adapters:
            adapter_files(folder)
        self._identifying_params  # noqa: B018  # looks at files, which may not hold up an event loop later

    @field_validator("path", "adapter", mode="before")
    @classmethod
    def _home(cls, given: Any) -> Any:
        """``~`` is the home folder."""
        if isinstance(given, list | tuple):
            return [cls._home(each) for each in given]
        return str(path_of(given)) if isinstance(given, str | Path) else given

    @property
    def _llm_type(self) -> str:
        return "leafe-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("path", "adapter", "temperature", "top_p", "max_tokens", "stop", "seed")
        folders = (self.path, *self._adapters)
        if self._versions is None or self._versions[0] != folders:
            self._versions = folders, hashlib.sha256(repr([*map(version, folders)]).encode()).hexdigest()[:16]
        return {name: getattr(self, name) for name in names} | {"version": self._versions[1]}

    @property
    def _adapters(self) -> tuple[str, ...]:
        return (self.adapter,) if isinstance(self.adapter, str) else tuple(self.adapter or ())

    def digests(self) -> Digests:
        """Of the weights, tokenizer and template in its folders: what it is, wherever that lies.

        Raises:
            ConfigError: an adapter does not fit.
        """
        for adapter in self._adapters:
            check_adapter(adapter, self.path)
        return identity(self.path, self._adapters)

    @property
    def stats(self) -> dict[str, int]:
        """What was computed so far, the sharing models' calls included: see `leafe_graph.models.local.batch.Stats`."""
        return self._shared().stats

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """LangChain's: the model with tools in each prompt, and its calls of them in ``message.tool_calls``.

        For models whose chat template takes tools and writes calls as ``<tool_call>{JSON}</tool_call>`` (Qwen's,
        Hermes') or ``{"name": …, "parameters": {…}}`` (Llama's).

        Raises:
            ConfigError: ``tool_choice`` was given, which a model in this process cannot be held to; and at the first
                call, if the chat template is another.
        """
        if tool_choice not in (None, "auto"):
            raise ConfigError(
                "tool_choice: a local model chooses by itself; leave it out, or serve the model with vLLM"
            )
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def count_prompt_tokens(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] = ()) -> int:
        """Exact number of prompt tokens of a call with these messages and tools."""
        return len(self._encode(messages, tools))

    def get_num_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens around it."""
        return len(self._shared().loaded()[1].encode(text, add_special_tokens=False))

    def load(self) -> None:
        """Load the weights: what they lack is told before anything is played."""
        self._shared().loaded()

    def sample(
        self, chats: Sequence[Chat], seeds: Sequence[int | None], *, max_tokens: int | None = None
    ) -> list[tuple[int, Answer] | PromptError]:
        """Answers to many prompts at once: what `invoke` would say to each, without what LangChain does around it.

        Args:
            chats: messages of the roles user, assistant and system, as ``{"role": …, "content": …}``.
            seeds: of each answer.
            max_tokens: as `invoke` takes it.

        Returns, for each, how many tokens the prompt has, and the answer; or why the model does not take the prompt.

        Raises:
            ModelError: a forward failed.
        """
        settings = self._sampling({} if max_tokens is None else {"max_tokens": max_tokens})
        engine, prompts = self._shared(), self._chats()
        prompts.read(chats)
        asked: list[tuple[int, Answer | Future[Answer]] | PromptError] = []
        for chat, seed in zip(chats, seeds, strict=True):
            try:
                prompt, sampling = prompts.fitting(chat, (), replace(settings, seed=seed))
                asked.append((len(prompt), engine.submit(prompt, sampling)))
            except PromptError as refused:
                asked.append(refused)
        return [
            (each[0], each[1].result()) if isinstance(each, tuple) and isinstance(each[1], Future) else each  # type: ignore[misc]
            for each in asked
        ]

    def close(self) -> None:
        """Stop the worker and free the weights; a later call starts and loads again."""
        self._shared().close()

    def __enter__(self) -> "LocalChatModel":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """LangChain's. Where nothing listens, caches or limits, what LangChain does around an answer is left out."""
        if not self._unheard(config, kwargs):
            return super().invoke(input, config, stop=stop, **kwargs)
        return self._named(self._answer(self._chat(input), stop, kwargs))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """As `invoke`."""
        if not self._unheard(config, kwargs):
            return await super().ainvoke(input, config, stop=stop, **kwargs)
        return self._named(await self._aanswer(self._chat(input), stop, kwargs))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._answer(chat_of(messages), stop, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = await self._aanswer(chat_of(messages), stop, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _unheard(self, config: RunnableConfig | None, kwargs: dict[str, Any]) -> bool:
        """Whether LangChain's own way to an answer would only take time: a fraction of a millisecond a call."""
        if self.rate_limiter is not None or self.output_version is not None or self.cache not in (None, False):
            return False
        if "structured_output_format" in kwargs or "ls_structured_output_format" in kwargs:  # LangChain takes them out
            return False
        if self.cache is None and get_llm_cache() is not None:
            return False
        told = CallbackManager.configure(ensure_config(config).get("callbacks"), self.callbacks, self.verbose)
        return not told.handlers

    def _chat(self, given: LanguageModelInput) -> Chat:
        chat = plain_chat(given)
        return chat_of(self._convert_input(given).to_messages()) if chat is None else chat

    def _named(self, message: AIMessage) -> AIMessage:
        """The message with an id, as LangChain gives one to each run's."""
        message.id = f"lc_run--{uuid.UUID(int=_ids.getrandbits(128), version=4)}-0"
        return message

    def _answer(self, chat: Chat, stop: list[str] | None, kwargs: dict[str, Any]) -> AIMessage:
        tools, logprobs, sampling = self._asked(stop, kwargs)
        engine, prompt, sampling = self._prepare(chat, tools, sampling)
        answer = engine.submit(prompt, sampling)
        return self._message(prompt, answer if isinstance(answer, Answer) else answer.result(), logprobs, bool(tools))

    async def _aanswer(self, chat: Chat, stop: list[str] | None, kwargs: dict[str, Any]) -> AIMessage:
        tools, logprobs, sampling = self._asked(stop, kwargs)
        if self._engine is not None and self._engine.ready and self._prompts and self._prompts.quick(chat, tools):
            engine, prompt, sampling = self._prepare(chat, tools, sampling)
        else:  # looking at files, loading and tokenising must not hold up the event loop; servers refuse what does
            engine, prompt, sampling = await asyncio.to_thread(self._prepare, chat, tools, sampling)
        answer = engine.submit(prompt, sampling)
        if not isinstance(answer, Answer):
            answer = await asyncio.wrap_future(answer)
        return self._message(prompt, answer, logprobs, bool(tools))

    def _asked(self, stop: list[str] | None, kwargs: dict[str, Any]) -> tuple[Sequence[dict[str, Any]], bool, Sampling]:
        """Tools, whether log-probabilities are wanted, and how to draw."""
        others = kwargs if stop is None else kwargs | {"stop": stop}
        logprobs = others.get("logprobs")
        sampling = self._sampling({name: value for name, value in others.items() if name not in ("logprobs", "tools")})
        return others.get("tools") or (), self.logprobs if logprobs is None else bool(logprobs), sampling

    def _prepare(self, chat: Chat, tools: Sequence[dict[str, Any]], sampling: Sampling) -> tuple[Engine, Ids, Sampling]:
        return self._shared(), *self._chats().fitting(chat, tools, sampling)

    def _sampling(self, overrides: dict[str, Any]) -> Sampling:
        if unknown := sorted(overrides.keys() - set(SETTINGS)):
            raise ConfigError(f"unknown arguments {unknown} for a local model; known are {[*SETTINGS, 'logprobs']}")
        wanted = {name: getattr(self, name) for name in SETTINGS} | overrides
        wanted["stop"] = (wanted["stop"],) if isinstance(wanted["stop"], str) else tuple(wanted["stop"] or ())
        return Sampling(**wanted)

    def _encode(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] = ()) -> Ids:
        return self._chats().ids(chat_of(messages), tools)

    def _chats(self) -> ChatPrompts:
        model, tokenizer = self._shared().loaded()
        if self._prompts is None or self._prompts.tokenizer is not tokenizer:
            self._prompts = ChatPrompts(model, tokenizer, self.path)
        return self._prompts

    def _message(self, prompt: Ids, answer: Answer, logprobs: bool, tools: bool) -> AIMessage:
        metadata: dict[str, Any] = {"finish_reason": answer.finish_reason, "model_name": self._chats().name}
        if logprobs:
            metadata |= {"prompt_token_ids": [*prompt], "token_ids": answer.tokens, "logprobs": answer.logprobs}
        usage = {"input_tokens": len(prompt), "output_tokens": len(answer.tokens)}
        reader = self._chats().reader if tools else no_calls
        text, calls, invalid = read_tool_calls(answer.text, prompt, reader)
        return AIMessage(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            response_metadata=metadata,
            usage_metadata={**usage, "total_tokens": sum(usage.values())},
        )

    def _shared(self) -> Engine:
        alone = self.batch_invariant
        key = (self.path, self._adapters, self.max_batch_size, self.batch_window, self.memo_bytes, alone)
        if self._engine is None or key != self._engine_key:
            # A folder that was written anew (the next round's adapter) is another model.
            path, adapters = self.path, self._adapters
            self._engine = shared_engine(
                (key, *map(version, (path, *adapters))),
                lambda: Engine(
                    lambda: load(path, adapters),
                    max_batch_size=self.max_batch_size,
                    batch_window=self.batch_window,
                    memo_bytes=self.memo_bytes,
                    alone=alone,
                ),
            )
            self._engine_key = key
        return self._engine
