"""What `explore_agent(fork=True)` saves and costs: ``python benchmarks/agent_forks.py``.

An agent of 30 decisions whose tool takes so many seconds and writes one file of its world, and four branches at
decisions 28, 20, 10 and 5. Told are calls of the tool in those branches, and their seconds by the clock and of CPU.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from leafe_graph import Limits, Verdict, explore_agent
from leafe_graph.env.worlds import PyObject, Workspace, World
from leafe_graph.testing import ScriptedModel

DECISIONS, BLAMED = 30, (28, 20, 10, 5)


def measured(name: str, takes: float, *, fork: bool, place: Path) -> tuple[int, float, float]:
    """Calls of the tool in the branches after the first, and their seconds by the clock and of CPU."""
    place.mkdir(parents=True)
    called, marks, blamed = [0], list[tuple[int, float, float]](), iter(BLAMED)
    orders = {str(n): {"items": [{"id": item} for item in range(10)]} for n in range(1000)}
    for n in range(3000 if name == "folder" else 0):
        (place / str(n)).write_text("x" * 200)

    def world(task: Any) -> World:
        return Workspace(place, place.with_name(f"{place.name}.kept")) if name == "folder" else PyObject(orders)

    def build(model: Any, world: Any) -> Any:
        def step(n: int) -> str:
            """Take a step."""
            called[0] += 1
            time.sleep(takes)
            (place / "0").write_text(str(n))
            return f"step {n}"

        return create_agent(model, [step])

    def reply(messages: list[Any], seed: int | None) -> str | AIMessage:
        made = sum(message.type == "ai" for message in messages)
        call = {"name": "step", "args": {"n": made}, "id": str(made), "type": "tool_call"}
        return "done" if made == DECISIONS - 1 else AIMessage("", tool_calls=[call])  # type: ignore[list-item]

    def judge(result: Any, world: Any, task: Any) -> Verdict:
        marks.append((called[0], time.perf_counter(), time.process_time()))
        return Verdict(False)

    explore_agent(
        build,
        ScriptedModel(reply=reply),
        ["Take the steps."],
        world=None if name == "none" else world,
        judge=judge,
        out=place.with_name(f"{place.name}.run"),
        reflector=ScriptedModel(reply=lambda messages, seed: json.dumps({"step": next(blamed), "experience": "x"})),
        limits=Limits(max_branches=1 + len(BLAMED), max_depth=9, branches_per_reflection=1),
        max_turns=DECISIONS,
        fork=fork,
    )
    (first, *_, last) = marks
    return last[0] - first[0], last[1] - first[1], last[2] - first[2]


def main() -> None:
    """Each world, by replays and by forks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--takes", type=float, nargs="+", default=[0.0, 0.5])
    given = parser.parse_args()
    print("world    tool takes  begins by  calls  seconds  CPU")
    with tempfile.TemporaryDirectory() as folder:
        for takes in given.takes:
            for name in ("none", "object", "folder"):
                for fork in (False, True):
                    place = Path(folder) / f"{name}-{takes}-{fork}"
                    calls, seconds, cpu = measured(name, takes, fork=fork, place=place)
                    by = "fork" if fork else "replay"
                    print(f"{name:8} {takes:8.1f} s  {by:9} {calls:6} {seconds:8.1f} {cpu:4.1f}", flush=True)


if __name__ == "__main__":
    main()
