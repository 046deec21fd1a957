"""The agent that test_middleware_killed.py kills: ``python killed_agent.py FOLDER`` plays it on for every line.

A line is the seconds that each step takes (`lives.serve`). The agent's tools are not safe to be called twice: they add
to a file and to a database.
"""

import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from agents import calls
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from lives import serve

from leafe_graph import LeafeMiddleware, Verdict
from leafe_graph.env.worlds import SqliteFile, Workspace
from leafe_graph.testing import ScriptedModel

STEPS = 4
CONFIG: Any = {"configurable": {"thread_id": "1"}}


def play(place: Path, pause: float) -> dict[str, Any]:
    """Begin, or go on where it stands; the last state."""
    work, database = place / "work", place / "words.db"
    work.mkdir(parents=True, exist_ok=True)

    def add(word: str) -> str:
        """Add a word to the file and to the database."""
        with open(work / "words", "a") as file:
            file.write(word)
            file.flush()
            time.sleep(pause)
            file.write("\n")
        with sqlite3.connect(database) as base:
            base.execute("create table if not exists words (word)")
            base.execute("insert into words values (?)", (word,))
            time.sleep(pause)
        base.close()
        return f"added {word}"

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        made, told = sum(message.type == "ai" for message in messages), "BETTER" in messages[-1].text
        time.sleep(pause)
        if made == STEPS:
            return "done"
        answer = calls(("add", {"word": f"word {made}{' better' * told}"}))
        return AIMessage("", tool_calls=[{**answer.tool_calls[0], "id": f"call-{made}-{told}"}])

    def judge(state: Any, runtime: Any) -> Verdict:
        time.sleep(pause)
        return Verdict("better" in (work / "words").read_text(), "not good enough")

    middleware = LeafeMiddleware(
        judge=judge,
        worlds=[Workspace(work), SqliteFile(database)],
        reflector=ScriptedModel(reply=['{"step": 1, "experience": "BETTER"}']),
    )
    with SqliteSaver.from_conn_string(str(place / "checkpoints.sqlite")) as saver:
        model = ScriptedModel(reply=reply)
        agent = create_agent(model, [add], middleware=[middleware], checkpointer=saver)
        begun = bool(agent.get_state(CONFIG).values)
        given = None if begun else {"messages": [HumanMessage("Add words.")]}
        agent.invoke(given, CONFIG, durability="sync")
        values: dict[str, Any] = agent.get_state(CONFIG).values
        return values


def seen(place: Path) -> tuple[list[Any], str, list[Any]]:
    """Messages, file and database of a run that has ended."""
    with SqliteSaver.from_conn_string(str(place / "checkpoints.sqlite")) as saver:
        found = saver.get_tuple(CONFIG)
    assert found is not None
    messages = [
        (message.type, message.text, [call["args"] for call in getattr(message, "tool_calls", [])])
        for message in found.checkpoint["channel_values"]["messages"]
    ]
    base = sqlite3.connect(place / "words.db")
    rows = base.execute("select word from words").fetchall()
    base.close()
    return messages, (place / "work" / "words").read_text(), rows


if __name__ == "__main__":
    serve(lambda pause: play(Path(sys.argv[1]), float(pause)))
