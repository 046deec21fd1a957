"""Tool calls as chat templates write them: what a model says for a message with calls, and the calls in what it said.

Which form of calls a model has is told by its own template: whichever reader here finds again what it writes.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall

from ..errors import PromptError
from ..prompts import call_text
from ..text import THOUGHTS_CLOSED, THOUGHTS_OPENED, without_thoughts
from ..types import CalledFunction, Message
from .chat_tokens import ChatTokenizer

Reader = Callable[[str], tuple[str, list[str]]]
"""From a reply to its text without calls, and what stands in place of each call."""

_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_LLAMA = re.compile(r'\s*\{\s*"(?:name|parameters)"\s*:')
_BETWEEN = re.compile(r"[\s;]*")
_THOUGHTS = re.compile(rf"\s*(?:{THOUGHTS_OPENED})?(.*?){THOUGHTS_CLOSED}\s*", re.DOTALL)
_TAGS = re.compile(f"{THOUGHTS_OPENED}|{THOUGHTS_CLOSED}")
_ASKED = [{"role": "user", "content": "x"}]
_ANSWER = "yes"
_TOOL = {"type": "function", "function": {"name": "probe", "description": "x", "parameters": {}}}
_CALL: dict[str, Any] = {"name": "probe", "arguments": {"text": "kept", "number": 1}}


def hermes(text: str) -> tuple[str, list[str]]:
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, text around it: Hermes', Qwen's, many others'."""
    found = _HERMES.findall(text)
    return (_HERMES.sub("", text).strip() if found else text), found


def no_calls(text: str) -> tuple[str, list[str]]:
    """Of a model that was given no tools."""
    return text, []


def llama(text: str) -> tuple[str, list[str]]:
    """``{"name": …, "parameters": {…}}`` in place of any text: Llama's since 3.1. Several are parted by semicolons."""
    if not _LLAMA.match(text):
        return text, []
    found: list[str] = []
    start = _after(text, 0)
    while start < len(text):
        try:
            _, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            end = len(text)
        found.append(text[start:end].strip())
        start = _after(text, end)
    return "", found


def _after(text: str, place: int) -> int:
    return _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too


