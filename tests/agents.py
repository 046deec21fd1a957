"""Models and tools for tests of agents that exist already."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from leafe_graph.testing import ScriptedModel


def calls(*wanted: tuple[str, dict[str, Any]], text: str = "") -> AIMessage:
    """An answer that calls tools, each by name and arguments."""
    made = [
        {"name": name, "args": args, "id": f"{name}-{place}", "type": "tool_call"}
        for place, (name, args) in enumerate(wanted)
    ]
    return AIMessage(text, tool_calls=made)


class StreamingModel(ScriptedModel):
    """A scripted model that streams: a word a chunk, its tool calls in the last."""

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        yield from self._chunks(messages, stop, kwargs)

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, stop, kwargs):
            await asyncio.sleep(0)
            yield chunk

    def _chunks(self, messages: Any, stop: Any, kwargs: Any) -> Iterator[ChatGenerationChunk]:
        whole: Any = self._answer(messages, stop, kwargs).generations[0].message
        for word in whole.text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
        called = [
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": place}
            for place, call in enumerate(whole.tool_calls)
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "", tool_call_chunks=called, usage_metadata=whole.usage_metadata, chunk_position="last"
            )
        )
