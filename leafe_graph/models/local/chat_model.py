"""`LocalChatModel`: a Hugging Face folder as a LangChain chat model that gathers concurrent calls into batches.

Works with any decoder-only model whose tokenizer has a chat template, own tiny ones included. Constructing checks the
folders; the weights load at the first call, LoRA adapters merged into them. Models of the same folder, adapters and
batch settings share weights, worker thread and memo within a process, so copies and bindings cost nothing.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr, field_validator

from ...errors import ConfigError, MissingDependency, PromptError
from ...files import holding, path_of
from ..adapters import check_adapter, merged
from ..chat_tokens import ChatTokenizer
from ..identity import Digests, adapter_files, identity
from .engine import Engine, shared_engine
from .sampling import Answer, Ids, Sampling
from .tool_calls import check_template, read_tool_calls

ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


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
    """Seconds without a new call after which an idle worker starts with what it has."""
    memo_bytes: int = 256 * 2**20
    """Bound of the memo of next-token logits by exact token sequence; 0 turns it off."""

    _engine: Engine | None = PrivateAttr(default=None)
    _engine_key: Any = PrivateAttr(default=None)
    _chat: ChatTokenizer | None = PrivateAttr(default=None)
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
            self._versions = folders, hashlib.sha256(repr([*map(_version, folders)]).encode()).hexdigest()[:16]
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

        For models whose chat template takes tools and writes calls as ``<tool_call>{JSON}</tool_call>``.

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

    def close(self) -> None:
        """Stop the worker and free the weights; a later call starts and loads again."""
        self._shared().close()

    def __enter__(self) -> "LocalChatModel":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tools = bool(kwargs.get("tools"))
        engine, prompt, sampling, logprobs = self._prepare(messages, stop, kwargs)
        return self._result(prompt, engine.submit(prompt, sampling).result(), logprobs, tools)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tools = bool(kwargs.get("tools"))
        # Looking at files, loading and tokenising must not hold up the event loop; servers refuse what does.
        engine, prompt, sampling, logprobs = await asyncio.to_thread(self._prepare, messages, stop, kwargs)
        return self._result(prompt, await asyncio.wrap_future(engine.submit(prompt, sampling)), logprobs, tools)

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Engine, Ids, Sampling, bool]:
        logprobs, tools = kwargs.pop("logprobs", None), kwargs.pop("tools", None) or ()
        sampling = self._sampling(kwargs if stop is None else kwargs | {"stop": stop})
        engine, prompt = self._shared(), self._encode(messages, tools)
        if (limit := _context(engine.loaded()[0])) is not None:
            if len(prompt) >= limit:
                raise PromptError(
                    f"the prompt has {len(prompt)} tokens; the context of {self.path} holds {limit} with the answer: "
                    "shorten the prompt, e.g. by a smaller history"
                )
            if len(prompt) + sampling.max_tokens > limit:
                sampling = replace(sampling, max_tokens=limit - len(prompt))
        return engine, prompt, sampling, self.logprobs if logprobs is None else bool(logprobs)

    def _sampling(self, overrides: dict[str, Any]) -> Sampling:
        names = [setting.name for setting in fields(Sampling)]
        if unknown := sorted(overrides.keys() - set(names)):
            raise ConfigError(f"unknown arguments {unknown} for a local model; known are {[*names, 'logprobs']}")
        wanted = {name: getattr(self, name) for name in names} | overrides
        wanted["stop"] = (wanted["stop"],) if isinstance(wanted["stop"], str) else tuple(wanted["stop"] or ())
        return Sampling(**wanted)

    def _encode(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] = ()) -> Ids:
        tokenizer = self._shared().loaded()[1]
        if tools:
            check_template(tokenizer, self.path)
        if self._chat is None or self._chat.tokenizer is not tokenizer:
            self._chat = ChatTokenizer(tokenizer)
        prompt = self._chat.render([_chat_message(m) for m in messages], generation_prompt=True, tools=tools)
        return tuple(self._chat.encode([prompt])[0])

    def _result(self, prompt: Ids, answer: Answer, logprobs: bool, tools: bool) -> ChatResult:
        metadata: dict[str, Any] = {"finish_reason": answer.finish_reason, "model_name": Path(self.path).name}
        if logprobs:
            metadata |= {"prompt_token_ids": [*prompt], "token_ids": answer.tokens, "logprobs": answer.logprobs}
        usage = {"input_tokens": len(prompt), "output_tokens": len(answer.tokens)}
        text, calls, invalid = read_tool_calls(answer.text, prompt) if tools else (answer.text, [], [])
        message = AIMessage(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            response_metadata=metadata,
            usage_metadata={**usage, "total_tokens": sum(usage.values())},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _shared(self) -> Engine:
        key = (self.path, self._adapters, self.max_batch_size, self.batch_window, self.memo_bytes)
        if self._engine is None or key != self._engine_key:
            # A folder that was written anew (the next round's adapter) is another model.
            path, adapters = self.path, self._adapters
            self._engine = shared_engine(
                (key, *map(_version, (path, *adapters))),
                lambda: Engine(
                    lambda: _load(path, adapters),
                    max_batch_size=self.max_batch_size,
                    batch_window=self.batch_window,
                    memo_bytes=self.memo_bytes,
                ),
            )
            self._engine_key = key
        return self._engine


def _load(path: str, adapters: tuple[str, ...]) -> tuple[Any, Any]:
    """Model in evaluation mode with its adapters merged, and tokenizer."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if adapters:
            import peft  # noqa: F401
    except ImportError as error:
        raise MissingDependency(extra="hf", needed_for="a local model") from error
    tokenizer = AutoTokenizer.from_pretrained(path)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer in {path} has no chat template, which turns messages into a prompt; "
            "set tokenizer.chat_template and save it there"
        )
    cuda = torch.cuda.is_available()
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto" if cuda else torch.float32)
    for folder in adapters:  # merged: twice as fast as an adapter beside the weights
        model = merged(model, folder, path)
    return model.to("cuda" if cuda else "cpu").eval(), tokenizer


def _context(model: Any) -> int | None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def _version(folder: str) -> tuple[Any, ...]:
    """Another one whenever a file of the folder has changed: a moment's work, where digests take seconds."""
    stats = ((file.name, file.stat()) for file in sorted(Path(folder).iterdir()) if file.is_file())
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats)


def _chat_message(message: BaseMessage) -> dict[str, Any]:
    """A message in the form that Hugging Face chat templates read."""
    role = message.role if isinstance(message, ChatMessage) else ROLES.get(message.type)
    if role is None:
        raise ConfigError(f"cannot put a message of type {message.type!r} into a chat template; known are {[*ROLES]}")
    chat: dict[str, Any] = {"role": role, "content": str(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        chat["tool_calls"] = [
            {"type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    return chat
