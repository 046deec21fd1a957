"""Texts that files and checkpoints cannot hold, in every field that a text can come from."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from postgres import Server
from viewed import viewed
from worlds import PIT, TOLD, is_reflection, pit_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.agent.records import model_message
from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.dataset.export import export, write_jsonl
from leafe_graph.errors import ConfigError, NothingPlayed
from leafe_graph.evaluation.results import Result, result_from_run
from leafe_graph.exploration.explore import explore
from leafe_graph.prompts import Prompts
from leafe_graph.report.page import write_report
from leafe_graph.report.transcript import transcript
from leafe_graph.rounds import loop, read_config
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.text import utf8, utf8_all
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Example, Task

ODD = "\ud83d\0"
"""Half a surrogate pair, and NUL."""
ODD_TASK: Task = {**PIT, "id": f"pit{ODD}", "instruction": f"Walk {ODD}", "options": {**PIT["options"], "note": ODD}}
PROMPTS = Prompts(
    experience=f"{TOLD}{{experience}} {ODD}",
    reflect=f"{ODD} {{steps}} {{status}} Which step was the mistake?",
    failed=f"Failed {ODD}.",
)


class OddWorld(GridWorld):
    """A grid whose every answer holds what cannot be saved."""

    def reset(self, **given: Any) -> tuple[str, dict[str, Any]]:
        """As the grid, and more."""
        observation, info = super().reset(**given)
        return observation + ODD, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the grid, and more."""
        observation, reward, terminated, truncated, info = super().step(action.strip(f" ?{ODD}"))
        return observation + ODD, reward, terminated, truncated, info | {"feedback": info["feedback"] + ODD}


def odd_reply(messages: list[BaseMessage], seed: int | None) -> str:
    """As `pit_reply`, and more; an experience in JSON says it by an escape."""
    reply = pit_reply(messages, seed)
    return reply.replace('"}', '\\ud83d"}') if reply.startswith("{") else f"{reply} {ODD}"


def play(out: Path, **settings: Any) -> RunFolder:
    """A tree of odd texts."""
    how: Any = {"prompts": PROMPTS, "config": {"label": ODD, "model": f"m{ODD}"}, **settings}
    return explore(ScriptedModel(reply=odd_reply), OddWorld, [ODD_TASK], out=out, **how)


def test_no_text_of_any_field_ends_a_run_or_is_lost(tmp_path: Path) -> None:
    """Task, instruction, options, prompts, observations, feedback, replies and names: played, saved, and read back."""
    run = play(tmp_path)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert RunFolder(tmp_path).branches == run.branches == utf8_all(run.branches)
    assert run.branches[1]["task"] == utf8_all(ODD_TASK)
    assert run.settings.tasks == ["pit??"] and run.settings.texts["failed"] == "Failed ??."
    again = play(tmp_path)
    assert again.branches == run.branches and again.cost == run.cost


