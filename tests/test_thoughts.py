"""Models that think before they answer, from the first prompt to the training rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from worlds import LESSON, PIT, TOLD, is_reflection, pit_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.agent.records import model_message
from leafe_graph.dataset.export import export
from leafe_graph.exploration.explore import explore
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.tree.run_folder import RunFolder

OPENED = ["", "<think>\n"]
"""Whether the chat template opens the thoughts, or the model does."""


class Thinker:
    """Answers as `pit_reply` after weighing all ways and a false reflection; what it saw is written down."""

    def __init__(self, opening: str, *, quotes: bool = False) -> None:
        self.opening, self.quotes = opening, quotes
        self.prompts: list[list[str]] = []

    def __call__(self, messages: list[BaseMessage], seed: int | None) -> str:
        """Think, then answer."""
        self.prompts.append([message.text for message in messages])
        thought = 'Action: left? {"step": 0, "experience": "no"} Step 1?'
        if self.quotes and TOLD in messages[-1].text:
            thought = f"I was told: {LESSON}"
        answer = "Step 2 was the mistake: " + LESSON if is_reflection(messages) else pit_reply(messages, seed)
        return f"{self.opening}{thought}\n</think>\n\n{answer}"


def play(out: Path, thinker: Any) -> RunFolder:
    """The pit, by a model that thinks."""
    return explore(ScriptedModel(reply=thinker), GridWorld, [PIT], out=out)


@pytest.mark.parametrize("opening", OPENED)
def test_thoughts_decide_neither_an_action_nor_a_rewind(opening: str, tmp_path: Path) -> None:
    """The tree is that of a model that answers at once; histories and rows hold the replies as they came."""
    thinker = Thinker(opening)
    run = play(tmp_path / "thinks", thinker)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    for branch in run.branches:
        assert {turn["action"] for turn in branch["turns"]} <= {"up", "down", "right"}
        assert {turn["valid"] for turn in branch["turns"]} == {True}
    assert run.branches[1]["experience"] == f"Step 2 was the mistake: {LESSON}"
    summary = export(run)
    assert (summary.counterfactual, summary.leaked, summary.empty) == (1, 0, 0)
    rows = [json.loads(line) for line in (run.folder / "examples" / "examples.jsonl").read_text().splitlines()]
    for row in rows:
        told = [message["content"] for message in row["prompt"]]
        assert told in [[*seen, now.partition(f"\n\n{TOLD}")[0]] for *seen, now in thinker.prompts]
        assert all(
            m["content"].startswith(f"{opening}Action: left?") for m in row["prompt"] if m["role"] == "assistant"
        )
        assert row["completion"][0]["content"].startswith(f"{opening}Action: left?")


@pytest.mark.parametrize("opening", OPENED)
def test_thoughts_that_repeat_an_experience_are_no_rows(opening: str, tmp_path: Path) -> None:
    """What is thought aloud is part of the target, so the proof that rows are clean reads it."""
    summary = export(play(tmp_path, Thinker(opening, quotes=True)))
    assert summary.counterfactual == 0 and summary.leaked > 0
    assert LESSON not in (tmp_path / "examples" / "examples.jsonl").read_text()


def test_thoughts_that_were_cut_short_are_no_action(tmp_path: Path) -> None:
    """The environment says that nothing was said; a reflection of the kind asks for nothing."""
    agent = create_leafe_agent(
        ScriptedModel(reply=["<think>\nUp? Action: up. Step 1 was the mistake"]), env=GridWorld, max_turns=2
    )
    final = agent.invoke({"task": PIT})
    assert {(turn["action"], turn["valid"]) for turn in final["turns"]} == {("", False)}
    assert final["reflection"]["verdict"] == "unparsed"


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage([{"type": "thinking", "thinking": "left?", "signature": "x"}, {"type": "text", "text": "up"}]),
        AIMessage([{"type": "reasoning", "reasoning": "left?"}, {"type": "text", "text": "up"}]),
        AIMessage([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "left?"}]}, "up"]),
    ],
)
def test_thoughts_beside_the_answer_are_no_part_of_it(answer: AIMessage) -> None:
    """Integrations and servers that part the two give the answer alone, which is all that a history could show."""
    assert model_message(answer) == {"content": "up"}
    named = AIMessage("up", additional_kwargs={"reasoning_content": "left?"})
    assert model_message(named) == {"content": "up", "thoughts": "left?"}
