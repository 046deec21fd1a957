"""Chats as token ids, each rendered and tokenised once."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage

from ...errors import ConfigError, ModelError, PromptError
from ..chat_tokens import ChatTokenizer
from ..tool_calls import Reader, reader_of
from .memo import Ids, Recent, bytes_of
from .sampling import Sampling

ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
PLAIN = {"user", "assistant", "system"}
"""Roles of messages that need no reading by LangChain."""
BYTES = 64 * 2**20
"""Bound of the prompts that are kept."""
SHORT = 8_000
"""Characters of a prompt that are tokenised within a few milliseconds."""

Chat = list[dict[str, Any]]
"""Messages in the form that Hugging Face chat templates read."""


class ChatPrompts:
    """A model's prompts; those of before are remembered."""

    def __init__(self, model: Any, tokenizer: Any, path: str) -> None:
        self.tokenizer, self._path = tokenizer, path
        self.name = Path(path).name
        """What answers call the model."""
        self.limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None) or None
        """Tokens of a prompt with its answer."""
        self._chat = ChatTokenizer(tokenizer)
        self._known: Recent[Ids] = Recent(BYTES)

    @cached_property
    def reader(self) -> Reader:
        """What reads the model's tool calls.

        Raises:
            ConfigError: the chat template takes no tools, or writes calls in a form that is not read here.
        """
        if not re.search(r"\btools\b", self.tokenizer.get_chat_template(tools=[])):
            raise ConfigError(
                f"the chat template of {self._path} takes no tools: ask for the action in words, or take a model that "
                "calls tools"
            )
        if (reader := reader_of(self._chat)) is None:
            raise ConfigError(
                f"the chat template of {self._path} writes no tool calls, or in another form than "
                '<tool_call>{JSON}</tool_call> and {"name": …, "parameters": …}, which are read here: serve the model '
                'with vLLM, which reads others, and name it as "vllm:NAME@URL"'
            )
        return reader

    def quick(self, chat: Chat, tools: Sequence[dict[str, Any]]) -> bool:
        """Whether `ids` takes a moment only."""
        return not tools and sum(len(message["content"]) for message in chat) <= SHORT

    def ids(self, chat: Chat, tools: Sequence[dict[str, Any]] = ()) -> Ids:
        """Token ids of the prompt for the next message.

        Raises:
            ConfigError: the chat template does not take tools, or these roles, or has another form of calls.
            PromptError: it refuses what a message says.
        """
        key = _key(chat, tools)
        if (known := self._known.get(key)) is not None:
            return known
        if tools:
            self.reader  # noqa: B018  # refuses tools for a model that calls none
        prompt = self._chat.render(chat, generation_prompt=True, tools=tools)
        ids = tuple(self._chat.encode([prompt])[0])
        self._known.put(key, ids, bytes_of(ids) + 4 * len(prompt))
        return ids

    def fitting(self, chat: Chat, tools: Sequence[dict[str, Any]], sampling: Sampling) -> tuple[Ids, Sampling]:
        """The prompt, and how to draw an answer that fits into the context with it.

        Raises:
            ConfigError: as `ids`.
            PromptError: as `ids`; or no answer fits.
        """
        prompt, limit = self.ids(chat, tools), self.limit
        if limit is not None and len(prompt) + sampling.max_tokens > limit:
            if len(prompt) >= limit:
                raise PromptError(
                    f"the prompt has {len(prompt)} tokens; the context of {self._path} holds {limit} with the answer: "
                    "shorten the prompt, e.g. by a smaller history"
                )
            sampling = replace(sampling, max_tokens=limit - len(prompt))
        return prompt, sampling

    def read(self, chats: Sequence[Chat]) -> None:
        """Render and tokenise those that are not known yet in one call, which is many times faster.

        What a template or a tokenizer refuses is told when it is asked for by itself.
        """
        new = {_key(chat, ()): chat for chat in chats}
        new = {key: chat for key, chat in new.items() if self._known.get(key) is None}
        rendered: dict[Any, str] = {}
        for key, chat in new.items():
            with suppress(ConfigError, PromptError):
                rendered[key] = self._chat.render(chat, generation_prompt=True)
        with suppress(ModelError):
            for (key, prompt), ids in zip(rendered.items(), self._chat.encode([*rendered.values()]), strict=True):
                self._known.put(key, tuple(ids), bytes_of(tuple(ids)) + 4 * len(prompt))


def chat_of(messages: Sequence[BaseMessage]) -> Chat:
    """Messages in the form that Hugging Face chat templates read.

    Raises:
        ConfigError: a message is of a kind that they do not know.
    """
    called = {call["id"]: call["name"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    return [_chat_message(message, called) for message in messages]


def plain_chat(given: LanguageModelInput) -> Chat | None:
    """What a model was given, where it is in that form already: roles and texts and no more."""
    if not isinstance(given, list):
        return None
    for message in given:
        if not isinstance(message, dict) or message.keys() != {"role", "content"} or message["role"] not in PLAIN:
            return None
        if not isinstance(message["content"], str):
            return None
    return given


def _key(chat: Chat, tools: Sequence[dict[str, Any]]) -> Any:
    said = tuple((m["role"], m["content"]) if len(m) == 2 else repr(m) for m in chat)
    return (said, repr(tools)) if tools else said


def _chat_message(message: BaseMessage, called: Mapping[str | None, str]) -> dict[str, Any]:
    """A message in the form that Hugging Face chat templates read; ``called``: names of tools by their calls' ids."""
    role = message.role if isinstance(message, ChatMessage) else ROLES.get(message.type)
    if role is None:
        raise ConfigError(f"cannot put a message of type {message.type!r} into a chat template; known are {[*ROLES]}")
    chat: dict[str, Any] = {"role": role, "content": str(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        chat["tool_calls"] = [
            {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        name = message.name or called.get(message.tool_call_id)
        chat |= ({"name": name} if name else {}) | {"tool_call_id": message.tool_call_id}
    return chat
