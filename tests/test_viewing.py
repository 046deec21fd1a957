"""`leafe view`: what its server answers, and what it refuses."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from trees import branch, run_folder, turn

from leafe_graph.cli.main import main
from leafe_graph.report.viewing import Viewer
from leafe_graph.tree.run_folder import RunFolder


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    """A served run of two tasks."""
    run_folder(tmp_path, [branch("0", [turn("o", "up")], "success", task=task) for task in "ba"])
    with Viewer(tmp_path) as viewer:
        serving = threading.Thread(target=viewer.serve_forever)
        serving.start()
        yield viewer
        viewer.shutdown()
        serving.join()


def asked(viewer: Viewer, path: str, **headers: str) -> tuple[int, str]:
    """Status and text of an answer."""
    connection = HTTPConnection("127.0.0.1", viewer.server_port, timeout=10)
    host = headers.pop("Host", f"127.0.0.1:{viewer.server_port}")
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": host, **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_server_answers_this_machine_alone(viewer: Viewer) -> None:
    """It listens on the loopback, under its own name, for its own pages."""
    assert viewer.server_address[0] == "127.0.0.1"
    port = viewer.server_port
    assert asked(viewer, "/")[0] == asked(viewer, "/overview.json", Host=f"localhost:{port}")[0] == 200
    assert asked(viewer, "/overview.json", Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 200
    for headers in (
        {"Host": f"rebound.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
    ):
        status, text = asked(viewer, "/overview.json", **headers)
        assert status == 403 and "task" not in text, headers


def test_server_gives_pages_and_data_and_no_files(viewer: Viewer) -> None:
    """Tasks are in the order in which they were begun, so that a place stays what it is while the run grows."""
    assert "default-src 'none'; connect-src 'self'" in asked(viewer, "/")[1]
    told = json.loads(asked(viewer, "/overview.json")[1])
    assert [tree["id"] for tree in told["trees"]] == ["b", "a"] and told["version"]
    assert json.loads(asked(viewer, "/trees/1.json")[1])["task"]["id"] == "a"
    for path in (
        "/config.json",
        "/branches.jsonl",
        "/../x",
        "/%2e%2e/x",
        "/trees/2.json",
        "/round-1/",
        "/trees/x.json",
    ):
        assert asked(viewer, path)[0] == 404, path


def test_server_knows_what_another_process_logs(viewer: Viewer) -> None:
    """Each answer is of the run as it is then."""
    with RunFolder(viewer.folder).open({"kind": "explore", "settings": {"history": None}}) as writer:
        writer.append(branch("0", [turn("o", "up")], "failure", task="c"))
    told = json.loads(asked(viewer, "/overview.json")[1])
    assert [tree["id"] for tree in told["trees"]] == ["b", "a", "c"]


def test_view_refuses_what_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a port that is taken; a run it serves until Ctrl-C."""
    assert main(["view", str(tmp_path / "nothing")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--port", str(viewer.server_port)]) == 2
    assert "cannot be served at" in capsys.readouterr().err

    def interrupted(self: Viewer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Viewer, "serve_forever", interrupted)
    assert main(["view", str(tmp_path)]) == 0
    assert "open http://127.0.0.1:" in capsys.readouterr().out
