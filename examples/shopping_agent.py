"""An agent with `LeafeMiddleware` for LangGraph's server: every thread has a folder of its own, which is rewound.

    pip install -e ".[langchain]" "langgraph-cli[inmem]"
    cd examples && langgraph dev

Say "milk, eggs, tea" to the graph ``shopping``. The scripted model writes the first thing down and says that it is
done; the judge says no, the thread's messages and list go back, and all is written. ``stream_mode="custom"`` tells of
it. Put a model of your own in the script's place, such as ``load_model("openai:NAME")``.
"""

import tempfile
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage

from leafe_graph import LeafeMiddleware, Verdict, Workspace
from leafe_graph.testing import ScriptedModel

LISTS = Path(tempfile.gettempdir(), "shopping")
LESSON = '{"step": 0, "experience": "The user named several things: write every one of them down."}'


def think(messages: list[Any], seed: int | None) -> str | AIMessage:
    """The next step, or a reflection where one is asked for."""
    if "Answer with JSON" in messages[-1].text:
        return LESSON
    if messages[-1].type == "tool":
        return "It is written down."
    things = messages[-1].text.partition("\n")[0].split(", ")
    wanted = things if "Experience" in messages[-1].text else things[:1]
    return AIMessage("", tool_calls=[{"name": "write_down", "args": {"things": wanted}, "id": str(len(messages))}])


def folder(runtime: Any) -> Path:
    """The thread's own."""
    place = LISTS / runtime.execution_info.thread_id
    place.mkdir(parents=True, exist_ok=True)
    return place


def write_down(things: list[str], runtime: ToolRuntime) -> str:
    """Write things on the shopping list."""
    with (folder(runtime) / "list.txt").open("a") as file:
        file.writelines(f"{thing}\n" for thing in things)
    return f"{len(things)} written"


def judge(state: Any, runtime: Any) -> Verdict:
    """Whether all that the user has named last is on the list."""
    asked = [message.text for message in state["messages"] if message.type == "human"][-1].split(", ")
    file = folder(runtime) / "list.txt"
    missing = set(asked) - set(file.read_text().splitlines() if file.exists() else ())
    return Verdict(not missing, f"Not on the list: {', '.join(sorted(missing))}")


leafe = LeafeMiddleware(judge=judge, worlds=lambda runtime: [Workspace(folder(runtime))])
agent = create_agent(ScriptedModel(reply=think), [write_down], middleware=[leafe], name="shopping")
