"""The support agent of the examples: it takes back what it did wrong in a database, and no mail."""

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agents import calls
from langchain_core.messages import AIMessage, HumanMessage

from benchmarks import support_clerk
from examples import support_agent
from leafe_graph import RunFolder, export
from leafe_graph.cli.main import main
from leafe_graph.testing import ScriptedModel

(BEN, *_) = support_agent.tasks("train", 1)
"""Of what he wants, order 52 can be exchanged for red, and order 72, which is delivered, can be returned."""
TIP = "The mirror is delivered: take it back."


def clerk(messages: list[Any], seed: int | None) -> AIMessage | str:
    """Gets Ben's second wish wrong unless told; of that it knows that it was step 2."""
    if "Which step was the mistake" in messages[-1].text:
        return json.dumps({"step": 2, "experience": TIP})
    done = sum(message.type == "ai" for message in messages)
    plan = [
        calls(("find_orders", {"customer": "Ben"})),
        calls(("exchange_order", {"order": 52, "colour": "red"})),
        calls(("return_order" if TIP in messages[-1].text else "cancel_order", {"order": 72})),
    ]
    return plan[done] if done < len(plan) else "Done."


policy = ScriptedModel(reply=clerk)


def mailer(messages: list[Any], seed: int | None) -> AIMessage | str:
    """Sends a mail that nobody asked for before the last step, and blames what it did before."""
    said = clerk(messages, seed)
    if isinstance(said, AIMessage) and said.tool_calls[0]["args"].get("order") == 52:
        return calls(("send_mail", {"customer": "Ben", "text": "Soon."}))
    return said.replace("2", "0") if isinstance(said, str) else said


def in_shop(path: Path, query: str) -> list[Any]:
    """What a query gives."""
    with closing(sqlite3.connect(path)) as shop:
        return shop.execute(query).fetchall()


def test_customers_are_others_in_each_split_and_can_be_content() -> None:
    """A shop that is as it should be contents them, and the one that they come to does not."""
    for split in ("train", "validation", "test"):
        for task in support_agent.tasks(split, 3, start=3):
            options: Any = task.get("options")
            shop = support_agent.world(task)
            assert not support_agent.judge(None, shop, task).success
            support_agent.fill(shop.path, {**task, "options": {**options, "orders": options["right"]}})
            assert support_agent.judge(None, shop, task).success is not bool(options["mails"])
    wishes = {task["instruction"] for split in ("train", "test") for task in support_agent.tasks(split, 50)}
    assert len(wishes) == 100
    assert support_agent.tasks("test", 3, start=1)[0] == support_agent.tasks("test", 2)[1]


def test_a_wrong_exchange_is_taken_back_and_made_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Messages and database; both attempts are recorded, and the one that went right gives rows with tools."""
    assert support_agent.serve(policy, [BEN], tmp_path / "run") == [True]
    shown = capsys.readouterr().out
    assert "'event': 'rewind', 'decision': 2" in shown and "The customer is content." in shown
    run = RunFolder(tmp_path / "run")
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert run.branches[0]["turns"][-1]["feedback"] == "The customer complains about order 72."
    export(run)
    rows = [json.loads(line) for line in (tmp_path / "run/examples/examples.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "counterfactual"]
    assert row["completion"][0]["tool_calls"][0]["function"]["name"] == "return_order"
    assert len(row["tools"]) == 7 and TIP not in json.dumps(row)


def test_the_database_is_as_it_was_before_the_mistake() -> None:
    """What was right before it stays; the rest is as if it had not been."""
    shop = support_agent.world(BEN)
    seen: list[Any] = []

    def watching(messages: list[Any], seed: int | None) -> AIMessage | str:
        seen.append(in_shop(shop.path, "SELECT colour, status FROM orders WHERE id IN (52, 72) ORDER BY id"))
        return clerk(messages, seed)

    asked = {"messages": [HumanMessage(BEN["instruction"])]}
    done = support_agent.learning(ScriptedModel(reply=watching), shop).invoke(asked, context=BEN)
    at_start = [("black", "pending"), ("green", "delivered")]
    half = [("red", "pending"), ("green", "delivered")]
    wrong = [("red", "pending"), ("green", "cancelled")]
    assert seen[:6] == [at_start, at_start, half, wrong, wrong, half]
    assert support_agent.judge(done, shop, BEN).success
    called = [call["name"] for message in done["messages"] for call in getattr(message, "tool_calls", [])]
    assert called == ["find_orders", "exchange_order", "return_order"]


def test_a_mail_stays_sent_and_so_does_what_was_before_it() -> None:
    """A reflection that would go back behind it is out of range."""
    shop = support_agent.world(BEN)
    agent = support_agent.learning(ScriptedModel(reply=mailer), shop)
    events = list(agent.stream({"messages": [HumanMessage(BEN["instruction"])]}, context=BEN, stream_mode="custom"))
    assert [event["leafe"]["verdict"] for event in events] == ["out_of_range"]
    assert in_shop(shop.path, "SELECT customer FROM mails") == [("Ben",)]
    assert support_agent.judge(None, shop, BEN).feedback.endswith("order 52, order 72, the mails.")


def test_trees_of_attempts_grow_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tasks, world and judge of its module; another policy's failures end there, and rows come of Ben's."""
    monkeypatch.chdir(Path(support_agent.__file__).parents[1])
    out = str(tmp_path / "run")
    command = ["explore", "--agent", "examples.support_agent:build", "--model", "python:test_support_agent:policy"]
    assert main([*command, "--tasks", "1", "--out", out]) == 0
    run = RunFolder(out)
    assert run.solved == {BEN["id"]}
    assert any(branch["decision_point"] == 2 and branch["end"] == "success" for branch in run.branches)
    assert main(["export", out]) == 0
    assert '"counterfactual"' in (tmp_path / "run/examples/examples.jsonl").read_text()


def test_a_clerk_who_does_not_slip_contents_every_customer() -> None:
    """So what the weak policy is taught would be right but for the slips."""
    for task in support_agent.tasks("train", 5):
        clerk = support_clerk.Clerk(task, random.Random(0), 0).serve()
        assert support_agent.judge(None, clerk.world, task).success


def test_the_mistake_of_a_clerk_is_the_decision_to_take_otherwise() -> None:
    """Whoever goes back there and does what is right from then on contents the customer; behind a mail nobody can."""
    seen = set()
    for number, task in enumerate(support_agent.tasks("train", 12)):
        failed = support_clerk.Clerk(task, random.Random(number), 0.8).serve()
        if support_agent.judge(None, failed.world, task).success:
            continue
        at = failed.mistake()
        seen.add(at is None)
        again = support_clerk.Clerk(task, random.Random(number), 0)
        for call in failed.calls[:at]:
            again.take(call)
        assert support_agent.judge(None, again.serve().world, task).success is (at is not None)
    assert seen == {True, False}
