"""A chat model behind vLLM that keeps the token ids of its answers, which `ChatOpenAI` drops.

The trainer takes a recorded reply as it was sampled instead of tokenising its text again. The ids stand in
``response_metadata`` under the names that `leafe_graph.models.local.chat_model.LocalChatModel` gives them. They also
say the thoughts that a server took out of the answer, which are kept so that the proof that rows are clean reads them.
"""

import logging
import threading
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr

log = logging.getLogger(__name__)

FIELD = "return_token_ids"
"""What asks for token ids: vLLM has it (chat_completion/protocol.py of 0.32), and SGLang (its pull request 30917)."""

REASONING = ("reasoning_content", "reasoning")
"""Where a server's reasoning parser puts the thoughts: SGLang and older vLLM, newer vLLM. `ChatOpenAI` drops both."""


class VllmChatModel(ChatOpenAI):  # type: ignore[misc]
    """`ChatOpenAI` with ``token_ids`` in ``response_metadata`` where the server gives them: the sampled ids.

    The stop token is included; ids of an answer that was cut short have none. Answers that are streamed have no ids.
    A server that refuses the field by its name is asked without it from then on.
    """

    return_token_ids: bool = True
    """Ask for token ids. False for a server that refuses unknown fields without naming them."""
    return_prompt_token_ids: bool = False
    """Keep the prompt's ids too, as ``prompt_token_ids``: the trainer then notices a prompt that the server rendered
    otherwise. They are most of a record's size where prompts hold long histories."""

    _refused: threading.Event = PrivateAttr(default_factory=threading.Event)
    """Shared with copies."""

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        # SGLang answers 400 to a stream with ids.
        if self.return_token_ids and not self._refused.is_set() and not payload.get("stream"):
            payload["extra_body"] = {FIELD: True} | dict(payload.get("extra_body") or {})
        return payload

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result: ChatResult = super()._create_chat_result(response, generation_info)
        for generation, choice in zip(result.generations, response.choices, strict=True):
            ids = {"token_ids": getattr(choice, "token_ids", None)}
            if self.return_prompt_token_ids:  # vLLM gives them once, SGLang with each choice
                given = (getattr(part, "prompt_token_ids", None) for part in (response, choice))
                ids["prompt_token_ids"] = next(filter(None, given), None)
            generation.message.response_metadata |= {name: value for name, value in ids.items() if value}
            given = (getattr(choice.message, name, None) for name in REASONING)
            if thoughts := next(filter(None, given), None):
                generation.message.additional_kwargs[REASONING[0]] = thoughts
        return result

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        try:
            result: ChatResult = super()._generate(messages, stop, run_manager, **kwargs)
        except Exception as error:
            if not self._refusal(error):
                raise
            result = super()._generate(messages, stop, run_manager, **kwargs)
        return result

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        try:
            result: ChatResult = await super()._agenerate(messages, stop, run_manager, **kwargs)
        except Exception as error:
            if not self._refusal(error):
                raise
            result = await super()._agenerate(messages, stop, run_manager, **kwargs)
        return result

    def _refusal(self, error: Exception) -> bool:
        """Whether the server refused the field, and may be asked without it."""
        ours = self.return_token_ids and getattr(error, "status_code", None) in (400, 422) and FIELD in str(error)
        if ours and not self._refused.is_set():
            log.warning("the server of %s refuses %s: answers have no token ids", self.model_name, FIELD)
            self._refused.set()
        return ours
