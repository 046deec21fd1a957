"""The example scripts run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trees import turn

from leafe_graph.importing import attribute
from leafe_graph.prompts import BRIEF, Prompts
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
