"""LangGraph's development server serves the agent of ``examples/``: invoked, streamed and rewound by its client."""

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
from langgraph_sdk import get_sync_client

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
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of ``langgraph dev`` on a free port of this machine, for the example's own configuration."""
    folder = tmp_path_factory.mktemp("server")  # it keeps its threads in a folder where it was started
    for name in ("langgraph.json", "sokoban_agent.py"):
        shutil.copy(EXAMPLES / name, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, env=kept | QUIET, stdout=output, stderr=output)
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
    (built_in,) = client.assistants.search()
    schemas = client.assistants.get_schemas(built_in["assistant_id"])
    assert list(schemas["input_schema"]["properties"]) == ["task"]
    assert {"max_turns", "max_rewinds", "budget", "seed"} <= schemas["context_schema"]["properties"].keys()
    picture = client.assistants.get_graph(built_in["assistant_id"])
    assert {"reset", "act", "step", "reflect", "rewind"} <= {node["id"] for node in picture["nodes"]}
    short = client.assistants.create("sokoban", context={"max_turns": 1, "max_rewinds": 0})
    assert client.runs.wait(None, short["assistant_id"], input={"task": TASK})["end"] == "max_turns"
    with pytest.raises(Exception, match="ConfigError: no task was given: an agent is invoked with"):
        client.runs.wait(None, "sokoban", input={"messages": [{"role": "user", "content": "hello"}]})
