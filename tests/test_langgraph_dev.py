"""LangGraph's development server serves the agents of ``examples/``: invoked, streamed and rewound by its client."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

pytest.importorskip("langgraph_api", reason='pip install "langgraph-cli[inmem]"')
pytest.importorskip("deepagents")
from langgraph_sdk import get_sync_client

from leafe_graph import RunFolder

EXAMPLES = Path(__file__).parents[1] / "examples"
LEVEL = "#####\n#@  #\n# $.#\n#   #\n#####"
TASK = {"id": "first", "instruction": "Push X onto O.", "options": {"level": LEVEL}}
QUIET = {
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGSMITH_TRACING": "false",
    # What would call out all the same finds no way: a proxy that is not there.
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""No usage reports, no look for newer versions, no traces."""
START = 90.0
"""Seconds that the server may take to start; it needs about three."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server is started, and keeps its threads: the examples' configuration, and agents of the tests."""
    folder = tmp_path_factory.mktemp("server")
    for file in (EXAMPLES / "sokoban_agent.py", EXAMPLES / "shopping_agent.py", Path(__file__).with_name("served.py")):
        shutil.copy(file, folder)
    config = json.loads((EXAMPLES / "langgraph.json").read_text())
    config["graphs"] |= {"served": "./served.py:agent", "made": "./served.py:made", "deep": "./served.py:deep"}
    (folder / "langgraph.json").write_text(json.dumps(config))
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    """A client of ``langgraph dev`` on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    command += ["--n-jobs-per-worker", "4"]  # else it plays one run after the other
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=kept | QUIET | {"TMPDIR": str(folder / "tmp")}, stdout=output, stderr=output
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ok", server, log)
        with get_sync_client(url=f"http://127.0.0.1:{port}", api_key=None) as client:
            yield client
        assert "Blocking" not in log.read_text(errors="replace"), log.read_text(errors="replace")
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server answers; fail with its log if it does not."""
    until, opener = time.monotonic() + START, build_opener(ProxyHandler({}))
    while server.poll() is None and time.monotonic() < until:
        try:
            opener.open(url, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server did not start (exit code {server.poll()}):\n{log.read_text(errors='replace')}")


def actions(state: Any) -> list[str]:
    """The actions of a state."""
    return [turn["action"] for turn in state["turns"]]


def test_server_invokes_the_agent(client: Any) -> None:
    """It fails, reflects, rewinds and solves the level; without a thread as well."""
    for thread in (client.threads.create()["thread_id"], None):
        state = client.runs.wait(thread, "sokoban", input={"task": TASK})
        assert (state["end"], actions(state)) == ("success", ["down", "right"])
        assert [actions(path) for path in state["abandoned"]] == [["right", "down"]]


def test_server_streams_the_agent(client: Any) -> None:
    """Every node's update, in order, within the settings that the run brought."""
    thread = client.threads.create()["thread_id"]
    parts = list(
        client.runs.stream(thread, "sokoban", input={"task": TASK}, stream_mode="updates", context={"max_turns": 1})
    )
    nodes = [name for part in parts if part.event == "updates" for name in part.data]
    assert nodes == ["reset", *3 * ["act", "step", "reflect", "rewind"], "act", "step"]
    assert not [part for part in parts if part.event == "error"]


def test_server_rewinds_the_agent_to_a_decision_point(client: Any) -> None:
    """From the history of a lost episode its first decision is forked with an experience, and the level is solved."""
    thread = client.threads.create()["thread_id"]
    lost = client.runs.wait(thread, "sokoban", input={"task": TASK}, context={"max_rewinds": 0})
    assert (lost["end"], actions(lost)) == ("failure", ["right", "down"])
    history = client.threads.get_history(thread, limit=50)
    decision = next(point for point in history if point["next"] == ["act"] and not point["values"]["turns"])
    told = {"experience": "Go down first, then push right."}
    fork = client.threads.update_state(thread, told, checkpoint=decision["checkpoint"], as_node="rewind")
    state = client.runs.wait(thread, "sokoban", checkpoint=fork["checkpoint"], context={"max_rewinds": 0})
    assert (state["end"], actions(state), state["abandoned"]) == ("success", ["down", "right"], [])
    assert client.threads.get_state(thread)["values"]["end"] == "success"
    again = client.runs.wait(
        thread, "sokoban", checkpoint_id=decision["checkpoint"]["checkpoint_id"], context={"max_rewinds": 0}
    )
    assert (again["end"], actions(again)) == ("failure", ["right", "down"])


def test_server_knows_what_the_agent_takes(client: Any) -> None:
    """Schemas and picture, an assistant with settings of its own, and a plain word on other input."""
    (built_in,) = client.assistants.search(graph_id="sokoban")
    schemas = client.assistants.get_schemas(built_in["assistant_id"])
    assert list(schemas["input_schema"]["properties"]) == ["task"]
    assert {"max_turns", "max_rewinds", "budget", "seed"} <= schemas["context_schema"]["properties"].keys()
    picture = client.assistants.get_graph(built_in["assistant_id"])
    assert {"reset", "act", "step", "reflect", "rewind"} <= {node["id"] for node in picture["nodes"]}
    short = client.assistants.create("sokoban", context={"max_turns": 1, "max_rewinds": 0})
    assert client.runs.wait(None, short["assistant_id"], input={"task": TASK})["end"] == "max_turns"
    with pytest.raises(Exception, match="ConfigError: no task was given: an agent is invoked with"):
        client.runs.wait(None, "sokoban", input={"messages": [{"role": "user", "content": "hello"}]})


# ---- an agent of create_agent, with the middleware


def say(text: str) -> dict[str, Any]:
    """An input."""
    return {"messages": [{"role": "user", "content": text}]}


def texts(state: Any) -> list[str]:
    """What was said, without calls."""
    return [message["content"] for message in state["messages"]]


def shopping(folder: Path, thread: str) -> list[str]:
    """A thread's shopping list."""
    return (folder / "tmp" / "shopping" / thread / "list.txt").read_text().split()


def notes(folder: Path, thread: str) -> str:
    """What a thread of the tests' own agents has written down."""
    return (folder / "tmp" / "served" / thread / "notes").read_text()


def test_server_rewinds_an_agent_in_place(client: Any, folder: Path) -> None:
    """Messages and folder; with and without a thread, and the second turn takes nothing of the first."""
    told = ["milk, tea", "", "2 written", "It is written down."]
    assert texts(client.runs.wait(None, "shopping", input=say("milk, tea"))) == told
    thread = client.threads.create()["thread_id"]
    assert texts(client.runs.wait(thread, "shopping", input=say("milk, tea"))) == told
    second = client.runs.wait(thread, "shopping", input=say("rice, salt"))
    assert texts(second) == [*told, "rice, salt", *told[1:]]
    assert shopping(folder, thread) == ["milk", "tea", "rice", "salt"]


def test_server_streams_a_rewind(client: Any) -> None:
    """``custom`` tells of it, ``messages-tuple`` removes what was shown; the experience is in ``custom`` alone."""
    thread = client.threads.create()["thread_id"]
    modes = ["messages-tuple", "custom", "values", "updates", "debug", "tasks", "checkpoints"]
    parts = list(client.runs.stream(thread, "shopping", input=say("milk, tea"), stream_mode=modes))
    assert {part.event for part in parts} == {"metadata", "messages", *modes[1:]}
    reflection, rewind = (part.data["leafe"] for part in parts if part.event == "custom")
    assert (reflection["event"], rewind["event"], rewind["decision"]) == ("reflection", "rewind", 0)
    assert reflection["experience"].startswith("The user named several things")
    assert "several things" not in str([part for part in parts if part.event != "custom"])
    kinds = [part.data[0]["type"] for part in parts if part.event == "messages"]
    assert kinds == ["ai", "tool", "ai", "remove", "ai", "tool", "ai"]
    others = client.runs.stream(thread, "shopping", input=say("rice, salt"), stream_mode=["messages", "events"])
    assert {part.event.split("/")[0] for part in others} == {"metadata", "messages", "events"}


def test_two_threads_at_once_have_a_world_each(client: Any, folder: Path) -> None:
    """Their first attempts meet in a tool, and are rewound side by side; no hook holds the event loop up."""
    threads = [client.threads.create()["thread_id"] for _ in range(2)]
    runs = [client.runs.create(thread, "served", input=say(f"meet {thread}"))["run_id"] for thread in threads]
    for thread, run in zip(threads, runs, strict=True):
        assert texts(client.runs.join(thread, run)) == [f"meet {thread}", "", "written", "Done."]
        assert notes(folder, thread) == f"meet {thread}"


def test_a_subagents_rewind_is_told_to_those_who_stream_subgraphs(client: Any, folder: Path) -> None:
    """Of a deep agent, whose subagent has the middleware."""
    thread = client.threads.create()["thread_id"]
    parts = client.runs.stream(thread, "deep", input=say("milk"), stream_mode="custom", stream_subgraphs=True)
    told = [(part.event, part.data["leafe"]["event"]) for part in parts if part.event.startswith("custom")]
    assert [event for _, event in told] == ["reflection", "rewind"]
    assert all(where.startswith("custom|tools:") for where, _ in told)
    assert texts(client.threads.get_state(thread)["values"]) == ["milk", "", "Done.", "It is done."]
    assert notes(folder, thread) == "milk"


def test_an_agent_that_is_made_for_every_run_records(client: Any, folder: Path) -> None:
    """Also two at once, in one run folder."""
    threads = [client.threads.create()["thread_id"] for _ in range(2)]
    runs = [client.runs.create(thread, "made", input=say(f"meet {thread}"))["run_id"] for thread in threads]
    for thread, run in zip(threads, runs, strict=True):
        assert texts(client.runs.join(thread, run))[-1] == "Done."
    client.runs.wait(None, "made", input=say("alone"))
    run = RunFolder(folder / "tmp" / "record")
    assert sorted(branch["end"] for branch in run.branches) == 3 * ["failure"] + 3 * ["success"]
    assert len(run.solved) == 3


@pytest.mark.parametrize(
    ("graph", "how", "where", "least"),
    [("shopping", "interrupt_before", ["tools"], 3), ("made", "interrupt_after", "*", 12)],
)
def test_an_agent_goes_on_from_where_studio_stops_it(
    client: Any, folder: Path, graph: str, how: str, where: Any, least: int
) -> None:
    """Before its tools, or at every node, so in the middle of a rewind, and by agents that are made anew."""
    thread = client.threads.create()["thread_id"]
    state, runs = client.runs.wait(thread, graph, input=say("milk, tea"), **{how: where}), 1
    while client.threads.get_state(thread)["next"]:
        state, runs = client.runs.wait(thread, graph, input=None, **{how: where}), runs + 1
    assert runs >= least and texts(state)[0] == "milk, tea" and len(texts(state)) == 4
    written = shopping(folder, thread) if graph == "shopping" else notes(folder, thread).split(", ")
    assert written == ["milk", "tea"]


def test_studio_draws_an_agent_with_the_middleware(client: Any) -> None:
    """Its hooks are nodes, a rewind is an edge; its account is no part of what the agent takes and gives."""
    (built_in,) = client.assistants.search(graph_id="shopping")
    for xray in (False, True):
        picture = client.assistants.get_graph(built_in["assistant_id"], xray=xray)
        hooks = {f"LeafeMiddleware.{hook}" for hook in ("before_agent", "before_model", "after_agent")}
        assert {"model", "tools"} | hooks <= {node["id"] for node in picture["nodes"]}
        edges = {(edge["source"], edge["target"]) for edge in picture["edges"]}
        assert ("LeafeMiddleware.after_agent", "LeafeMiddleware.before_model") in edges
    schemas = client.assistants.get_schemas(built_in["assistant_id"])
    assert [*schemas["input_schema"]["properties"]] == ["messages"]
    assert {"messages", "structured_response"} >= schemas["output_schema"]["properties"].keys()
    assert client.assistants.get_subgraphs(built_in["assistant_id"], recurse=True) == {}


def test_studio_shows_a_threads_history_without_the_experience(client: Any) -> None:
    """Every state of it, with the attempt that was taken back; and it is no text to be read in any."""
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "shopping", input=say("milk, tea"))
    history = client.threads.get_history(thread, limit=100)
    assert ["1 written" in texts(point["values"]) for point in history].count(True) >= 2
    assert not any("several things" in str(point) for point in history)
    assert client.threads.get_state(thread, subgraphs=True)["values"]["leafe"]["rewinds"] == 1


def test_a_past_of_a_turn_that_is_over_cannot_be_replayed_with_its_world(client: Any, folder: Path) -> None:
    """Its snapshots are gone: that is told, nothing is changed, and the thread goes on."""
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "shopping", input=say("milk, tea"))
    past = next(point for point in client.threads.get_history(thread, limit=100) if point["next"] == ["tools"])
    with pytest.raises(Exception, match="WorldLost"):
        client.runs.wait(thread, "shopping", checkpoint_id=past["checkpoint"]["checkpoint_id"])
    assert shopping(folder, thread) == ["milk", "tea"]
    assert texts(client.runs.wait(thread, "shopping", input=say("rice, salt")))[-1] == "It is written down."
    assert shopping(folder, thread) == ["milk", "tea", "rice", "salt"]
