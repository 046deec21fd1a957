"""Trees as OpenTelemetry traces, as a collector gets them."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_explore_agent import explored, ready_made
from trees import branch, run_folder, turn
from worlds import LESSON, PIT, pit_reply

from leafe_graph import ConfigError, LeafeError, Limits, MissingDependency, Prompts, RunFolder, explore, trace
from leafe_graph.cli.main import main
from leafe_graph.clock import since
from leafe_graph.models.spec import called
from leafe_graph.phases.config import EvalConfig
from leafe_graph.phases.evaluate import run_eval
from leafe_graph.rounds.config import RunConfig
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.tracing import Tracing, unsent
from leafe_graph.types import Branch

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason='pip install ".[otel]"')
from otlp_collector import OtlpCollector, messages

SECRET = "sk-ant-api03-Zx81jQ0aV7Lw2Rk5Tn9Y"
LIMITS = Limits(max_branches=2)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    """One that takes all."""
    with OtlpCollector() as collector:
        yield collector


def pit(out: Path, **more: Any) -> RunFolder:
    """A task that is lost, rewound and won."""
    return explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=out, limits=LIMITS, **more)


def timed(each: Branch) -> Branch:
    """The branch with moments, as if it had been played a second ago."""
    span = since(time.time() - 1)
    turns: Any = [made | {"time": span, "message": made["message"] | {"time": span}} for made in each["turns"]]
    return {**each, "turns": turns, "time": span}


def test_a_tree_is_a_trace_whose_spans_are_the_logs(tmp_path: Path, collector: OtlpCollector) -> None:
    """Task, branches in it, and in each its calls and steps; with the log's moments and tokens, and what was asked."""
    run = pit(tmp_path / "run", trace_to=collector.url)
    lost, won = run.branches
    spans = collector.spans
    assert len({span["trace"] for span in spans}) == 1 and collector.paths == ["/v1/traces"] * 2
    assert len({span["id"] for span in spans}) == len(spans)
    (task,) = [span for span in spans if not span["parent"]]
    assert task["name"] == "task pit" and task["leafe.solved"] is True
    first, second = (span for span in spans if span["parent"] == task["id"])
    assert (first["name"], first["leafe.end"]) == ("branch 0", "failure")
    assert (second["name"], second["leafe.end"]) == ("branch 1", "success")
    for span, record in ((first, lost), (second, won)):
        assert [span["start"], span["end"]] == [round(1e6 * record["time"][at]) * 1000 for at in ("started", "ended")]  # type: ignore[literal-required]
        own = [each for each in spans if each["parent"] == span["id"]]
        asked = [each for each in own if each["gen_ai.operation.name"] == "chat" and "leafe.verdict" not in each]
        steps = [each for each in own if each["gen_ai.operation.name"] == "execute_tool"]
        assert [each["leafe.turn"] for each in asked] == [each["leafe.turn"] for each in steps]
        for call, step, made in zip(asked, steps, record["turns"], strict=True):
            assert span["start"] <= call["start"] <= call["end"] <= step["start"] <= step["end"] <= span["end"]
            assert call["gen_ai.usage.output_tokens"] == made["message"]["usage"]["output_tokens"]
            assert messages(call, "output")[0]["parts"] == [{"type": "text", "content": made["message"]["content"]}]
            assert made["observation"] in messages(call, "input")[-1]["parts"][0]["content"]
            assert (call["kind"], step["kind"]) == (3, 1) and json.loads(step["gen_ai.tool.call.arguments"])
        assert all((LESSON in call["gen_ai.input.messages"]) == (span is second) for call in asked)
    (reflected,) = [span for span in spans if "leafe.verdict" in span]
    assert reflected["parent"] == first["id"] and reflected["leafe.experience"] == LESSON
    left = next(span for span in spans if span["parent"] == first["id"] and span["leafe.turn"] == won["decision_point"])
    assert second["links"] == [left["id"]] and left["name"].startswith("chat ")
    assert second["events"]["leafe.rewind"]["leafe.decision_point"] == won["decision_point"]
    assert first["events"]["gen_ai.evaluation.result"]["gen_ai.evaluation.score.label"] == "failure"


