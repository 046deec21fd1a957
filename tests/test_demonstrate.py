"""An expert's play becomes rows that can be trained on, and whose reflections name the mistake that was made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leafe_graph.agent.reflection import parse_reflection
from leafe_graph.cli.main import main
from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.envs import sokoban
from leafe_graph.errors import EnvError
from leafe_graph.finetune.tokens import read_examples
from leafe_graph.prompts import BRIEF
from leafe_graph.types import Example, Task

TASKS = sokoban.tasks("train", 6)


def rows_of(task: Task, **settings: int) -> list[Example]:
    """The rows of one task."""
    return demonstrate(sokoban.SokobanEnv, [task], sokoban.expert, prompts=BRIEF, **settings)


def test_the_first_rows_are_the_experts_moves() -> None:
    """In order, each with the whole history before it; or with none of it."""
    plan = sokoban.expert(TASKS[0])
    rows = rows_of(TASKS[0], mistakes=0)
    assert [row["completion"][0]["content"] for row in rows] == plan
    assert [row["decision_point"] for row in rows] == list(range(len(plan)))
    told = [message["content"] for message in rows[-1]["prompt"] if message["role"] == "assistant"]
    assert told == plan[:-1]
    assert all(len(row["prompt"]) == 2 for row in rows_of(TASKS[0], mistakes=0, history=0))


@pytest.mark.parametrize("seed", range(4))
def test_a_reflection_names_the_mistake_and_the_next_row_follows_it(seed: int) -> None:
    """The named step is the one where the attempt left the expert's path; the experience is in the next prompt."""
    seen = 0
    for task in TASKS:
        plan = sokoban.expert(task)
        extra = rows_of(task, seed=seed)[len(plan) :]
        for reflect, follow in zip(extra[::2], extra[1::2], strict=True):
            steps = reflect["prompt"][-1]["content"].split("\n")
            played = [line.split(" -> ")[0] for line in steps if "(step " in line]
            verdict, at, experience = parse_reflection(reflect["completion"][0]["content"], len(played))
            assert verdict == "rewind" and at is not None and experience is not None
            assert played[:at] == plan[:at] and played[at] != plan[at]
            assert experience in follow["prompt"][-1]["content"]
            assert follow["completion"][0]["content"] == plan[at]
            seen += 1
    assert seen >= 3


def test_a_task_that_its_expert_does_not_win_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Wrong demonstrations are not written; where none is left that is an error."""
    lazy: Callable[[Task], list[str]] = lambda task: sokoban.expert(task)[: None if task == TASKS[1] else -1]  # noqa: E731
    rows = demonstrate(sokoban.SokobanEnv, TASKS[:3], lazy)
    assert {row["task_id"] for row in rows} == {TASKS[1]["id"]}
    assert TASKS[0]["id"] in caplog.text and TASKS[2]["id"] in caplog.text
    with pytest.raises(EnvError, match="none of the 1 tasks"):
        demonstrate(sokoban.SokobanEnv, TASKS[:1], lazy)


def test_what_follows_the_end_is_not_demonstrated() -> None:
    """A plan that is too long gives the rows of one that ends in time."""
    long: Callable[[Task], list[str]] = lambda task: [*sokoban.expert(task), "up", "up", "up"]  # noqa: E731
    for seed in range(6):
        rows = demonstrate(sokoban.SokobanEnv, TASKS[:2], long, seed=seed)
        assert rows == demonstrate(sokoban.SokobanEnv, TASKS[:2], sokoban.expert, seed=seed)


def test_the_command_writes_what_the_trainer_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`leafe demonstrate`, with an environment's options; one without an expert is refused."""
    file = tmp_path / "new" / "demonstrations.jsonl"
    options = ["--tasks", "3", "--env-options", "view=words,max_moves=5", "--prompts", "leafe_graph.prompts:BRIEF"]
    assert main(["demonstrate", "--env", "sokoban", "--out", str(file), *options]) == 0
    rows = read_examples([file])
    assert len({row.example["task_id"] for row in rows}) == 3
    assert {row.example["kind"] for row in rows} == {"demonstration"}
    assert json.loads(file.read_text().splitlines()[0]) == rows[0].example
    assert main(["demonstrate", "--env", "worlds:Restless", "--out", str(file)]) == 2
    assert "no expert" in capsys.readouterr().err


def test_the_expert_gets_the_options_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the heap of a simulator, which would otherwise run twice; options of the tasks alone are not for it."""
    seen: list[str] = []
    expert = sokoban.expert

    def told(task: Task, *, view: str = "grid") -> list[str]:
        seen.append(view)
        return expert(task)

    monkeypatch.setattr(sokoban, "expert", told)
    options = ["--tasks", "1", "--env-options", "view=words,max_moves=5"]
    assert main(["demonstrate", "--out", str(tmp_path / "rows.jsonl"), *options]) == 0
    assert seen == ["words"]