def test_odd_texts_are_exported_alike_to_every_file(tmp_path: Path) -> None:
    """JSONL and Parquet hold the same rows; report and transcript are text."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='pip install ".[train]"')
    run = play(tmp_path)
    summary = export(run)
    assert summary.counterfactual == 1
    folder = tmp_path / "examples"
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()]
    table = parquet.read_table(folder / "examples.parquet").to_pylist()
    lacking = dict.fromkeys(Example.__optional_keys__)  # tables have every column
    assert [lacking | row for row in rows] == table == utf8_all(table)
    assert rows[0]["task_id"] == "pit??" and rows[0]["prompt"][0]["content"] == "Walk ??"
    assert viewed(write_report(run))[1]["pit??"]["task"]["instruction"] == "Walk ??"
    assert transcript(run.branches).encode()


def test_log_of_other_hands_is_exported_and_shown(tmp_path: Path) -> None:
    """A JSON escape brings half a pair into a log past every door; files say it as "?" all the same."""
    run = play(tmp_path)
    log = tmp_path / "branches.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace("Walk ??", "Walk \\ud83d"), encoding="utf-8")
    assert RunFolder(tmp_path).branches[0]["task"]["instruction"] == "Walk \ud83d"
    export(tmp_path)
    assert '"Walk ?"' in (tmp_path / "examples" / "examples.jsonl").read_text(encoding="utf-8")
    assert viewed(write_report(RunFolder(tmp_path)))[1]["pit??"]["task"]["instruction"] == "Walk ?"
    assert run.branches


def test_names_of_policies_and_settings_of_results(tmp_path: Path) -> None:
    """An argument that is no UTF-8 reaches Python as half a pair."""
    run = play(tmp_path / "run", strategy="independent")
    result = result_from_run(run, policy=f"tuned {ODD}", n=len(run.branches))
    file = result.save(tmp_path / "result.json")
    assert Result.load(file).policy == result.policy == "tuned ??"


def test_ids_that_differ_in_such_texts_alone_are_not_unique(tmp_path: Path) -> None:
    """They would be one task in every file."""
    twins: list[Task] = [{**PIT, "id": "a\ud83d"}, {**PIT, "id": "a\ud83e"}]
    with pytest.raises(ConfigError, match=r"more than one task is called a\?"):
        explore(ScriptedModel(reply=["up"]), GridWorld, twins, out=tmp_path)


def test_an_agent_plays_odd_texts_in_place() -> None:
    """Also where the task is a plain text."""
    agent = create_leafe_agent(ScriptedModel(reply=odd_reply), env=OddWorld, prompts=PROMPTS)
    final = agent.invoke({"task": ODD_TASK})
    assert final["end"] == "success"
    assert utf8_all(final) == final


def test_error_whose_words_cannot_be_saved_ends_its_branch(tmp_path: Path) -> None:
    """Of the environment, the model or the reflector."""

    class Raises(OddWorld):
        def step(self, action: str) -> Any:
            raise ValueError(ODD)

    def silent(messages: list[BaseMessage], seed: int | None) -> str:
        raise ValueError(ODD)

    def uncritical(messages: list[BaseMessage], seed: int | None) -> str:
        return silent(messages, seed) if is_reflection(messages) else odd_reply(messages, seed)

    for env, reply in ((Raises, odd_reply), (OddWorld, silent)):
        with pytest.raises(NothingPlayed, match=r"ValueError: \?\?"):  # since it is so in every branch
            explore(ScriptedModel(reply=reply), env, [PIT], out=tmp_path / reply.__name__, retry=None)
        run = RunFolder(tmp_path / reply.__name__)
        assert {branch["error"] for branch in run.branches} == {"ValueError: ??"}
    run = explore(ScriptedModel(reply=uncritical), OddWorld, [PIT], out=tmp_path / "uncritical", retry=None)
    assert (run.branches[0]["end"], run.branches[0]["error"]) == ("failure", "ValueError: ??")


def test_rounds_are_gone_on_with_whatever_their_names_hold(tmp_path: Path) -> None:
    """YAML has escapes, and file names need be no UTF-8."""
    (tmp_path / "f.yaml").write_text('model: local:m\neval: {prompts: "\\ud83d:\\0"}\n')
    config = read_config(tmp_path / "f.yaml", {"out": str(tmp_path)})
    for _ in range(2):
        loop._claim(config, {})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["eval"]["prompts"] == "?:?"


def test_demonstrations_are_rows_that_can_be_written(tmp_path: Path) -> None:
    """An expert's task and actions come from anywhere."""

    def expert(task: Task) -> list[str]:
        return [f"{word} {ODD}" for word in ("down", "right", "right", "up")]

    rows = demonstrate(OddWorld, [ODD_TASK], expert, mistakes=1)
    write_jsonl(rows, tmp_path / "rows.jsonl")
    read = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert read == utf8_all(rows) and read[0]["task_id"] == "pit??"


def test_postgresql_keeps_decision_points_of_odd_texts(tmp_path: Path, postgres_server: Server) -> None:
    """It refuses NUL in texts, and keeps short ones in JSON."""
    run = play(tmp_path, checkpointer=postgres_server.new_database())
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]


def test_tool_calls_of_odd_texts_can_be_saved() -> None:
    """Names and arguments too."""
    said = model_message(AIMessage("", tool_calls=[{"name": f"go{ODD}", "args": {ODD: [ODD, 1]}, "id": "1"}]))
    assert said == {"content": "", "tool_calls": [{"name": "go??", "args": {"??": ["??", 1]}}]}


def test_utf8_changes_nothing_that_can_be_saved() -> None:
    """Whole pairs, other control characters, and what is no text."""
    value = {"a": ["née 🙂\u2028\x85\r\n\x1b", ("x", 1, None, b"\0")]}
    assert utf8_all(value) == value
    assert utf8("\ud83d\ude42") == "??"  # two halves are no pair in Python
