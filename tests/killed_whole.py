"""The trees that test_explore_agent_killed.py kills: ``python killed_whole.py FOLDER`` goes on for every line.

A line is the seconds that each step takes, and ``fork`` or ``replay`` (`lives.serve`). The agent's tools are not safe
to be called twice: they add to a file and to a database.
"""

import json
import re
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from agents import calls
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from lives import serve

from leafe_graph import Budget, Limits, Verdict, explore_agent
from leafe_graph.env.worlds import SqliteFile, Workspace
from leafe_graph.testing import ScriptedModel
from leafe_graph.tree.run_folder import RunFolder

TASKS, STEPS = 6, 4


class Both:
    """A folder and the database in it, as two worlds in one: what is restored of the one is of the same moment."""

    durable = True

    def __init__(self, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)  # as at the task's start, also after a kill
        (place / "work").mkdir(parents=True)
        self.folder, self.path = place / "work", place / "words.db"
        self.worlds = [Workspace(self.folder, place / "kept"), SqliteFile(self.path)]
        with sqlite3.connect(self.path) as base:
            base.execute("create table words (word)")
        base.close()

    @property
    def place(self) -> Path:
        return self.folder.parent

    def snapshot(self) -> str:
        return json.dumps([world.snapshot() for world in self.worlds])

    def restore(self, ref: str) -> None:
        for world, each in zip(self.worlds, json.loads(ref), strict=True):
            world.restore(each)

    def forget(self, ref: str) -> None:
        for world, each in zip(self.worlds, json.loads(ref), strict=True):
            world.forget(each)

    def words(self) -> tuple[list[str], list[str]]:
        """What was added to either."""
        file = self.folder / "words"
        with sqlite3.connect(self.path) as base:
            rows = [word for (word,) in base.execute("select word from words")]
        base.close()
        return file.read_text().splitlines() if file.exists() else [], rows


def run(place: Path, pause: float, *, fork: bool = False) -> RunFolder:
    """Grow the trees, or go on with them."""

    def build(model: Any, world: Any) -> Any:
        def add(word: str) -> str:
            """Add a word to the file and to the database."""
            with open(world.folder / "words", "a") as file:
                file.write(word)
                time.sleep(pause)
                file.write("\n")
            with sqlite3.connect(world.path) as base:
                base.execute("insert into words values (?)", (word,))
            base.close()
            return f"{len(world.words()[0])} words and {len(world.words()[1])}, the last is {word}"

        graph = StateGraph(MessagesState)
        graph.add_node("writer", create_agent(model, [add]))
        graph.add_node("end", lambda state: {"messages": [model.invoke([HumanMessage("It is written.")])]})
        graph.add_edge(START, "writer")
        graph.add_edge("writer", "end")
        graph.add_edge("end", END)
        return graph.compile()

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        time.sleep(pause)
        made = sum(message.type == "ai" for message in messages)
        if made == STEPS or (len(messages) == 1 and "written" in messages[0].text):
            return "done"
        good = re.findall(r"word (\d) should be good", messages[-1].text)
        return calls(("add", {"word": f"{'good' if str(made) in good else 'bad'} {made}"}))

    def reflect(messages: list[Any], seed: int | None) -> str:
        time.sleep(pause)
        bad = [int(step) for step in re.findall(r'^(\d+)\. .*"bad \d"', messages[-1].text, re.MULTILINE)]
        step = bad[-1] if bad else None
        return json.dumps({"step": step, "experience": f"word {step} should be good"})

    def judge(result: Any, world: Any, task: Any) -> Verdict:
        time.sleep(pause)
        file, rows = world.words()
        good = sum("good" in word for word in file)
        assert file == rows and len(file) == STEPS, (file, rows)
        return Verdict(good >= 1 + int(task["id"]) % 3, f"{good} words are good")

    return explore_agent(
        build,
        ScriptedModel(reply=reply),
        [{"id": str(n), "instruction": f"Write {n}.", "seed": None, "options": None} for n in range(TASKS)],
        world=lambda task: Both(place / "worlds" / task["id"]),
        judge=judge,
        out=place / "run",
        reflector=ScriptedModel(reply=reflect),
        limits=Limits(max_branches=4, max_depth=3, branches_per_reflection=2, max_roots=1),
        budget=Budget(env_steps=18),
        concurrency=2,
        seed=1,
        fork=fork,
    )


if __name__ == "__main__":

    def live(line: str) -> None:
        """From what is on disk to the end."""
        pause, fork = line.split()
        run(Path(sys.argv[1]), float(pause), fork=fork == "fork")

    serve(live)
