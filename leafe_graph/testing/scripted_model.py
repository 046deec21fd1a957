"""A chat model that follows a script, deterministic in the messages and the seed of the call."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool


def random_reply(replies: Sequence[str]) -> Callable[[list[BaseMessage], int | None], str]:
    """A reply function that draws one of ``replies``: a random policy, the same for equal messages and seed."""
    options = list(replies)

    def reply(messages: list[BaseMessage], seed: int | None) -> str:
        told = "\x00".join(f"{message.type}\x01{message.text}" for message in messages)
        return random.Random(f"{seed}\x02{told}").choice(options)

    return reply


class ScriptedModel(BaseChatModel):
    """A chat model whose answers are computed, with the call arguments and the token counts of a real one.

    A call may carry ``seed``, ``temperature`` (ignored), ``max_tokens`` and ``stop``. Tokens are words. Tools may be
    bound to it; an answer's ``response_metadata["tools"]`` are the names of those that the call carried.
    """

    reply: Callable[[list[BaseMessage], int | None], str | AIMessage] | list[str | AIMessage]
    """``(messages, seed) -> text``, or a message where the answer calls tools; or a list of such answers: a prompt with
    ``k`` assistant messages gets reply ``k``, cyclically."""
    seed: int | None = None
    """Used by calls that carry none."""
    delay: float = 0.0
    """Seconds that each call takes; asynchronous calls sleep side by side."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """LangChain's: the model with tools in each call. What it calls is up to ``reply``."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def _answer(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> ChatResult:
        seed = kwargs.get("seed")
        seed = self.seed if seed is None else seed
        if isinstance(self.reply, list):
            said = self.reply[sum(message.type == "ai" for message in messages) % len(self.reply)]
        else:
            said = self.reply(messages, seed)
        calls = said.tool_calls if isinstance(said, AIMessage) else []
        text = str(said.text) if isinstance(said, AIMessage) else said
        reason, limit = "stop", kwargs.get("max_tokens")
        if cuts := [text.index(word) for word in stop or [] if word in text]:
            text = text[: min(cuts)]
        words = text.split()
        if limit is not None and len(words) > limit:
            text, reason, words = " ".join(words[:limit]), "length", words[:limit]
        tools = {"tools": [tool["function"]["name"] for tool in kwargs["tools"]]} if kwargs.get("tools") else {}
        prompt_tokens = sum(len(message.text.split()) for message in messages)
        message = AIMessage(
            text,
            tool_calls=calls,
            response_metadata={"finish_reason": reason, "model_name": self._llm_type} | tools,
            usage_metadata={
                "input_tokens": prompt_tokens,
                "output_tokens": len(words),
                "total_tokens": prompt_tokens + len(words),
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.delay:
            time.sleep(self.delay)
        return self._answer(messages, stop, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.delay:
            await asyncio.sleep(self.delay)
        return self._answer(messages, stop, kwargs)
