"""What `LeafeMiddleware` costs an agent of `create_agent`: the same turns with it and without it.

python benchmarks/middleware.py

The model answers at once: a call of a tool in each turn but the last. No world, no reflection: what is left is the
middleware's own. With and without take turns within a round; medians. `bytes` is what a turn adds to a SQLite file of
LangGraph's saver, nothing vacuumed.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from leafe_graph import STATELESS, LeafeMiddleware
from leafe_graph.testing import ScriptedModel
from leafe_graph.text import markdown_table


def look(turn: int) -> str:
    """Look at something."""
    return f"Seen at turn {turn}: nothing of note."


def run(middleware: list[Any], turns: int, file: Path | None) -> tuple[float, float, int]:
    """Play so many turns: seconds by the clock, of the processor, and bytes written."""

    def reply(messages: Any, seed: int | None) -> AIMessage | str:
        done = sum(message.type == "ai" for message in messages)
        if done == turns - 1:
            return "Done."
        return AIMessage("", tool_calls=[{"name": "look", "args": {"turn": done}, "id": f"call-{done}"}])

    config: Any = {"recursion_limit": 10 * turns, "configurable": {"thread_id": "1"}}
    with closing(sqlite3.connect(file or ":memory:", check_same_thread=False)) as connection:
        saver = None if file is None else SqliteSaver(connection)
        agent = create_agent(ScriptedModel(reply=reply), [look], middleware=middleware, checkpointer=saver)
        clock, cpu = time.perf_counter(), time.process_time()
        said = agent.invoke({"messages": "Go."}, config)["messages"]
        seconds = time.perf_counter() - clock, time.process_time() - cpu
        assert len(said) == 2 * turns
    size = sum(each.stat().st_size for each in file.parent.iterdir()) if file is not None else 0
    return *seconds, size


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    ways = {
        "without": lambda: [],
        "with": lambda: [LeafeMiddleware(judge=lambda state, runtime: True, worlds=STATELESS)],
    }
    heads = ("", "checkpoints", "ms a turn", "CPU ms a turn", "bytes a turn")
    rows = []
    for saved in (False, True):
        found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):
            for name, make in ways.items():
                with tempfile.TemporaryDirectory() as folder:
                    taken = run(make(), given.turns, Path(folder) / "saver.sqlite" if saved else None)
                if number:  # the first one warms up
                    found[name].append(taken)
        medians = {name: [statistics.median(each) for each in zip(*all_, strict=True)] for name, all_ in found.items()}
        medians["difference"] = [b - a for a, b in zip(medians["without"], medians["with"], strict=True)]
        for name, (clock, cpu, size) in medians.items():
            figures = f"{1000 * clock / given.turns:.2f}", f"{1000 * cpu / given.turns:.2f}"
            rows.append((name, "SQLite" if saved else "none", *figures, f"{size / given.turns:,.0f}" if saved else ""))
    print(markdown_table(heads, rows))


if __name__ == "__main__":
    main()