def test_what_was_sent_is_not_sent_again_and_has_the_same_ids(tmp_path: Path, collector: OtlpCollector) -> None:
    """Whoever goes on with a run sends what is new; a trace that is wanted again is the same trace."""
    run = pit(tmp_path / "run", trace_to=collector.url)
    before = collector.spans
    pit(run.folder, trace_to=collector.url)
    assert trace(run, collector.url) == 0 and collector.spans == before
    (run.folder / "traced.jsonl").unlink()
    assert trace(run.folder, collector.url + "/v1/traces") == 2
    assert collector.spans == before * 2


def test_branches_that_come_later_join_the_trace(tmp_path: Path, collector: OtlpCollector) -> None:
    """As children of a task that is there; of a try that was played again, too, no two spans have an id."""
    failed = timed(branch("0", [], "model_error"))
    first = timed(branch("0", [turn("o", "up"), turn("p", "left")], "failure"))
    forked = timed(branch("1", [turn("p", "down")], "success", parent="0", at=1, experience="Go down."))
    run = run_folder(tmp_path, [failed, first])
    assert trace(run, collector.url) == 2
    with open(tmp_path / "branches.jsonl", "a") as log:
        log.write(json.dumps(forked) + "\n")
    assert trace(run, collector.url) == 1
    spans = collector.spans
    assert max(Counter(span["id"] for span in spans).values()) == 1
    names = {span["name"]: span for span in spans if "leafe.turn" not in span}
    assert names["branch 1"]["parent"] == names["task t"]["id"] and names["branch 1"]["links"]
    assert [span["failed"] for span in spans if span["name"] == "branch 0"] == [True, False]


