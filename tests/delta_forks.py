"""What a fork reads on the installed LangGraph: needs nothing else, so that any version can be asked.

``python delta_forks.py`` prints the version, then for each way to fork what the run returned and what is read back.
"""

import json
from importlib.metadata import version
from typing import Annotated, Any, TypedDict

from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

THREAD: Any = {"configurable": {"thread_id": "1"}}
FIRST = ["first 0", "first 1", "first 2"]
"""What the abandoned branch holds."""
SECOND = ["first 0", "second 1", "second 2"]
"""What a fork after its first step holds."""


def append(values: list[str], writes: Any) -> list[str]:
    """All writes in a row."""
    return [*values, *(word for write in writes for word in write)]


class Log(TypedDict):
    """Who did what."""

    who: str
    log: Annotated[list[str], DeltaChannel(append)]


def walk(state: Log) -> dict[str, list[str]]:
    """One step."""
    return {"log": [f"{state['who']} {len(state['log'])}"]}


def forks() -> dict[str, dict[str, list[str]]]:
    """Three steps, then forks after the first one."""
    graph = StateGraph(Log)
    graph.add_node("walk", walk)
    graph.add_node("rewind", lambda state: {})
    graph.add_edge(START, "walk")
    graph.add_edge("rewind", "walk")
    graph.add_conditional_edges("walk", lambda state: "walk" if len(state["log"]) < 3 else END, ["walk", END])
    agent: Any = graph.compile(checkpointer=InMemorySaver())
    seen = {}
    seen["the abandoned branch"] = {"returned": agent.invoke({"who": "first", "log": []}, THREAD)["log"]}
    leaf = agent.get_state(THREAD).config
    decision = next(s.config for s in agent.get_state_history(THREAD) if s.values.get("log") == ["first 0"])
    fork = agent.update_state(decision, {"who": "second"}, as_node="rewind")
    seen["the fork, before it goes on"] = {"read back": agent.get_state(fork).values["log"]}
    seen["the fork"] = {"returned": agent.invoke(None, fork)["log"], "read back": agent.get_state(THREAD).values["log"]}
    seen["the decision point"] = {"read back": agent.get_state(decision).values["log"]}
    again = agent.invoke(None, decision)["log"]
    seen["replayed from there"] = {"returned": again, "read back": agent.get_state(THREAD).values["log"]}
    fork = agent.update_state(decision, {"who": "third", "log": ["noted"]}, as_node="rewind")
    seen["a fork that writes"] = {"read back": agent.get_state(fork).values["log"]}
    seen["the abandoned branch"]["read back"] = agent.get_state(leaf).values["log"]
    return seen


if __name__ == "__main__":
    print(version("langgraph"), json.dumps(forks(), indent=1))
