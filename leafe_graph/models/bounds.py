"""Upper bounds of a call's tokens, to be reserved in a budget before the call is made."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from ..budget import Ledger
from ..errors import ConfigError


def limits_tokens(ledger: Ledger | None) -> bool:
    """Whether any ledger up the chain limits tokens."""
    while ledger is not None:
        if ledger.budget.prompt_tokens is not None or ledger.budget.completion_tokens is not None:
            return True
        ledger = ledger.parent
    return False


def prompt_bound(model: Any, messages: Sequence[BaseMessage], tools: Sequence[Any]) -> int:
    """An upper bound of the prompt's tokens: exact where the model counts, else a token a byte.

    A chat template's own words are given 16 a message and 64 in all.
    """
    count = getattr(model, "count_prompt_tokens", None)
    if count is not None:
        return int(count(list(messages), **({"tools": tools} if tools else {})))
    return 64 + len(repr(tools)) + sum(16 + _bytes(message) for message in messages)


def _bytes(message: BaseMessage) -> int:
    calls = getattr(message, "tool_calls", None)
    content = message.content if isinstance(message.content, str) else repr(message.content)
    return len(content.encode(errors="replace")) + (len(repr(calls).encode(errors="replace")) if calls else 0)


def completion_bound(model: Any, settings: Mapping[str, Any]) -> int:
    """An upper bound of the answer's tokens: what the call's settings or the model allow.

    Raises:
        ConfigError: neither does.
    """
    limit = settings.get("max_tokens") or getattr(model, "max_tokens", None)
    if limit is None:
        raise ConfigError(
            "the budget limits tokens, but the model has no max_tokens, so an answer's length cannot be bounded "
            "beforehand: set max_tokens on the model or on the agent"
        )
    return int(limit)
