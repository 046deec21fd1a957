"""The attempts of an agent that goes back in place are branches of a run folder, and rows are made of them."""

import gc
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from agents import calls
from langgraph.checkpoint.memory import InMemorySaver
from test_middleware import ASK, TIP, Seeker, reflection, reflector

from leafe_graph import ConfigError, RunFolder, export
from leafe_graph.cli.main import main
from leafe_graph.env.worlds import STATELESS, PyObject
from leafe_graph.testing import ScriptedModel


@pytest.fixture(params=["end", "on the way"])
def recorded(request: Any, tmp_path: Path) -> RunFolder:
    """A run in which an attempt failed, or was left in its middle, and the next one did not."""
    if request.param == "end":
        seeker = Seeker(record=tmp_path / "run")
    else:
        seeker = Seeker(record=tmp_path / "run", reflect_every=1, reflector=reflector(0, None))
    seeker.agent().invoke(ASK)
    return RunFolder(tmp_path / "run")


def test_each_attempt_is_a_branch(recorded: RunFolder) -> None:
    """With what was asked and answered, without the experience in it."""
    failed, solved = recorded.branches
    assert failed["end"] in ("failure", "rewound") and solved["end"] == "success"
    assert (solved["parent"], solved["decision_point"], solved["experience"]) == ("0", 0, TIP)
    assert solved["task"]["instruction"] == "Find the key."
    assert failed["reflection"] is not None and failed["reflection"]["verdict"] == "rewind"
    first, second = solved["turns"]
    assert first["message"]["tool_calls"] == [{"name": "search", "args": {"place": "cellar"}}]
    assert first["node"] == "model" and first["request"]["tools"][0]["function"]["name"] == "search"
    assert (first["feedback"], second["message"]["content"]) == ("cellar: key", "I have searched the cellar.")
    assert TIP not in str(solved["turns"]) and (solved["return_"], failed["return_"]) == (1.0, 0.0)
    assert solved["cost"]["model_calls"] == 2 + len(solved["reflections"])
    for each in (failed, solved):
        asked = [*(made["message"] for made in each["turns"]), *each["reflections"]]
        assert each["cost"]["completion_tokens"] == sum(call["usage"]["output_tokens"] for call in asked)


def test_rows_are_made_of_them(recorded: RunFolder, tmp_path: Path) -> None:
    """The revised call of the branch that succeeded, with the tools."""
    export(recorded, out=tmp_path / "rows")
    lines = (line for file in (tmp_path / "rows").glob("*.jsonl") for line in file.read_text().splitlines())
    rows = [json.loads(line) for line in lines]
    revised = [row for row in rows if row["kind"] == "counterfactual"]
    called = [call["function"] for row in revised for call in row["completion"][0]["tool_calls"]]
    assert called == [{"name": "search", "arguments": {"place": "cellar"}}]


def test_secrets_are_not_recorded(tmp_path: Path) -> None:
    """Neither in what tools answered, nor in what was asked, nor in the experience."""
    key = "ghp_" + "a1B2" * 10
    seeker = Seeker(record=tmp_path / "run", reflector=ScriptedModel(reply=[reflection(0, f"{TIP} with {key}")]))
    plain = seeker.search

    def search(place: str) -> str:
        """Search a place."""
        return f"{plain(place)} {key}"

    seeker.search = search  # type: ignore[method-assign]
    seeker.agent().invoke({"messages": [("user", f"Find the key {key}.")]})
    written = (tmp_path / "run" / "branches.jsonl").read_text()
    assert key not in written and "[redacted]" in written
    assert len(RunFolder(tmp_path / "run").branches) == 2