def read_tool_calls(text: str, prompt: object, reader: Reader) -> tuple[str, list[ToolCall], list[InvalidToolCall]]:
    """A reply's text without its calls, the calls, and what stands in place of one and is none.

    Ids depend on the prompt and the place alone: the same answer to the same prompt is the same message.
    """
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    rest, found = reader(text)
    for number, said in enumerate(found):
        own = f"call_{hashlib.sha256(f'{prompt} {number}'.encode()).hexdigest()[:12]}"
        try:
            call = json.loads(said)
            arguments = call["parameters"] if "arguments" not in call else call["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            if not isinstance(arguments, dict) or not isinstance(call["name"], str):
                raise ValueError("expected a name and an object of arguments")
            calls.append(ToolCall(name=call["name"], args=arguments, id=own, type="tool_call"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            told = f"{type(error).__name__}: {error}"
            invalid.append(InvalidToolCall(name=None, args=said, id=own, error=told, type="invalid_tool_call"))
    return rest, calls, invalid


def says(text: str, message: Message, reader: Reader) -> bool:
    """Whether a reply says this message: its text, with or without thoughts, and its calls."""
    rest, calls, invalid = read_tool_calls(text, None, reader)
    expected = [each["function"] for each in message.get("tool_calls", ())]
    return (
        not invalid
        and message["content"].strip() in (rest.strip(), without_thoughts(rest).strip())
        and [call_text(each) for each in calls]
        == [call_text({"name": each["name"], "args": each["arguments"]}) for each in expected]
    )


def reader_of(chat: ChatTokenizer) -> Reader | None:
    """What reads the calls of a model with this chat template; None where it writes none, or in another form."""
    call = {"type": "function", "id": "call00000", "function": _CALL}
    message = Message(role="assistant", content="", tool_calls=[call])  # type: ignore[list-item]
    try:
        written = written_calls(chat, message, tools=[_TOOL], ends=chat.controls)
    except (ValueError, PromptError):
        return None
    said = chat.without_controls(written)  # as replies are read
    return next((reader for reader in (hermes, llama) if says(said, message, reader)), None)


def written_calls(
    chat: ChatTokenizer, message: Message, *, tools: Sequence[Mapping[str, Any]], ends: Collection[str]
) -> str:
    """A message with calls as the model says it, by its template, in the form that `ChatTokenizer.encode` takes.

    From its first word to before the last of ``ends``. Thoughts are the message's own: what a template writes in their
    place where there are none (Qwen 3), or leaves out of them (DeepSeek-R1), nobody generated.

    Raises:
        ValueError: the template has no generation prompt, does not end the message, or changes its text.
        PromptError: it refuses the message.
    """
    asked = chat.render(_ASKED, generation_prompt=True, tools=tools)

    def reply(answer: Mapping[str, Any], thoughts: str) -> str:
        whole = chat.render([*_ASKED, answer], generation_prompt=False, tools=tools)
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(asked, whole, strict=False))
        said = whole[sum(1 for _ in alike) :]
        led = _THOUGHTS.match(said)
        return said[led.end() :] if led and led[1].strip() == thoughts else said.lstrip()

    plain = reply({"role": "assistant", "content": _ANSWER}, "")
    if not plain.startswith(_ANSWER):
        raise ValueError(
            "prompt: the chat template does not end it with what opens a reply, but writes "
            f"{plain[:80]!r} after it: expected a template that knows add_generation_prompt"
        )
    content = chat.plain(message["content"]).strip()
    bare = without_thoughts(content).strip()
    said = reply(message, _TAGS.sub("", content.removesuffix(bare)).strip())
    end = max((said.rfind(each) for each in ends), default=-1)
    if end < 0:
        raise ValueError(f"completion: the chat template ends a message with calls by none of {sorted(ends)}")
    if not said.startswith(bare):
        raise ValueError(
            f"completion: the chat template of {chat.name} leaves out the text beside a tool call, or changes it "
            f"({said[:80]!r}): the policy would not learn it; train a model whose template writes both"
        )
    return str(content + said[len(bare) : end])


def left_out(chat: ChatTokenizer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str | None:
    """What the template leaves out of a chat with tools, in words; None: tools, calls, arguments and results are there.

    Each is looked for by a word that is put in its place. The text beside a call is not: a template that leaves it out
    does so where the model is asked, too.
    """
    known: dict[str, str] = {}

    def kept(what: str) -> str:
        known[name := f"kept{len(known):05d}q"] = what
        return name

    def leaves(value: Any, what: str) -> Any:
        if isinstance(value, Mapping) and value:
            return {key: leaves(held, what) for key, held in value.items()}
        if isinstance(value, list) and value:
            return [leaves(held, what) for held in value]
        return value if isinstance(value, Mapping | list) else kept(what)

    def function(called: CalledFunction) -> dict[str, Any]:
        own, given = kept(f"the call of {called['name']!r}"), called["arguments"]
        arguments = given.items() if isinstance(given, dict) else ()
        told = {key: leaves(value, f"the argument {key!r} of {called['name']!r}") for key, value in arguments}
        return {"name": own, "arguments": told}

    offered = [
        {**tool, "function": {**tool["function"], "name": kept(f"the tool {tool['function'].get('name')!r}")}}
        if isinstance(tool.get("function"), Mapping)
        else tool
        for tool in tools
    ]
    asked: list[Mapping[str, Any]] = []
    for message in messages:
        told: dict[str, Any] = {**message}
        if message["role"] == "tool" and message["content"].strip():
            told["content"] = kept(f"what the tool {message.get('name', '')!r} answers")
        if "tool_calls" in message:
            told["tool_calls"] = [{**call, "function": function(call["function"])} for call in message["tool_calls"]]
        asked.append(told)
    written = chat.render(asked, generation_prompt=False, tools=offered)
    return next((what for name, what in known.items() if name not in written), None)
