"""Models that act by tool calls: one call is one action, and history, rows and environment see the same one."""

import itertools
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from leafe_graph.agent.records import model_message
from leafe_graph.dataset.export import export
from leafe_graph.exploration.explore import explore
from leafe_graph.prompts import said
from leafe_graph.report.transcript import transcript
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Task

HALL: Task = {"id": "hall", "instruction": "Walk.", "options": {"size": 3, "start": [0, 0], "goal": [2, 0], "pits": []}}


class Caller(BaseChatModel):
    """Answers with the same calls every time, under new ids as servers give them."""

    calls: Sequence[tuple[str, Any]]
    prompts: list[list[str]]
    """Where the prompts are written down."""
    content: str = ""

    @property
    def _llm_type(self) -> str:
        return "caller"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.prompts.append([message.text for message in messages])
        message = AIMessage(
            self.content,
            tool_calls=[
                {"name": name, "args": args, "id": f"call_{uuid.uuid4().hex}"}
                for name, args in self.calls
                if isinstance(args, dict)
            ],
            invalid_tool_calls=[
                {"name": name, "args": args, "id": uuid.uuid4().hex, "error": "no JSON", "type": "invalid_tool_call"}
                for name, args in self.calls
                if not isinstance(args, dict)
            ],
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class Hall(GridWorld):
    """A grid that takes its actions as calls."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Walk the way that the call names; what is no call is none of the ways."""
        try:
            call = json.loads(action)
        except ValueError:
            return super().step("")
        return super().step(call["args"]["way"] if call["name"] == "walk" else "")


def play(out: Path, model: Caller, *, branches: int = 2) -> RunFolder:
    """Some attempts at the hall."""
    limits = Limits(max_branches=branches)
    return explore(model, Hall, [HALL], out=out, strategy="independent", limits=limits, max_turns=3)


def test_equal_calls_are_equal_rows(tmp_path: Path) -> None:
    """Their ids are random: they are no part of a history or a target, and so no reason to keep a row twice."""
    model = Caller(calls=[("walk", {"way": "right"})], prompts=[])
    run = play(tmp_path, model)
    assert {branch["end"] for branch in run.branches} == {"success"}
    summary = export(run)
    assert (summary.rehearsal, summary.duplicates) == (2, 2 * (len(run.branches) - 1))
    rows = [json.loads(line) for line in (tmp_path / "examples" / "examples.jsonl").read_text().splitlines()]
    text = '{"args": {"way": "right"}, "name": "walk"}'
    assert [row["completion"][0]["content"] for row in rows] == [text, text]
    played = next(prompt for prompt in model.prompts if len(prompt) == 4)
    assert [message["content"] for message in max(rows, key=lambda row: len(row["prompt"]))["prompt"]] == played


def test_of_several_calls_one_is_carried_out_and_shown(tmp_path: Path) -> None:
    """The others are refused: kept in the record, but in no prompt and no row, as nothing came of them."""
    model = Caller(calls=[("walk", {"way": "right"}), ("walk", {"way": "down"})], content="Off I go.", prompts=[])
    run = play(tmp_path, model, branches=1)
    (branch,) = run.branches
    assert [turn["action"] for turn in branch["turns"]] == ['{"args": {"way": "right"}, "name": "walk"}'] * 2
    for turn in branch["turns"]:
        assert turn["message"]["refused_tool_calls"] == [{"name": "walk", "args": {"way": "down"}}]
        assert said(turn["message"]) == f"Off I go.\n{turn['action']}"
    export(run)
    told = (tmp_path / "examples" / "examples.jsonl").read_text()
    assert "down" not in told
    assert not any("down" in text for text in itertools.chain(*model.prompts))


def test_call_that_is_no_json_is_what_was_said_and_is_answered_as_invalid(tmp_path: Path) -> None:
    """The environment sees the words as the model wrote them, and the model sees them in its history."""
    model = Caller(calls=[("walk", '{"way": right')], prompts=[])
    run = play(tmp_path, model, branches=1)
    (branch,) = run.branches
    assert branch["end"] == "max_turns"
    assert {(turn["action"], turn["valid"]) for turn in branch["turns"]} == {
        ('{"args": {"way": right, "name": "walk"}', False)
    }
    assert '{"args": {"way": right, "name": "walk"}' in model.prompts[-1]
    assert '0> {"args": {"way": right' in transcript(run.branches) and "(said: )" not in transcript(run.branches)


def test_readable_call_goes_before_an_unreadable_one() -> None:
    """What can be carried out is; without a name or arguments a call is still no empty answer."""
    broken: Any = {"name": None, "args": None, "id": None, "error": None, "type": "invalid_tool_call"}
    good: Any = {"name": "walk", "args": {}, "id": "1"}
    message = model_message(AIMessage("", tool_calls=[good], invalid_tool_calls=[broken]))
    assert message["tool_calls"] == [{"name": "walk", "args": {}}]
    assert message["refused_tool_calls"] == [{"name": "", "args": ""}]
    assert said(model_message(AIMessage("", invalid_tool_calls=[broken]))) == '{"args": , "name": ""}'
