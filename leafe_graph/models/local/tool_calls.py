"""Tool calls of models whose chat template defines Hermes' form of them, as Qwen's and many others do.

A call is ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` in the reply; the tools stand in the prompt.
"""

import hashlib
import json
import re
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall

from ...errors import ConfigError

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


def check_template(tokenizer: Any, path: str) -> None:
    """Refuse tools for a model that was not taught to call them, or calls them in another form.

    Raises:
        ConfigError: the chat template takes no tools, or writes calls otherwise than ``<tool_call>``.
    """
    template = tokenizer.get_chat_template(tools=[])
    if not re.search(r"\btools\b", template):
        raise ConfigError(
            f"the chat template of {path} takes no tools: ask for the action in words, or take a model that calls tools"
        )
    if "<tool_call>" not in template:
        raise ConfigError(
            f"the chat template of {path} has another form of tool calls than <tool_call>{{JSON}}</tool_call>, "
            'which is read here: serve the model with vLLM, which reads the others, and name it as "vllm:NAME@URL"'
        )


def read_tool_calls(text: str, prompt: object) -> tuple[str, list[ToolCall], list[InvalidToolCall]]:
    """A reply's text without its calls, the calls, and what stands in place of one and is none.

    Ids depend on the prompt and the place alone: the same answer to the same prompt is the same message.
    """
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for number, said in enumerate(_CALL.findall(text)):
        own = f"call_{hashlib.sha256(f'{prompt} {number}'.encode()).hexdigest()[:12]}"
        try:
            call = json.loads(said)
            arguments = call["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            if not isinstance(arguments, dict) or not isinstance(call["name"], str):
                raise ValueError("expected a name and an object of arguments")
            calls.append(ToolCall(name=call["name"], args=arguments, id=own, type="tool_call"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            told = f"{type(error).__name__}: {error}"
            invalid.append(InvalidToolCall(name=None, args=said, id=own, error=told, type="invalid_tool_call"))
    return _CALL.sub("", text).strip() if calls or invalid else text, calls, invalid
