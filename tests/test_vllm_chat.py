"""Token ids of a server's answers: where they stand, how they are asked for, and what becomes of them."""

import asyncio
import logging
from pathlib import Path
from typing import Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from servers import PROMPT_IDS, REPLY_IDS, Server
from worlds import LESSON, PIT

pytest.importorskip("langchain_openai", reason='these tests need pip install ".[openai]"')

from leafe_graph.dataset.examples import examples
from leafe_graph.exploration.explore import explore
from leafe_graph.models.load import load_model
from leafe_graph.testing import GridWorld

MESSAGES = [("system", "Walk."), ("user", "you are at 0,0")]


def ids(model: Any, **settings: Any) -> dict[str, list[int]]:
    """The ids of an answer, the same whether the call is synchronous or not."""
    answers = [model.invoke(MESSAGES, **settings), asyncio.run(model.ainvoke(MESSAGES, **settings))]
    found, again = ({k: v for k, v in a.response_metadata.items() if k.endswith("token_ids")} for a in answers)
    assert found == again and [answer.text for answer in answers] == ["down"] * 2
    return found


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_answers_have_their_token_ids(kind: Literal["vllm", "sglang"]) -> None:
    """Those of the reply, and of the prompt where they are wanted; from one server and from several."""
    with Server(ids=kind) as a, Server(ids=kind) as b:
        for spec in (a.model, f"{a.model},{b.url}"):
            model: Any = load_model(spec)
            assert ids(model) == {"token_ids": REPLY_IDS}
            both: Any = load_model(model, return_prompt_token_ids=True)
            assert ids(both) == {"token_ids": REPLY_IDS, "prompt_token_ids": PROMPT_IDS}


def test_a_server_may_give_none() -> None:
    """It is asked, and ignores it: there is nothing in their place."""
    with Server() as server:
        assert ids(load_model(server.model, return_prompt_token_ids=True)) == {}
    assert [request["return_token_ids"] for request in server.requests] == [True, True]


def test_a_users_own_fields_stay() -> None:
    """Those of the model and of a call, and what they say of token ids."""
    with Server(ids="vllm") as server:
        model = load_model(server.model, extra_body={"top_k": 5})
        assert ids(model) == ids(model, extra_body={"min_p": 0.1}) == {"token_ids": REPLY_IDS}
        assert ids(model, extra_body={"return_token_ids": False}) == {}
    told = [{k: r[k] for k in ("top_k", "min_p", "return_token_ids") if k in r} for r in server.requests[::2]]
    assert told == [
        {"top_k": 5, "return_token_ids": True},
        {"min_p": 0.1, "return_token_ids": True},
        {"return_token_ids": False},
    ]


def test_ids_are_not_asked_for_where_they_are_not_wanted() -> None:
    """By a setting, of OpenAI itself, and in a stream."""
    with Server(ids="vllm") as a, Server(ids="vllm") as b:
        assert ids(load_model(a.model, return_token_ids=False)) == {}
        for url in (a.url, f"{a.url},{b.url}"):
            assert ids(load_model("openai:m", base_url=url, api_key="k")) == {}
        assert not any("return_token_ids" in request for server in (a, b) for request in server.requests)
    model: Any = load_model(a.model)
    assert model._get_request_payload(MESSAGES)["extra_body"] == {"return_token_ids": True}
    assert not model._get_request_payload(MESSAGES, stream=True).get("extra_body")


@pytest.mark.parametrize("servers", [1, 2])
def test_a_server_that_refuses_is_asked_without(servers: int, caplog: pytest.LogCaptureFixture) -> None:
    """At once and from then on, by copies too; that is said once."""
    with Server(ids="refuses") as a, Server(ids="refuses") as b, caplog.at_level(logging.WARNING, "leafe_graph"):
        model: Any = load_model(",".join([a.model, b.url][:servers]))
        copy: Any = load_model(model, temperature=0.5)
        assert ids(copy) == ids(model) == {}
    asked = ["return_token_ids" in request for server in (a, b) for request in server.requests]
    assert asked == [True, False, False, False, False]
    assert len(caplog.messages) == 1 and "refuses return_token_ids" in caplog.text


def test_other_refusals_are_errors() -> None:
    """A request that is bad for another reason is not made again."""
    with Server(lambda n: 400) as server:
        model = load_model(server.model)
        with pytest.raises(Exception, match="it is 400"):
            model.invoke(MESSAGES)
        with pytest.raises(Exception, match="it is 400"):
            asyncio.run(model.ainvoke(MESSAGES))
    assert len(server.requests) == 2


def test_rows_of_an_exploration_carry_the_ids(tmp_path: Path) -> None:
    """From the server's answers through the tree to the trainer's rows."""
    with Server(ids="vllm") as server:
        model = load_model(server.model, return_prompt_token_ids=True)
        run = explore(model, GridWorld, [PIT], out=tmp_path, checkpointer=InMemorySaver())
    rows, _ = examples(run.branches)
    assert {row["kind"] for row in rows} == {"counterfactual", "rehearsal"}
    assert all(row["completion_token_ids"] == REPLY_IDS for row in rows)
    assert PROMPT_IDS in [row["prompt_token_ids"] for row in rows]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_that_a_server_parts_from_the_answer_are_read_for_leaks(field: str, tmp_path: Path) -> None:
    """They are in no prompt, but the recorded ids say them: such a row would train on the experience."""
    with Server(ids="vllm", beside=lambda words: {field: f"I was told: {LESSON} So {words}."}) as server:
        run = explore(load_model(server.model), GridWorld, [PIT], out=tmp_path, checkpointer=InMemorySaver())
    thoughts = run.branches[1]["turns"][0]["message"]["thoughts"]
    assert thoughts == f"I was told: {LESSON} So right."
    assert not any("told" in message["content"] for request in server.requests for message in request["messages"][:-1])
    rows, summary = examples(run.branches)
    assert rows == [] and summary.leaked > 0
    branches = [*run.branches]
    for branch in branches:
        for turn in branch["turns"]:
            del turn["message"]["token_ids"]
    assert {row["kind"] for row in examples(branches)[0]} == {"counterfactual", "rehearsal"}
