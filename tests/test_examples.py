"""The example scripts run."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from agents import calls
from langchain_core.messages import AIMessage
from servers import Scripted
from trees import turn

from leafe_graph import Budget, RunFolder, explore_agent, export
from leafe_graph.importing import attribute
from leafe_graph.prompts import BRIEF, Prompts
from leafe_graph.testing import ScriptedModel
from leafe_graph.types import Task

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str) -> str:
    """An example's output; fails with its error."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_tiny_policy_is_made_from_scratch_and_acts_reflects_and_follows(tmp_path: Path) -> None:
    """On a minute toy ``local:FOLDER`` answers a move, a reflection that rewinds, and a move after an experience."""
    from leafe_graph import create_leafe_agent, load_model
    from leafe_graph.envs import sokoban
    from leafe_graph.envs.sokoban.coordinates import PROMPTS

    toy = ("--levels", "60", "--size", "5", "--boxes", "1", "--min-moves", "2", "--max-moves", "6", "--steps", "150")
    said = run(
        "tiny_policy.py",
        "--out",
        str(tmp_path),
        *toy,
        "--act",
        "16",
        "--width",
        "32",
        "--layers",
        "2",
        "--rate",
        "0.01",
    )
    parameters = int(said.split()[0].replace(",", ""))
    assert parameters < 1_000_000
    assert all(skill in said for skill in ("act", "follow", "reflect"))
    agent = create_leafe_agent(
        load_model(f"local:{tmp_path}", temperature=0),
        env=lambda: sokoban.SokobanEnv(view="coordinates"),
        prompts=PROMPTS,
        max_turns=3,
        max_rewinds=1,
        history=0,
        max_tokens=1,
        experience_turns=1,
        reflect_max_tokens=6,
    )
    (task,) = sokoban.tasks("test", 1, size=5, min_moves=5, max_moves=6)  # more moves than turns: it fails
    state = agent.invoke({"task": task})
    (failed,) = state["abandoned"]
    assert all(turn["action"] in sokoban.ACTIONS for turn in failed["turns"])
    assert failed["reflection"]["experience"].startswith("Do not go ")
    assert state["turns"][-1]["action"] in sokoban.ACTIONS


def test_warm_start_rows_are_ones_the_trainer_takes(tmp_path: Path) -> None:
    """The warm start's demonstrations hold moves, reflections that can be parsed, and followed advice."""
    from leafe_graph.agent.reflection import parse_reflection

    numbers = ("--act-rows", "20", "--follow-rows", "5", "--reflect-rows", "5", "--levels", "20")
    run("sokoban_warm_start.py", "--out", str(tmp_path), "--rows-only", *numbers)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    answers = [row["completion"][0]["content"] for row in rows]
    reflections = [answer for answer in answers if answer.startswith("{")]
    assert len(reflections) == 5
    assert all(parse_reflection(answer, 12)[0] == "rewind" for answer in reflections)
    assert sum("Experience" in row["prompt"][-1]["content"] for row in rows) == 5


@pytest.mark.parametrize("prompts", [Prompts(), BRIEF], ids=["plain", "brief"])
def test_a_random_reflector_blames_any_step_of_the_attempt(prompts: Prompts) -> None:
    """It finds the steps in the prompt that the policy's own reflector gets, and goes by the call's seed."""
    model = attribute(f"examples.random_reflector:{'plain' if prompts == Prompts() else 'brief'}", "model")()
    turns = [turn("at start", "down"), turn("below", "right"), turn("edge", "up")]
    turns[2]["feedback"] = "You fell.\nIt is dark."
    asked = prompts.reflect_messages(Task(id="t", instruction="Walk."), turns, "a pit", "failure")
    messages = [(message["role"], message["content"]) for message in asked]
    said = [json.loads(model.invoke(messages, seed=seed).text) for seed in range(40)]
    assert {each["step"] for each in said} == {0, 1, 2}
    assert said[0] == json.loads(model.invoke(messages, seed=0).text)
    for each in said:
        action = turns[each["step"]]["action"]
        assert each["experience"].startswith(f"{action} -> ")
        assert each["experience"].endswith(f"Do something else at step {each['step']}.")


def test_a_random_reflector_gives_the_advice_that_the_tiny_policy_follows() -> None:
    """In its texts, also of what was no move."""
    prompts = attribute("leafe_graph.envs.sokoban.coordinates:PROMPTS", "prompts")
    model = attribute("examples.random_reflector:coordinates", "model")()
    turns = [turn("P11", "up"), turn("P11", "down")]
    asked = prompts.reflect_messages(Task(id="t", instruction=""), turns, "P12", "max_turns")
    said = {model.invoke(asked[-1]["content"], seed=seed).text for seed in range(20)}
    assert said == {
        '{"experience": "Do not go up", "step": 0}',
        '{"experience": "Do not go down", "step": 1}',
    }


