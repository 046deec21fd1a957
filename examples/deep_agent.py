"""A deep agent goes back to its own mistakes: ``deepagents.create_deep_agent``, and one line more.

    pip install -e ".[langchain,openai]" deepagents
    python examples/deep_agent.py --model openai:gpt-5-mini

The agent has books in its files (deepagents keeps them in the graph's state), asks a subagent to read them, and writes
down who owes what. If the sum is wrong, it is asked which step was the mistake; conversation and files go back to that
step, and from there it tries again knowing better. Printed: its calls, each rewind with what was learned, what it
wrote, and the commands that look at what was recorded and train on it.

In place the agent's own decisions are recorded. In a tree every decision is, the subagent's too; this file also has
what that takes (`build`, `tasks`, `inputs`, `judge`):

    leafe explore --agent examples.deep_agent:build --model openai:gpt-5-mini --env-steps 60 --out runs/deep-trees
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepagents import create_deep_agent
from deepagents.backends.utils import create_file_data

from leafe_graph import STATELESS, LeafeError, LeafeMiddleware, Task, Verdict, load_model

TASK = (
    "Who owes us money? /invoices.csv has what we asked for, /payments.csv what came in. Have the bookkeeper look, and "
    'write /owed.json: an object with the cents that each customer still owes, as in {"Eve": 120}, without those who '
    "owe nothing."
)
BOOKS = {
    "/invoices.csv": "number,customer,cents\n1,Ada,12000\n2,Bob,4500\n3,Ada,3000\n4,Cyd,990\n",
    "/payments.csv": "number,cents\n1,12000\n2,4500\n3,1500\n",
}
OWED = {"Ada": 1500, "Cyd": 990}
BOOKKEEPER: Any = {
    "name": "bookkeeper",
    "description": "Reads the books and answers one question about them.",
    "system_prompt": "You are a bookkeeper. Read the files that you need and answer exactly what you are asked.",
}


def build(model: Any, world: None = None, middleware: Sequence[Any] = ()) -> Any:
    """The agent, as anybody has it."""
    return create_deep_agent(
        model,
        system_prompt="You run an office. You hand work over, and check what you are told.",
        subagents=[BOOKKEEPER],
        middleware=middleware,
    )


def judge(state: Any, *_: Any) -> Verdict:
    """Whether the file says who owes what; here of a state and a runtime, in a tree of a result, a world and a task."""
    written = state.get("files", {}).get("/owed.json")
    if written is None:
        return Verdict(False, "There is no /owed.json.")
    try:
        right = json.loads(written["content"]) == OWED
    except ValueError:
        return Verdict(False, "/owed.json is no JSON.")
    return Verdict(right, "" if right else "/owed.json does not agree with the books.")


def inputs(task: Task) -> dict[str, Any]:
    """What the agent is invoked with."""
    return {"messages": task["instruction"], "files": {name: create_file_data(text) for name, text in BOOKS.items()}}


def tasks(split: str, count: int, *, start: int = 0) -> list[Task]:
    """There is one."""
    return [Task(id="owed", instruction=TASK)][start : start + count]


def owed(model: Any, record: str | Path) -> dict[str, Any]:
    """The state in which the agent has ended."""
    leafe = LeafeMiddleware(judge=judge, worlds=STATELESS, restore={"files"}, record=record)
    agent, state = build(load_model(model), middleware=[leafe]), {}
    for mode, event in agent.stream(inputs(tasks("", 1)[0]), stream_mode=["updates", "custom", "values"]):
        if mode == "values":
            state = event
        elif mode == "updates":
            for message in (event.get("model") or {}).get("messages", []):
                for call in message.tool_calls:
                    print(f"{call['name']}: {json.dumps(call['args'])[:200]}")
        elif event["leafe"].get("verdict") == "rewind":
            print(f"That is wrong. Back to step {event['leafe']['decision']}, knowing: {event['leafe']['experience']}")
    return state


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="as leafe_graph.load_model and init_chat_model know it")
    parser.add_argument("--record", default="runs/deep-agent", help="the run folder that attempts are written to")
    said = parser.parse_args()
    try:
        state = owed(said.model, said.record)
    except LeafeError as error:
        parser.error(str(error))
    success, feedback = judge(state)
    print(feedback or f"/owed.json: {state['files']['/owed.json']['content']}")
    print(f"Next:\n  leafe show {said.record}\n  leafe export {said.record}")
    print(f"  leafe train --model HUGGING_FACE_NAME --data {said.record} --out {said.record}/adapter")
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())
