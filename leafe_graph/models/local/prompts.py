"""Chats as token ids, each rendered and tokenised once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage

from ...errors import ConfigError
from ..chat_tokens import ChatTokenizer
from .memo import Ids, Recent, bytes_of
from .tool_calls import check_template

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

    def quick(self, chat: Chat, tools: Sequence[dict[str, Any]]) -> bool:
        """Whether `ids` takes a moment only."""
        return not tools and sum(len(message["content"]) for message in chat) <= SHORT

    def ids(self, chat: Chat, tools: Sequence[dict[str, Any]] = ()) -> Ids:
        """Token ids of the prompt for the next message.

        Raises:
            ConfigError: the chat template does not take tools, or these roles.
            PromptError: it refuses what a message says.
        """
        key = _key(chat, tools)
        if (known := self._known.get(key)) is not None:
            return known
        if tools:
            check_template(self.tokenizer, self._path)
        prompt = self._chat.render(chat, generation_prompt=True, tools=tools)
        ids = tuple(self._chat.encode([prompt])[0])
        self._known.put(key, ids, bytes_of(ids) + 4 * len(prompt))
        return ids


def chat_of(messages: Sequence[BaseMessage]) -> Chat:
    """Messages in the form that Hugging Face chat templates read.

    Raises:
        ConfigError: a message is of a kind that they do not know.
    """
    return [_chat_message(message) for message in messages]


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
    said = tuple((message["role"], message["content"], repr(message.get("tool_calls"))) for message in chat)
    return (said, repr(tools)) if tools else said


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
