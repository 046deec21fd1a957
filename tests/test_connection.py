"""Before a run: a server that is not there, a name that it does not know, a key that lacks, a proxy in between."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from servers import AT_ONCE, Server
from worlds import PIT, pit_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.cli.main import main
from leafe_graph.errors import ConfigError, MissingDependency, ModelError, NothingPlayed
from leafe_graph.exploration.explore import aexplore, explore
from leafe_graph.models import ready
from leafe_graph.models.connection import told
from leafe_graph.models.load import load_model
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.tree.run_folder import RunFolder

pytest.importorskip("langchain_openai", reason='these tests need pip install ".[openai]"')


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor keys of this machine's."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@pytest.fixture
def nowhere() -> str:
    """An address of this machine at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def play(model: Any, out: Path, **settings: Any) -> RunFolder:
    """One branch in the pit."""
    how: Any = {"out": out, "retry": AT_ONCE, "checkpointer": InMemorySaver(), "limits": Limits(max_branches=1)}
    return explore(model, GridWorld, [PIT], **how | settings)


def test_address_at_which_nothing_listens_is_told_at_once(nowhere: str, tmp_path: Path) -> None:
    """With the address and the cause, and before anything is written; from Python, bound, awaited, as a reflector."""
    spec, well = f"vllm:m@{nowhere}", ScriptedModel(reply=pit_reply)
    for model, more in ((spec, {}), (load_model(spec).bind(stop=["x"]), {}), (well, {"reflector": spec})):
        with pytest.raises(ModelError, match=rf"server of m cannot be reached.*{nowhere}/models: .*refused"):
            play(model, tmp_path / "run", **more)
    with pytest.raises(ModelError, match="cannot be reached"):
        asyncio.run(aexplore(spec, GridWorld, [PIT], out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["explore", "eval"])
def test_command_line_says_in_a_line_that_nothing_listens(
    command: str, nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, no folder."""
    assert main([command, "--model", f"vllm:m@{nowhere}", "--tasks", "1", "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert nowhere in line and "refused" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9", "localhost:8000/v1", "http://", "http://a/v1,b:80/v1", "ftp://a/v1"]
)
def test_address_that_is_none_is_refused(address: str) -> None:
    """Before anything is asked, in a spec and as base_url, one of several too."""
    with pytest.raises(ConfigError, match=r"expected http://HOST:PORT/v1"):
        load_model(f"vllm:m@{address}")
    with pytest.raises(ConfigError, match=r"expected http://HOST:PORT/v1"):
        load_model("openai:m", base_url=address, api_key="k")


def test_name_that_the_server_does_not_know_is_told_with_those_it_does(tmp_path: Path) -> None:
    """Only where it answers 404 for it: some servers answer to names that they do not list."""
    with Server(lambda n: 404, lists=["other", "another"]) as server:
        with pytest.raises(ConfigError, match=rf"{server.url} does not know the model 'm': it serves other, another"):
            play(server.model, tmp_path / "run")
        assert len(server.requests) == 1
    with Server(lambda n: 404, lists=404) as server, pytest.raises(ConfigError, match="does not know the model 'm'"):
        play(server.model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with Server(lambda n: None if n else "empty", lists=["m:latest"]) as server:
        assert play(server.model, tmp_path / "run").branches[0]["end"] == "failure"
    with Server(lists=["m"]) as one, Server(lambda n: 404, lists=["other"]) as two:
        model = load_model(f"vllm:m@{one.url},{two.url}")
        with pytest.raises(ConfigError, match=rf"{two.url} does not know the model 'm'"):
            ready.check_model(model)  # two is not down, so it would get requests
    with Server(lists=["m"]) as server:
        run = play(server.model, tmp_path / "listed")
        assert len(server.requests) == run.cost["model_calls"]  # nothing was asked besides


def test_missing_or_refused_key_is_told(tmp_path: Path) -> None:
    """OPENAI_API_KEY is named."""
    with pytest.raises(ConfigError, match="model 'openai:gpt' has no key: set OPENAI_API_KEY"):
        load_model("openai:gpt")
    with Server(lists=401) as server, pytest.raises(ConfigError, match=r"refuses the key .*: set OPENAI_API_KEY"):
        play(server.model, tmp_path / "run")


@pytest.mark.parametrize("lists", [503, 429, 500, ["m"], []])
def test_server_that_is_not_well_yet_keeps_its_retries(lists: Any, tmp_path: Path) -> None:
    """It listens: what a first call meets is tried again, as in the middle of a run."""
    looks = lists == []
    with Server(["silence"] * looks + [503, "silence"], lists=lists) as server:
        run = play(server.model, tmp_path)
    assert (run.branches[0]["end"], run.cost["model_calls"]) == ("failure", len(server.requests) - looks)


def test_server_that_hangs_is_left_to_the_runs_own_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look before the run waits for it only so long."""
    monkeypatch.setattr(ready, "SOON", 0.2)
    with Server(lambda n: "hang" if not n else None, lists=[]) as server:
        assert play(server.model, tmp_path).branches[0]["end"] == "failure"
        assert server.requests[0]["max_tokens"] == 1


def test_model_that_can_only_be_asked_in_an_event_loop_is_not_looked_at(nowhere: str) -> None:
    """A key that is awaited leaves no synchronous client."""
    from langchain_openai import ChatOpenAI

    async def key() -> str:
        return "k"

    model = ChatOpenAI(model="m", base_url=nowhere, api_key=key)
    assert model.root_client is None
    ready.check_model(model)


@pytest.mark.parametrize("bound", [{}, {"stop": ["x"]}])
def test_model_with_a_fallback_may_lack_its_first_server(bound: Any, nowhere: str, tmp_path: Path) -> None:
    """That is what the fallback is for; whether something is bound to the first one changes nothing."""
    first = load_model(f"vllm:m@{nowhere}")
    model = (first.bind(**bound) if bound else first).with_fallbacks([ScriptedModel(reply=pit_reply)])
    assert play(model, tmp_path).branches[0]["end"] == "failure"


def test_run_that_is_finished_needs_no_server(tmp_path: Path) -> None:
    """The same call again gives it back."""
    with Server() as server:
        first = play(server.model, tmp_path)
    assert play(server.model, tmp_path).branches == first.branches


def test_of_several_servers_one_may_be_down(nowhere: str, tmp_path: Path) -> None:
    """It is left out while it is; all of them down is told."""
    with Server() as server:
        assert play(f"vllm:m@{nowhere},{server.url}", tmp_path / "one").branches[0]["end"] == "failure"
    with pytest.raises(ModelError, match="cannot be reached"):
        play(f"vllm:m@{nowhere},{nowhere}", tmp_path / "both")


@pytest.mark.parametrize("proxy", [{"HTTP_PROXY": "http://127.0.0.1:9"}, {"ALL_PROXY": "socks5://127.0.0.1:9"}])
@pytest.mark.parametrize("servers", [1, 2])
def test_server_on_this_machine_is_asked_without_the_proxy(
    proxy: dict[str, str], servers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `leafe serve` asks its own."""
    for name, value in proxy.items():
        monkeypatch.setenv(name, value)
    with Server() as server:
        spec = f"vllm:m@{','.join([server.url] * servers)}"
        assert play(spec, tmp_path).branches[0]["end"] == "failure"
        agent = create_leafe_agent(load_model("openai:m", base_url=server.url, api_key="k"), env=GridWorld)
        assert agent.invoke({"task": PIT})["end"] == "success"


def test_connection_that_fails_through_a_proxy_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variable and without its password: before a run, and on a branch."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    says = r"http://far\.invalid/v1.*refused\) through the proxy http://127\.0\.0\.1:9 of HTTP_PROXY: unset that"
    with pytest.raises(ModelError, match=says):
        play("vllm:m@http://far.invalid/v1", tmp_path)
    agent = create_leafe_agent("vllm:m@http://far.invalid/v1", env=GridWorld, retry=None)
    final = agent.invoke({"task": PIT})
    assert final["end"] == "model_error"
    assert "through the proxy http://127.0.0.1:9 of HTTP_PROXY" in final["error"] and "secret" not in final["error"]
    monkeypatch.setenv("NO_PROXY", "far.invalid")
    with pytest.raises(Exception, match=r"Connection error") as failed:
        load_model("vllm:m@http://far.invalid/v1").invoke("Hi")
    assert "proxy" not in told(failed.value)


@pytest.mark.parametrize("hosts", ["127.0.0.1:9", "127.0.0.1:9/v1,http://me:hunter-2@127.0.0.1:8"])
def test_password_of_an_address_is_not_told(hosts: str, tmp_path: Path) -> None:
    """Neither before a run nor on a branch, whose error is logged."""
    model = f"vllm:m@http://me:hunter-2@{hosts}/v1"
    with pytest.raises(ModelError, match=r"http://me:\[redacted\]@127\.0\.0\.") as before:
        play(model, tmp_path)
    final = create_leafe_agent(model, env=GridWorld, retry=None).invoke({"task": PIT})
    assert "http://me:[redacted]@127.0.0." in final["error"]
    assert "hunter" not in str(before.value) + final["error"]


def test_socks_proxy_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line that says what to install."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(MissingDependency, match=r"through a SOCKS proxy.*pip install socksio"):
        load_model("vllm:m@http://socks.invalid/v1")


def test_branch_that_loses_its_server_says_which(tmp_path: Path) -> None:
    """The error has the address: several may be in play."""
    with Server(lambda n: "silence" if n else None) as server, pytest.raises(NothingPlayed, match=server.url):
        play(server.model, tmp_path)


def test_weights_that_cannot_be_loaded_are_told_before_the_run(tiny_model_path: Path, tmp_path: Path) -> None:
    """A local model is loaded first."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model_path.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 50 if file.suffix == ".safetensors" else None])
    with pytest.raises(ConfigError, match=rf"^{broken} cannot be loaded: \w+: [^\n]+$"):
        play(f"local:{broken}", tmp_path / "run")
    assert not (tmp_path / "run").exists()
