"""Trees as verifiers reads them: what is in the file, and what its own code makes of it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_export import lost_and_recovered
from test_formats import read
from tool_trees import flight
from trees import branch, run_folder, turn

from leafe_graph.dataset.export import export
from leafe_graph.types import Branch

READ = """
import json, sys
from pathlib import Path
from verifiers.v1.configs.agent import WireAgentConfig
from verifiers.v1.state import State
from verifiers.v1.task import WireTaskData
from verifiers.v1.trace import Trace
from verifiers.v1.utils.trace_store import read_episodes
print(json.dumps([
    {"task": episode.task.data.id, "turns": episode.num_turns, "traces": [
        {"reward": trace.reward, "ok": trace.ok, "branches": len(trace.branches), "turns": trace.num_turns,
         "truncated": trace.is_truncated, "transcript": trace.transcript, "output": trace.num_output_tokens}
        for trace in episode.traces]}
    for episode in read_episodes(Path(sys.argv[1]), Trace[WireTaskData, State, WireAgentConfig])
]))
"""


def told(out: Path, tree: list[Branch], **settings: Any) -> list[dict[str, Any]]:
    """The episodes of a run."""
    export(run_folder(out / "run", tree, **settings), formats=["verifiers"], kinds=["counterfactual", "rehearsal"])
    return read(out / "run/examples/verifiers/traces.jsonl")


def test_a_branch_is_a_trace_in_which_what_it_said_is_sampled(tmp_path: Path) -> None:
    """Each answer in one trace, what its parents said before it as context; no prompt shows the experience."""
    tree = lost_and_recovered()
    (episode,) = told(tmp_path, tree)
    assert episode["task"]["data"]["id"] == episode["group"]["id"] == "t"
    assert [trace["rewards"]["return"]["score"] for trace in episode["traces"]] == [each["return_"] for each in tree]
    for record, trace in zip(tree, episode["traces"], strict=True):
        sampled = [node["message"]["content"] for node in trace["nodes"] if node.get("sampled")]
        assert sampled == [made["message"]["content"] for made in record["turns"]]
        assert [trace["nodes"][call["node"]]["message"]["content"] for call in trace["calls"]] == sampled
        assert [node["parent"] for node in trace["nodes"]] == [None, *range(len(trace["nodes"]) - 1)], "one chain"
        assert trace["info"]["leafe"]["experience"] == record["experience"]
        assert not record["experience"] or record["experience"] not in json.dumps(trace["nodes"])


def test_prompts_that_show_fewer_turns_are_branches_of_the_graph(tmp_path: Path) -> None:
    """They begin alike as far as they do."""
    turns = [turn("a", "up"), turn("b", "left"), turn("c", "down")]
    (episode,) = told(tmp_path, [branch("0", turns, "success")], history=0)
    nodes = episode["traces"][0]["nodes"]
    assert [node["parent"] for node in nodes] == [None, 0, 1, 0, 3, 0, 5]
    assert [node["message"]["role"] for node in nodes] == ["system", *["user", "assistant"] * 3]


def test_equal_answers_to_equal_prompts_are_samples_each(tmp_path: Path) -> None:
    """A policy that sees no history and is stuck says the same again; what its parent said is not its own."""
    stuck = [turn("a", "up")] * 3
    (episode,) = told(
        tmp_path, [branch("0", stuck, "max_turns"), branch("1", stuck, "failure", parent="0", at=1)], history=0
    )
    first, second = episode["traces"]
    assert [node["parent"] for node in first["nodes"]] == [None, 0, 1, 1, 1]
    assert [node.get("sampled") for node in first["nodes"]] == [None, None, True, True, True]
    assert [node.get("sampled") for node in second["nodes"]] == [None, None, False, True, True, True]
    assert [call["node"] for call in second["calls"]] == [3, 4, 5]


def test_calls_have_the_numbers_that_their_results_name(tmp_path: Path) -> None:
    """Of agents with tools; a prompt goes on from the answer before it, whatever ids a provider gave."""
    episode = told(tmp_path, flight())[0]
    for trace in episode["traces"]:
        calls = [call for node in trace["nodes"] for call in node["message"].get("tool_calls", ())]
        results = [node["message"] for node in trace["nodes"] if node["message"]["role"] == "tool"]
        assert {each["tool_call_id"] for each in results} <= {call["id"] for call in calls} and results
        assert all(json.loads(call["arguments"]) is not None for call in calls)
        assert trace["nodes"][0]["tools"][0]["name"] == "look"
    roots = [[node["parent"] for node in trace["nodes"]].count(None) for trace in episode["traces"]]
    assert roots == [1, 2], "the writer, who has no tools, was asked with other prompts"


def test_what_failed_has_no_reward(tmp_path: Path) -> None:
    """It says nothing about the policy; and an export without the form leaves none behind."""
    failed = branch("0", [turn("a", "up")], "model_error") | {"error": "ModelError: away"}
    (episode,) = told(tmp_path, [failed, branch("1", [turn("a", "left")], "max_turns")])
    lost, ended = episode["traces"]
    assert (lost["rewards"], lost["ok"], lost["errors"][0]["message"]) == ({"return": None}, False, "ModelError: away")
    assert (ended["ok"], ended["stop_condition"], episode["ok"]) == (True, "max_turns", False)
    export(tmp_path / "run", kinds=["rehearsal"])
    assert not (tmp_path / "run/examples/verifiers/traces.jsonl").exists()


@pytest.mark.skipif("LEAFE_VERIFIERS" not in os.environ, reason="LEAFE_VERIFIERS names no python with verifiers 0.4")
def test_verifiers_reads_it(tmp_path: Path) -> None:
    """Its own reader, models and views, in an environment of its own: it needs another openai than ours."""
    for tree in (lost_and_recovered(), flight()):
        out = tmp_path / str(len(tree[0]["turns"][0]))
        told(out, tree)
        command = [os.environ["LEAFE_VERIFIERS"], "-c", READ, str(out / "run/examples/verifiers")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (episode,) = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(episode, indent=1))
        assert episode["turns"] == sum(len(each["turns"]) for each in tree)
        assert [trace["reward"] for trace in episode["traces"]] == [each["return_"] for each in tree]
        for record, trace in zip(tree, episode["traces"], strict=True):
            asked = {len(made.get("request", {}).get("tools", ())) for made in record["turns"]}
            assert trace["turns"] == len(record["turns"]) and trace["branches"] == len(asked) and trace["ok"]
            assert record["turns"][-1]["message"]["content"] in trace["transcript"]
