"""Agents that the tests have served by LangGraph's development server, beside those of ``examples/``."""

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from leafe_graph import LeafeMiddleware, Verdict, Workspace
from leafe_graph.testing import ScriptedModel

PLACE = Path(tempfile.gettempdir(), "served")
MEETING = threading.Barrier(2)


class Apart(Workspace):
    """A folder that is not looked after on an event loop."""

    def snapshot(self) -> str:
        refuse_loop()
        return super().snapshot()

    def restore(self, ref: str) -> None:
        refuse_loop()
        super().restore(ref)

    def forget(self, ref: str) -> None:
        refuse_loop()
        super().forget(ref)


def refuse_loop() -> None:
    """Raise where a loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError("the event loop waits")


def think(messages: list[Any], seed: int | None) -> str | AIMessage:
    """Writes something wrong and, where it is told, what the user says."""
    text = messages[-1].text
    if "Answer with JSON" in text:
        return '{"step": 0, "experience": "Do as you are told."}'
    if messages[-1].type == "tool":
        return "Done."
    said = text.partition("\n")[0] if "Experience" in text else "wrong"
    return AIMessage("", tool_calls=[{"name": "write", "args": {"text": said}, "id": f"call-{len(messages)}"}])


def folder(runtime: Any) -> Path:
    """The thread's own."""
    refuse_loop()
    place = PLACE / runtime.execution_info.thread_id
    place.mkdir(parents=True, exist_ok=True)
    return place


def write(text: str, runtime: ToolRuntime) -> str:
    """Write a text down; what is wrong is written by two threads at the same moment."""
    if text == "wrong" and runtime.state["messages"][0].text.startswith("meet"):
        MEETING.wait(60)
    with (folder(runtime) / "notes").open("a") as file:
        file.write(text)
    return "written"


def judge(state: Any, runtime: Any) -> Verdict:
    """Whether what the user says is written down, and nothing else."""
    refuse_loop()
    return Verdict((folder(runtime) / "notes").read_text() == state["messages"][0].text)


def redact(text: str) -> str:
    """Takes out nothing."""
    refuse_loop()
    return text


def middleware(**more: Any) -> LeafeMiddleware:
    """The middleware, with a folder for every thread."""
    return LeafeMiddleware(judge=judge, worlds=lambda runtime: [Apart(folder(runtime))], **more)


agent = create_agent(ScriptedModel(reply=think), [write], middleware=[middleware()])


def made(config: RunnableConfig) -> Any:
    """Made anew whenever the server wants it."""
    leafe = middleware(record=PLACE.with_name("record"), redact=redact)
    return leafe.attach(create_agent(ScriptedModel(reply=think), [write], middleware=[leafe]))


def boss(messages: list[Any], seed: int | None) -> str | AIMessage:
    """Gives the work to a subagent."""
    if messages[-1].type == "tool":
        return "It is done."
    wanted = {"description": messages[-1].text, "subagent_type": "writer"}
    return AIMessage("", tool_calls=[{"name": "task", "args": wanted, "id": "task"}])


WRITER: Any = {
    "name": "writer",
    "description": "writes",
    "system_prompt": "You write.",
    "tools": [write],
    "model": ScriptedModel(reply=think),
    "middleware": [middleware(restore={"files"})],
}
deep = create_deep_agent(ScriptedModel(reply=boss), subagents=[WRITER])