def test_a_collector_that_is_away_loses_nothing(
    tmp_path: Path, collector: OtlpCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is played and logged; its last words tell how to send what was not, and a command does."""
    collector.status = 400
    run = pit(tmp_path / "run", trace_to=collector.url)
    assert len(run.branches) == 2 and not collector.bodies
    assert main(["trace", str(run.folder), "--to", collector.url]) == 2
    told = capsys.readouterr().err
    assert "did not take the traces of task 'pit'" in told and "400" in told
    collector.status = 200
    assert main(["trace", str(run.folder), "--to", collector.url]) == 0
    assert "2 branches" in capsys.readouterr().out and len(collector.bodies) == 2


def test_what_an_exporter_of_others_says_is_logged(
    tmp_path: Path, collector: OtlpCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that is traced itself hears of its own failures while a run is sent."""
    run, said = pit(tmp_path / "run"), logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with Tracing(run, collector.url) as tracing, Tracing(run, collector.url + "/other") as second:
        assert tracing.send("pit") == 2
        other = threading.Thread(target=said.error, args=("theirs",))
        other.start()
        other.join()
        collector.status = 400
        with pytest.raises(LeafeError, match="code: 400"):
            second.send("pit")
    assert [record.message for record in caplog.records] == ["theirs"]


def test_a_tree_that_a_collector_refuses_holds_up_no_other(
    tmp_path: Path, collector: OtlpCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither while a run is played nor afterwards; it alone is told of."""
    collector.refused = b"task pit0"
    tasks = [{**PIT, "id": f"pit{number}"} for number in range(3)]
    more: Any = {"limits": LIMITS, "concurrency": 1, "trace_to": collector.url}
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, tasks, out=tmp_path / "run", **more)
    assert {span["name"] for span in collector.spans if not span["parent"]} == {"task pit1", "task pit2"}
    assert "1 trees were not sent" in caplog.text
    (run.folder / "traced.jsonl").unlink()
    collector.bodies.clear()
    with pytest.raises(LeafeError, match="did not take the traces of task 'pit0'"):
        trace(run, collector.url)
    assert {span["name"] for span in collector.spans if not span["parent"]} == {"task pit1", "task pit2"}


def test_who_stops_a_run_does_not_wait_for_its_traces(tmp_path: Path, collector: OtlpCollector) -> None:
    """Of a collector that takes its time: what is being sent is the last; another call sends the rest."""
    branches = [timed(branch("0", [turn("o", "up")], "failure", task=f"t{number}")) for number in range(4)]
    run = run_folder(tmp_path, branches)
    collector.answers.clear()

    async def stopped() -> None:
        async with Tracing(run, collector.url) as tracing:
            for task in run.trees:
                tracing.finished(task)
            await asyncio.to_thread(collector.asked.wait)
            asyncio.get_running_loop().call_soon(collector.answers.set)  # once nobody but the collector is waited for
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert len(collector.bodies) == 1 and unsent(run, collector.url)
    assert trace(run, collector.url) == 3 and not unsent(run, collector.url)


def test_what_was_judged_is_kept_until_it_is_sent(tmp_path: Path, collector: OtlpCollector) -> None:
    """Samples that are not to be kept are what the command that sends the rest reads."""
    given: Any = {"model": "python:test_tracing:loses", "env": "sokoban", "tasks": 1, "samples": 1, "max_turns": 2}
    config = EvalConfig(out=tmp_path / "judged", keep_samples=False, trace_to=collector.url, **given)
    collector.status = 400
    run_eval(config)
    assert len(RunFolder(config.out).branches) == 1
    collector.status = 200
    run_eval(config)
    assert collector.spans and not config.out.exists()


def loses() -> ScriptedModel:
    """A policy that goes up."""
    return ScriptedModel(reply=lambda messages, seed: "up")


def test_a_long_branch_is_sent_in_parts(
    tmp_path: Path, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collectors refuse requests that are too large."""
    run = pit(tmp_path / "run", trace_to=collector.url)
    whole, requests = collector.spans, len(collector.bodies)
    (run.folder / "traced.jsonl").unlink()
    monkeypatch.setattr("leafe_graph.tracing.otlp.PART", 1000)
    collector.bodies.clear()
    assert trace(run, collector.url) == 2
    assert len(collector.bodies) > requests and collector.spans == whole


def test_opentelemetry_that_is_switched_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would be sent, and all be noted as sent."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.raises(ConfigError, match="OTEL_SDK_DISABLED"):
        pit(tmp_path / "run", trace_to="http://127.0.0.1:4318")
    assert not (tmp_path / "run").exists()


def test_secrets_are_no_part_of_a_trace(
    tmp_path: Path, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a world showed or a model said; headers come from OpenTelemetry's variables, names of folders do not."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=trees")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    told = timed(branch("0", [turn(f"the key is {SECRET}", f"use {SECRET}")], "failure", experience=SECRET))
    told["reflections"] = [
        {"turn": 1, "verdict": "rewind", "decision_point": 0, "experience": SECRET, "raw": SECRET, "time": since(1.0)}
    ]
    texts = Prompts().texts | {"step": f"{SECRET} {Prompts().step}"}
    told["turns"] *= 2
    run = run_folder(tmp_path / "run", [told], model="local:/home/me/models/ours", texts=texts)
    assert trace(run, collector.url) == 1
    assert collector.headers[0]["x-team"] == "trees"
    sent = b"".join(collector.bodies)
    assert SECRET.encode() not in sent and b"/home/me" not in sent and sent.count(b"[redacted]") >= 5
    spans = collector.spans
    assert {span.get("gen_ai.request.model", "ours") for span in spans} == {"ours"}
    assert collector.resource["service.name"] == "ours"


@pytest.mark.parametrize(
    "model, told",
    [
        ("local:/home/me/ours/", ("local", "ours")),
        ("vllm:/home/me/ours@http://10.0.0.3:8000/v1", ("vllm", "ours")),
        ("vllm:Qwen/Qwen3-8B@http://10.0.0.3:8000/v1", ("vllm", "Qwen/Qwen3-8B")),
        ({"class": "LocalChatModel", "path": "/home/me/ours"}, ("LocalChatModel", "ours")),
        ({"class": "ChatOpenAI", "model_name": "gpt-4.1"}, ("ChatOpenAI", "gpt-4.1")),
    ],
)
def test_others_are_told_a_models_name_without_its_place(model: Any, told: tuple[str, str]) -> None:
    """Neither folders nor servers."""
    assert called(model) == told


def test_whole_agents_are_told_with_their_tools(tmp_path: Path, collector: OtlpCollector) -> None:
    """Each call with its own messages, the tools that it had, and the calls that it asked for."""
    explored(tmp_path / "run", ready_made, trace_to=collector.url)
    calls = [span for span in collector.spans if span["name"].startswith("chat ")]
    assert {tool["function"]["name"] for tool in json.loads(calls[0]["gen_ai.tool.definitions"])} == {"look", "take"}
    parts = [part for call in calls for told in messages(call, "output") for part in told["parts"]]
    assert {part["name"] for part in parts if part["type"] == "tool_call"} == {"look", "take"}
    answers = [part for part in messages(calls[-1], "input")[-1]["parts"]]
    assert answers[0]["type"] == "tool_call_response" and answers[0]["response"].startswith("You have")


def test_a_log_without_times_is_no_trace(
    tmp_path: Path, collector: OtlpCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody makes up when it was."""
    run = run_folder(tmp_path, [branch("0", [turn("o", "up")], "failure")])
    assert main(["trace", str(run.folder), "--to", collector.url]) == 0
    assert "0 branches" in capsys.readouterr().out and not collector.bodies


def test_a_run_of_an_earlier_release_that_goes_on_has_whole_traces(tmp_path: Path, collector: OtlpCollector) -> None:
    """A task whose first branches have no moments is sent with the first one that has."""
    old, new = (branch("0", [turn("o", "up")], "failure", task=task) for task in ("old", "new"))
    run = run_folder(tmp_path, [old, timed(new)])
    assert trace(run, collector.url) == 1
    with open(tmp_path / "branches.jsonl", "a") as log:
        log.write(json.dumps(timed(branch("1", [turn("o", "down")], "success", task="old"))) + "\n")
    assert trace(run, collector.url) == 1
    names = {span["name"]: span for span in collector.spans}
    assert names["branch 1"]["parent"] == names["task old"]["id"] and names["task old"]["leafe.solved"]


@pytest.mark.parametrize("to", ["127.0.0.1:4318", "file:///tmp/x", "http://", "http://[::1"])
def test_what_is_no_address_is_refused_before_anything_is_played(to: str, tmp_path: Path) -> None:
    """In a line, and no folder is left."""
    with pytest.raises(ConfigError, match=r"expected the address of an OpenTelemetry collector, http://HOST:PORT"):
        pit(tmp_path / "run", trace_to=to)
    assert not (tmp_path / "run").exists()


def test_without_opentelemetry_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is played."""
    monkeypatch.delitem(sys.modules, "leafe_graph.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingDependency, match="otel"):
        pit(tmp_path / "run", trace_to="http://127.0.0.1:4318")
    assert not (tmp_path / "run").exists()


def test_a_file_of_rounds_says_it_once_and_a_run_goes_on_without(tmp_path: Path) -> None:
    """For exploring and judging alike; it is no setting of what is found."""
    config = RunConfig(model="local:x", out=tmp_path, env="sokoban", trace_to="http://127.0.0.1:1")  # type: ignore[call-arg]
    assert config.explore.trace_to == config.eval.trace_to == "http://127.0.0.1:1"
    assert "127.0.0.1" not in json.dumps(config.kept_settings())


@pytest.mark.skipif(
    "LEAFE_MLFLOW" not in os.environ, reason="LEAFE_MLFLOW names no `mlflow` command (pip install mlflow)"
)
def test_mlflow_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tracking server shows a trace with the spans of the tree, their parents and the tokens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, store = f"http://127.0.0.1:{port}", f"sqlite:///{tmp_path}/mlflow.db"
    command = [os.environ["LEAFE_MLFLOW"], "server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--backend-store-uri", store, "--workers", "1"], cwd=tmp_path) as server:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-mlflow-experiment-id=0")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
            run = pit(tmp_path / "run")
            assert trace(run, url) == 2
            place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
            (found,) = answered(f"{url}/api/3.0/mlflow/traces/search", {"locations": [place]})["traces"]
            whole = answered(f"{url}/api/3.0/mlflow/traces/get?trace_id={found['trace_id']}")["trace"]
        finally:
            server.terminate()
    spent = json.loads(found["trace_metadata"]["mlflow.trace.tokenUsage"])
    assert (spent["input_tokens"], spent["output_tokens"]) == (run.cost["prompt_tokens"], run.cost["completion_tokens"])
    names = {span["span_id"]: span["name"] for span in whole["spans"]}
    parents = Counter((names.get(span.get("parent_span_id")), span["name"]) for span in whole["spans"])
    assert parents[None, "task pit"] == parents["task pit", "branch 0"] == parents["task pit", "branch 1"] == 1
    assert parents["branch 0", "execute_tool step"] == len(run.branches[0]["turns"])
    assert sum(parents.values()) == 1 + 2 + 2 * sum(len(each["turns"]) for each in run.branches) + 1


def answered(url: str, asked: dict[str, Any] | None = None) -> Any:
    """The JSON that comes from there."""
    body = None if asked is None else json.dumps(asked).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)
