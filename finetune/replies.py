"""A row's reply as token ids: as it was sampled, else as the chat template writes it, else by itself."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from leafe_graph.models.chat_tokens import ChatTokenizer
from leafe_graph.models.tool_calls import Reader, left_out, reader_of, says, written_calls
from leafe_graph.text import without_thoughts
from leafe_graph.types import Message

from .checks import short


class RowTokenizer(ChatTokenizer):
    """What rows have in common, such as a state's prompt and the few actions there are, is rendered and read once."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._known: dict[tuple[Any, ...], str] = {}
        self.forgetful = ChatTokenizer(tokenizer)
        """The same for what is asked once."""

    @cached_property
    def reader(self) -> Reader | None:
        """What reads this template's calls."""
        return reader_of(self)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """As `ChatTokenizer.render`."""
        told = ((m["role"], m["content"]) if len(m) == 2 else json.dumps(m) for m in messages)
        key = (*told, generation_prompt, json.dumps(tools) if tools else "")
        if key not in self._known:
            self._known[key] = super().render(messages, generation_prompt=generation_prompt, tools=tools)
        return self._known[key]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """As `ChatTokenizer.decode`."""
        key = (*ids, skip_special_tokens)
        if key not in self._known:
            self._known[key] = super().decode(ids, skip_special_tokens=skip_special_tokens)
        return self._known[key]


def refuse_left_out(chat: RowTokenizer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    """See that the template writes tools, calls and results, where there are any."""
    if not tools and all(len(message) == 2 for message in messages):
        return
    if what := left_out(chat.forgetful, messages, tools):
        raise ValueError(
            f"the chat template of {chat.name} leaves out {what}: the policy would learn from what it never sees; "
            "train a model whose template takes tools"
        )


def reply(
    message: Message,
    prompt: list[int],
    whole: list[int],
    chat: ChatTokenizer,
    stop_ids: Collection[int],
    tools: Sequence[Mapping[str, Any]],
) -> list[int]:
    """The reply's tokens and the stop token, from its text; of one with calls, from what the template writes for it."""
    text, alone = message["content"], None
    if "tool_calls" in message:
        ends = chat.controls & {*chat.tokenizer.convert_ids_to_tokens(sorted(stop_ids))}
        [alone] = chat.encode([written_calls(chat, message, tools=tools, ends=ends)])
        text = chat.decode(alone)
    end = next((i for i in reversed(range(len(whole))) if whole[i] in stop_ids), None)
    if end is None or chat.decode(whole[end + 1 :], skip_special_tokens=True).strip():
        raise ValueError(
            f"completion: the chat template writes no stop token (any of {sorted(stop_ids)}) after it, the row ends in "
            f"{short(chat.decode(whole[-8:]))}: the policy would not learn to stop"
        )
    if whole[: len(prompt)] == prompt and len(prompt) < end:
        written = whole[len(prompt) : end]
        if chat.decode(written).strip() == text.strip():
            return [*written, whole[end]]
        if alone is None and not chat.control_ids.isdisjoint(written):
            raise ValueError(
                "prompt: the chat template does not end it with what opens a reply, but writes "
                f"{short(chat.decode(written))} after it: expected a template that knows add_generation_prompt"
            )
    alone = chat.encode_text(text) if alone is None else alone
    if not alone:
        raise ValueError(f"completion: {short(text)} has no token in this tokenizer, so all labels are masked")
    return [*alone, whole[end]]


def recorded_reply(
    sampled: Sequence[int], message: Message, from_text: list[int], chat: RowTokenizer, stop_ids: Collection[int]
) -> list[int] | None:
    """The sampled ids up to the stop token; None where they have none or say something else than the row's message.

    ``from_text``: the row's own; the control tokens of its calls may be among the sampled ids, and no others.
    """
    end = next((i for i, token in enumerate(sampled) if token in stop_ids), None)
    if end is None or max(sampled) >= len(chat.tokenizer):
        return None
    said = chat.decode(sampled[:end], skip_special_tokens=True)
    # A server may have taken the thoughts out of the text: what is left stands after them.
    told = (said.strip(), without_thoughts(said).strip())
    if "tool_calls" not in message:
        same = message["content"].strip() in told
    elif chat.reader is not None:
        same = says(said, message, chat.reader)
    else:
        same = chat.decode(from_text[:-1], skip_special_tokens=True).strip() in told
    marks = chat.control_ids & {*from_text[:-1]}  # a text has none
    if not same or not chat.control_ids.isdisjoint({*sampled[:end]} - marks):
        return None
    return list(sampled[: end + 1])


_DATE = re.compile(r"\b\d{1,2} [A-Z][a-z]{2,8} \d{4}\b|\b\d{4}-\d\d-\d\d\b")


def says_the_same(ids: Sequence[int], prompt: list[int], chat: ChatTokenizer) -> bool:
    """Whether recorded ids say this prompt, with the same control tokens.

    A date may be another. The reply may have been begun for the model, such as by Qwen 3's empty thoughts when thinking
    is off; what an experience adds stands before the generation prompt, and is not taken.
    """
    if list(ids) == prompt:
        return True
    if not ids or max(ids) >= len(chat.tokenizer):
        return False
    theirs, ours = ([i for i in part if i in chat.control_ids] for part in (ids, prompt))
    said, expected = (_DATE.sub("DATE", chat.decode(part)) for part in (ids, prompt))
    return theirs == ours and said.startswith(expected)