@pytest.mark.parametrize("torn", [False, True])
def test_the_next_process_goes_on_with_the_decisions_of_one_that_died(torn: bool, tmp_path: Path) -> None:
    """They are in a file until their turn is over; a line that was not finished is a decision that is made again."""
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    settings: Any = {"worlds": STATELESS, "record": tmp_path / "run"}
    seeker = Seeker(**settings)
    seeker.agent(checkpointer=saver, interrupt_after=["tools"]).invoke(ASK, thread)
    (file,) = (tmp_path / "run" / "open_turns").iterdir()
    assert "attic" in file.read_text()
    if torn:
        with file.open("ab") as half:
            half.write('{"t": 1, "turn": {"observation": "é'.encode()[:-1])
    next_one = Seeker(**settings)
    next_one.house["searched"].append("attic")
    next_one.middleware.rewinder.judge = lambda state, runtime: "cellar" in state["messages"][-1].text
    next_one.agent(checkpointer=saver).invoke(None, thread)
    failed, solved = RunFolder(tmp_path / "run").branches
    assert (failed["end"], solved["end"]) == ("failure", "success")
    assert [turn["action"] for turn in failed["turns"]] == [
        '{"args": {"place": "attic"}, "name": "search"}',
        "I have searched: attic: nothing",
    ]
    assert list((tmp_path / "run" / "open_turns").iterdir()) == []


def test_a_turn_that_nobody_goes_on_with_leaves_nothing(tmp_path: Path) -> None:
    """The user's next turn lets go of its decisions."""
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    settings: Any = {"worlds": STATELESS, "judge": lambda state, runtime: True, "record": tmp_path / "run"}
    Seeker(**settings).agent(checkpointer=saver, interrupt_after=["tools"]).invoke(ASK, thread)
    Seeker(**settings).agent(checkpointer=saver).invoke(ASK, thread)
    assert len(RunFolder(tmp_path / "run").branches) == 1
    assert list((tmp_path / "run" / "open_turns").iterdir()) == []


def test_an_attempt_that_is_not_whole_is_not_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where some of its decisions are gone; nothing that has no parent is in the folder."""
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    settings: Any = {"worlds": STATELESS, "judge": lambda state, runtime: True, "record": tmp_path / "run"}
    Seeker(**settings).agent(checkpointer=saver, interrupt_after=["tools"]).invoke(ASK, thread)
    shutil.rmtree(tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        Seeker(**settings).agent(checkpointer=saver).invoke(None, thread)
    assert "an attempt is not recorded" in caplog.text
    assert RunFolder(tmp_path / "run").branches == []


def test_agents_that_are_made_anew_share_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a server does for every run; other settings are refused as ever, a folder that was removed is made anew."""
    folder = tmp_path / "run"
    seekers = [Seeker(record=path) for path in (folder, tmp_path / "there" / ".." / "run")]
    for seeker in seekers:
        seeker.agent().invoke(ASK)
    assert [branch["end"] for branch in RunFolder(folder).branches] == 2 * ["failure", "success"]
    with pytest.raises(ConfigError, match="reflect_every"):
        Seeker(record=folder, reflect_every=7).agent().invoke(ASK)
    shutil.rmtree(folder)
    seekers[0].house["searched"].clear()
    seekers[0].agent().invoke(ASK)
    assert [branch["end"] for branch in RunFolder(folder).branches] == ["failure", "success"]
    assert caplog.records == []


def test_an_agent_made_anew_goes_on_where_a_person_was_asked(tmp_path: Path) -> None:
    """The first one's decisions are recorded with its own."""
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    house: dict[str, list[str]] = {"searched": []}

    def agent(**how: Any) -> Any:
        seeker = Seeker(worlds=lambda runtime: [PyObject(house)], record=tmp_path / "run", judge=lambda *_: True)
        seeker.house = house
        return seeker.agent(checkpointer=saver, **how)

    agent(interrupt_after=["model"]).invoke(ASK, thread)
    gc.collect()
    agent().invoke(None, thread)
    (branch,) = RunFolder(tmp_path / "run").branches
    assert [turn["message"]["content"] for turn in branch["turns"]] == ["", "I have searched: attic: nothing"]


def test_all_calls_of_a_decision_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once each, with what was said beside them."""
    seeker = Seeker(record=tmp_path / "run", judge=lambda state, runtime: True)
    both = calls(("search", {"place": "attic"}), ("search", {"place": "cellar"}), text="I look in both.")
    seeker.model.reply = [both, "done"]
    seeker.agent().invoke(ASK)
    assert main(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "(said:" not in shown
    for part in ("I look in both.", '"place": "attic"}, "name": "search"', '"place": "cellar"}, "name": "search"'):
        assert shown.count(part) == 1