# ---- agents that exist already: a script stands for the model, behind an address as any other


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs an example's command line in this process and folder; its exit code, and the run folder."""
    pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    pytest.importorskip("langchain_openai", reason='pip install ".[openai]"')
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take long to load

    def run(name: str, reply: Any, *arguments: str) -> tuple[int, RunFolder]:
        with Scripted(reply) as server:
            record = ("--record", str(tmp_path / "run"))
            monkeypatch.setattr("sys.argv", [name, "--model", server.model, *record, *arguments])
            return attribute(f"examples.{name}:main", "example")(), RunFolder(tmp_path / "run")

    return run


def rows_of(run: RunFolder, folder: Path, **how: Any) -> list[dict[str, Any]]:
    """What is exported."""
    export(run, out=folder, **how)
    return [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]


def called(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls of a row's completion."""
    made = [call["function"] for message in row["completion"] for call in message.get("tool_calls", [])]
    return [(call["name"], call["arguments"]) for call in made]


SPLIT = "    return [cents // people] * people"
SHOW = '    return f"{cents // 100}.{cents % 100}"'
WRONG = "    return [-(-cents // people)] * people"
RIGHT = "    share, left = divmod(cents, people)\n    return [share + (n < left) for n in range(people)]"
SHOWN = '    sign, cents = "-" * (cents < 0), abs(cents)\n    return f"{sign}{cents // 100}.{cents % 100:02}"'
LESSON = "hand out the rest cent by cent, and mend show as well"


def mender(messages: list[Any]) -> AIMessage:
    """Mends one of two faults, wrongly, and both where it is told; leaves a file and a process behind."""
    text, done = messages[-1].text, sum(message.type == "ai" for message in messages)
    if "Answer with JSON" in text:
        return AIMessage(json.dumps({"step": 1, "experience": LESSON}))
    edits = [(SPLIT, RIGHT), (SHOW, SHOWN)] if LESSON in text else [(SPLIT, WRONG)]
    if done == 0:
        return calls(("shell", {"command": "sleep 1000 & python -m pytest -q; echo $! > notes"}))
    if done == 1:
        edit = [("edit", {"path": "money.py", "old": old, "new": new}) for old, new in edits]
        return calls(*edit, *([] if len(edit) > 1 else [("shell", {"command": "mkdir tmp; date > tmp/wrong"})]))
    return AIMessage("The tests pass.")


def test_the_coding_agent_mends_a_project(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it did wrong first is gone from the folder, what was before is not; its correction is a training row."""
    code, run = example("coding_agent", mender)
    told = capsys.readouterr().out
    assert code == 0 and f"Back to step 1, knowing: {LESSON}" in told and "The tests pass in " in told
    (project,) = tmp_path.glob("*/project")
    assert {file.name for file in project.iterdir()} - {".pytest_cache"} == {"money.py", "test_money.py", "notes"}
    mended = (project / "money.py").read_text()
    assert RIGHT in mended and SHOWN in mended
    failed, solved = run.branches
    assert (failed["end"], solved["end"], solved["decision_point"]) == ("failure", "success", 1)
    assert "2 failed" in failed["turns"][0]["feedback"]
    (row,) = (row for row in rows_of(run, tmp_path / "rows") if row["kind"] == "counterfactual")
    assert [(name, args["new"]) for name, args in called(row)] == [("edit", RIGHT), ("edit", SHOWN)]
    assert LESSON not in json.dumps(row) and {tool["function"]["name"] for tool in row["tools"]} == {"shell", "edit"}


def test_the_coding_agent_takes_a_project_of_ones_own(example: Any, tmp_path: Path) -> None:
    """Tests that pass because they were changed are no success, and the folder is as it was before that."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "test_it.py").write_text("def test_it():\n    assert 1 == 2\n")

    def cheat(messages: list[Any]) -> AIMessage:
        if "Answer with JSON" in messages[-1].text:
            assert "The tests themselves were changed." in messages[-1].text
            return AIMessage('{"step": 0, "experience": "leave the tests alone"}')
        if messages[-1].type == "human" and "leave the tests alone" not in messages[-1].text:
            return calls(("edit", {"path": "test_it.py", "old": "1 == 2", "new": "1 == 1"}))
        return AIMessage("It cannot be mended.")

    code, run = example("coding_agent", cheat, "--project", str(mine))
    assert code == 1 and [branch["end"] for branch in run.branches] == 2 * ["failure"]
    assert "1 == 2" in (mine / "test_it.py").read_text()


def test_the_coding_agents_tools_stay_in_the_project(tmp_path: Path) -> None:
    """No file outside is edited, edits at once all count, and what a command leaves running is ended."""
    pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    folder = tmp_path / "project"
    folder.mkdir()
    project = attribute("examples.coding_agent:Project", "example")(folder)
    assert project.edit("../new.py", "", "x = 1") == "../new.py is not in the project"
    assert project.edit("new.py", "", "x = x") == "new.py is written"
    assert "2 times" in project.edit("new.py", "x", "y") and "0 times" in project.edit("new.py", "", "y")
    assert "cannot be edited" in project.edit(".", "", "x") and "cannot be edited" in project.edit(
        "new.py/other.py", "", "x"
    )
    assert project.shell("echo hello; exit 3") == "exit code 3\nhello\n"
    assert project.shell("sleep 1000 & echo started") == "exit code 0\nstarted\n"  # and it does not wait for it
    assert [file.name for file in tmp_path.rglob("*.py")] == ["new.py"]
    project.edit("words", "", "a b c d")
    at_once = [threading.Thread(target=project.edit, args=("words", word, word.upper())) for word in "abcd"]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert (folder / "words").read_text() == "A B C D"


@pytest.mark.parametrize("name", ["coding_agent", "deep_agent"])
def test_a_model_that_nobody_knows_is_told_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a command line says what is wrong."""
    pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    pytest.importorskip("deepagents")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", [name, "--model", "nonsense:x", "--record", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="2"):
        attribute(f"examples.{name}:main", "example")()
    assert "model 'nonsense:x' cannot be made" in capsys.readouterr().err


SUBTRACT = "subtract what came in"


def office(messages: list[Any]) -> AIMessage:
    """A deep agent whose bookkeeper reads the payments only where somebody says so, to the office or to itself."""
    text, done = messages[-1].text, sum(message.type == "ai" for message in messages)
    if "Answer with JSON" in text:
        steps = re.findall(r"^(\d+)\. .*/invoices", text, flags=re.MULTILINE)
        return AIMessage(json.dumps({"step": int(steps[0]) if steps else 0, "experience": SUBTRACT}))
    if "bookkeeper" in messages[0].text:
        books = ("/invoices.csv", "/payments.csv") if SUBTRACT in text or "paid" in text else ("/invoices.csv",)
        if done == 0:
            return calls(*(("read_file", {"file_path": book}) for book in books))
        seen = sum(message.type == "tool" for message in messages)
        return AIMessage('{"Ada": 1500, "Cyd": 990}' if seen == 2 else '{"Ada": 15000, "Bob": 4500, "Cyd": 990}')
    if done == 0:
        asked = (
            "Which invoices are there, and what is paid of each?" if SUBTRACT in text else "Which invoices are there?"
        )
        return calls(("task", {"description": asked, "subagent_type": "bookkeeper"}))
    if done == 1:
        said = next(message.text for message in reversed(messages) if message.type == "tool")
        return calls(("write_file", {"file_path": "/owed.json", "content": said[: said.index("}") + 1]}))
    return AIMessage("It is written down.")


def test_the_deep_agent_goes_back_to_before_its_subagent(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong file is gone from its state, the subagent is asked anew, and that is a training row."""
    pytest.importorskip("deepagents")
    code, run = example("deep_agent", office)
    told = capsys.readouterr().out
    assert code == 0 and f"Back to step 0, knowing: {SUBTRACT}" in told
    assert '/owed.json: {"Ada": 1500, "Cyd": 990}' in told
    failed, solved = run.branches
    assert (failed["end"], solved["end"], solved["decision_point"]) == ("failure", "success", 0)
    (row,) = (row for row in rows_of(run, tmp_path / "rows") if row["kind"] == "counterfactual")
    assert [(name, "paid" in args["description"]) for name, args in called(row)] == [("task", True)]


def test_the_deep_agent_grows_trees(tmp_path: Path) -> None:
    """With what `leafe explore --agent` takes from it: a branch goes back into its subagent."""
    pytest.importorskip("deepagents")
    build, tasks, judge, inputs = (
        attribute(f"examples.deep_agent:{name}", "example") for name in ("build", "tasks", "judge", "inputs")
    )
    model = ScriptedModel(reply=lambda messages, seed: office(messages))
    run = explore_agent(
        build,
        model,
        tasks("train", 1),
        judge=judge,
        inputs=inputs,
        out=tmp_path / "run",
        budget=Budget(env_steps=12),
    )
    solved = next(branch for branch in run.branches if branch["end"] == "success")
    assert solved["experience"] == SUBTRACT
    (row,) = (row for row in rows_of(run, tmp_path / "rows") if row["kind"] == "counterfactual")
    assert "bookkeeper" in row["node"]
    assert [args["file_path"] for _, args in called(row)] == ["/invoices.csv", "/payments.csv"]
