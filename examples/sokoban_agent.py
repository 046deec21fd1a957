"""An agent for LangGraph's server: ``cd examples && langgraph dev`` (``pip install "langgraph-cli[inmem]"``).

The scripted model pushes the box against a wall unless it is told better, so that there is something to reflect upon
and to rewind to. Put a model of your own in its place, such as ``load_model("openai:NAME")``.
"""

from typing import Any

from leafe_graph import create_leafe_agent
from leafe_graph.envs.sokoban import SokobanEnv
from leafe_graph.testing import ScriptedModel

LESSON = '{"step": 0, "experience": "The box got stuck at the wall: go down first, then push right."}'


def think(messages: list[Any], seed: int | None) -> str:
    """The next move, or a reflection where one is asked for."""
    if "Answer with JSON" in messages[-1].text:
        return LESSON
    plan = ["down", "right"] if "Experience" in messages[-1].text else ["right", "down"]
    return plan[sum(message.type == "ai" for message in messages) % 2]


agent = create_leafe_agent(
    ScriptedModel(reply=think), env=lambda: SokobanEnv(end_on_deadlock=True), name="sokoban", max_turns=10
)
