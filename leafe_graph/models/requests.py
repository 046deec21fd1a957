"""What a provider was asked and what it answered, as it is saved: messages in TRL's form, tools in OpenAI's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from ..errors import ConfigError
from ..text import utf8, utf8_all
from ..types import CalledFunction, Message, ModelMessage, Request, ToolCall, Usage

_ROLES = {"human": "user", "ai": "assistant", "function": "tool"}
_SAID_ELSEWHERE = {"text", "tool_call", "tool_use", "function_call", "thinking", "redacted_thinking", "reasoning"}
"""Blocks of a content that are its text, its calls, or thoughts."""
_ELSEWHERE = ("server_tool", "mcp_tool")
"""How blocks of calls begin that run at the provider."""
TokenField = Literal["prompt_token_ids", "token_ids", "logprobs"]
TOKEN_FIELDS: tuple[TokenField, ...] = get_args(TokenField)
"""What of an answer says it by numbers."""
_OWN_CALLS = {"tool_call", "invalid_tool_call", "function_call", "custom_tool_call"}
"""Blocks whose names end as those of server-side tools do, and that are calls of the agent's own tools."""


def request_of(messages: Sequence[BaseMessage], tools: Sequence[Any]) -> Request:
    """A model call's messages and tools as a record."""
    names = {call["id"]: call["name"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    found = Request(messages=[_message(each, names) for each in messages], tools=openai_tools(tools))
    return utf8_all(found)


def _message(message: BaseMessage, names: Mapping[str | None, str]) -> Message:
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, message.type)
    found = Message(role=role, content=_text(message))
    name = message.name
    if isinstance(message, ToolMessage):
        found["tool_call_id"] = message.tool_call_id
        name = name or names.get(message.tool_call_id)
    if name:
        found["name"] = name
    if isinstance(message, AIMessage) and (calls := _calls(message)):
        found["tool_calls"] = [_call(call, identity) for call, identity in calls]
    return found


def _call(call: Mapping[str, Any], identity: str | None) -> ToolCall:
    called = ToolCall(type="function", function=CalledFunction(name=call["name"], arguments=call["args"]))
    return called if identity is None else {**called, "id": identity}


def _text(message: BaseMessage) -> str:
    """A message's text; a picture and its like leave a mark, so that no prompt seems to have been without."""
    if isinstance(message.content, str):
        return message.content
    others = [b["type"] for b in message.content if isinstance(b, dict) and b.get("type") not in _SAID_ELSEWHERE]
    return "\n".join([message.text] * bool(message.text) + [f"[{kind}]" for kind in others])


def _calls(answer: AIMessage) -> list[tuple[dict[str, Any], str | None]]:
    """Name and arguments of all calls, each with its id; arguments that are no JSON are the text that was written."""
    calls = [({"name": call["name"], "args": call["args"]}, call["id"]) for call in answer.tool_calls]
    return calls + [({"name": c["name"] or "", "args": c["args"] or ""}, c["id"]) for c in answer.invalid_tool_calls]


def openai_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Tools as a model got them, in OpenAI's form; those of Anthropic, Bedrock and Google are read.

    Raises:
        ConfigError: one is in another form, or is the provider's own.
    """
    found: list[dict[str, Any]] = []
    for tool in tools:
        declared = tool.get("function_declarations") if isinstance(tool, Mapping) else None  # Google's: several in one
        for each in declared or [tool]:
            try:
                schema = convert_to_openai_tool(each)
            except Exception as error:  # whatever a provider calls a tool
                raise ConfigError(f"the tool {each!r:.80} has no schema that can be recorded: {error}") from error
            if schema.get("type") == "function" and "function" not in schema:  # OpenAI's Responses API
                schema = {"type": "function", "function": {k: v for k, v in schema.items() if k != "type"}}
            if "function" not in schema:
                raise ConfigError(
                    f"the tool {schema.get('type')!r} runs at the provider, where nothing can be rewound: leave it out"
                )
            found.append(schema)
    return found


def model_message(answer: AIMessage) -> ModelMessage:
    """A chat model's answer as a record, with all its calls.

    Without the calls' ids, which are random: equal calls are equal messages.
    """
    message = ModelMessage(content=utf8(answer.text))
    if calls := [call for call, _ in _calls(answer)]:
        message["tool_calls"] = utf8_all(calls)
    if isinstance(thoughts := answer.additional_kwargs.get("reasoning_content"), str):
        message["thoughts"] = utf8(thoughts)
    for field in TOKEN_FIELDS:
        if isinstance(answer.response_metadata.get(field), list):
            message[field] = answer.response_metadata[field]
    if usage := answer.usage_metadata:
        message["usage"] = Usage(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"])
    return message


def same_asked(node: str, request: Request) -> str:
    """A key that two decisions share if the same agent was asked the same, whatever the ids of the calls in it."""
    numbers: dict[str, str] = {}

    def number(identity: Any) -> str:
        return numbers.setdefault(str(identity), f"call{len(numbers):05}")

    messages = [
        {**m, "tool_calls": [{**call, "id": number(call.get("id"))} for call in m["tool_calls"]]}
        if "tool_calls" in m
        else {**m, "tool_call_id": number(m["tool_call_id"])}
        if "tool_call_id" in m
        else m
        for m in request["messages"]
    ]
    return json.dumps([node, messages, request["tools"]], sort_keys=True, ensure_ascii=False)


def refuse_state_elsewhere(model: object, settings: Mapping[str, Any], answer: AIMessage) -> None:
    """Refuse what a provider remembers or does on its own: it could not be gone back to.

    Raises:
        ConfigError: the call goes on from an earlier response, or a tool ran at the provider.
    """
    goes_on = next((name for name in ("previous_response_id", "conversation") if settings.get(name)), None)
    if goes_on is None and getattr(model, "use_previous_response_id", False):
        goes_on = "use_previous_response_id"
    if goes_on:
        raise ConfigError(
            f"the model has {goes_on}, so the provider keeps the history, where nothing can be rewound: send the "
            "messages with every call"
        )
    if isinstance(answer.content, list):
        for block in answer.content:
            kind = str(block.get("type", "")) if isinstance(block, dict) else ""
            if kind.startswith(_ELSEWHERE) or (kind.endswith("_call") and kind not in _OWN_CALLS):
                raise ConfigError(
                    f"the answer holds a {kind!r}: a tool ran at the provider, where nothing can be rewound: leave "
                    "that tool out"
                )
