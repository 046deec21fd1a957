"""Models that fail: what is tried again, what ends a branch, what stops a run, and that all of it is counted."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import RetryPolicy
from servers import AT_ONCE, Server, squares
from worlds import PIT, Recorder, forest, is_reflection, pit_reply, wandering_reply

from leafe_graph.agent.context import Outage
from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.agent.retries import RETRY, pause, transient
from leafe_graph.budget import Budget
from leafe_graph.errors import ConfigError, ModelError, NothingPlayed
from leafe_graph.exploration.explore import explore
from leafe_graph.models.load import load_model
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.branches import played
from leafe_graph.tree.run_folder import RunFolder

pytest.importorskip("langchain_openai", reason='these tests need pip install ".[openai]"')

RETRIED = [429, 500, 503, 408, "silence", "torn"]
ENDING = [400, 401, 404, "garbage", "html", "null"]


def play(server: Server, out: Path, **settings: Any) -> RunFolder:
    """The pit, played by the model behind the server."""
    how: Any = {"out": out, "retry": AT_ONCE, "checkpointer": InMemorySaver(), **settings}
    return explore(server.model, GridWorld, [PIT], **how)


def unplayed(out: Path, run: Callable[[], object]) -> RunFolder:
    """The folder of a run in which every branch failed, which is told."""
    with pytest.raises(NothingPlayed, match="nothing was played"):
        run()
    return RunFolder(out)


@pytest.mark.parametrize("fault", RETRIED)
def test_call_that_may_succeed_later_is_made_again(fault: str | int, tmp_path: Path) -> None:
    """The tree is the one of a healthy server, each try is counted, and only by us: no client retries in secret."""
    with Server([None, fault, None, fault, fault]) as server:
        run = play(server, tmp_path)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert len(server.requests) == run.cost["model_calls"] == 6 + 3
    assert squares(server.requests)[:6] == ["0,0", "0,1", "0,1", "1,1", "1,1", "1,1"]
    assert run.cost["completion_tokens"] == 6 * 2  # a try that fails has made none
    assert [branch["error"] for branch in run.branches] == [None, None]


@pytest.mark.parametrize("fault", ENDING)
def test_call_that_cannot_succeed_ends_its_branch(fault: str | int, tmp_path: Path) -> None:
    """A bad request is not sent again; nor is one whose answer is no answer. The run goes on with a new root."""
    with Server([None, fault]) as server:
        run = play(server, tmp_path)
    assert [branch["end"] for branch in run.branches] == ["model_error", "failure", "success"]
    assert run.branches[0]["cost"]["model_calls"] == 2
    assert len(server.requests) == run.cost["model_calls"]
    assert {"garbage": "JSONDecodeError", "html": "ValueError", "null": "TypeError"}.get(str(fault), str(fault)) in str(
        run.branches[0]["error"]
    )


@pytest.mark.parametrize("fault", RETRIED)
def test_call_that_keeps_failing_ends_its_branch(fault: str | int, tmp_path: Path) -> None:
    """After as many tries as the policy allows, all of them counted."""
    with Server([fault] * 3) as server:
        run = play(server, tmp_path)
    assert [(branch["end"], branch["cost"]["model_calls"]) for branch in run.branches] == [
        ("model_error", 3),
        ("failure", 4),
        ("success", 2),
    ]
    assert run.branches[0]["error"] is not None


@pytest.mark.parametrize("way", ["sync", "async"])
def test_call_that_hangs_is_given_up(way: str) -> None:
    """After its timeout it is made again; the second answer counts. Both ways of running an agent."""
    with Server([None, "hang"]) as server:
        agent = create_leafe_agent(server.model, env=SnapshotGridWorld, retry=AT_ONCE, timeout=2.0)
        run = agent.invoke if way == "sync" else lambda given: asyncio.run(agent.ainvoke(given))
        final = run({"task": PIT})
    assert (final["end"], final["error"]) == ("success", None)
    assert len(server.requests) == 7


def test_server_that_hangs_ends_its_branches_by_name(tmp_path: Path) -> None:
    """Nobody waits longer than tries times timeout."""
    with Server(lambda n: "hang" if n else None) as server:
        how: Any = {"timeout": 0.5, "retry": AT_ONCE._replace(max_attempts=2), "limits": Limits(max_branches=1)}
        run = unplayed(tmp_path, lambda: play(server, tmp_path, **how))
    (branch,) = run.branches
    assert (branch["end"], branch["error"]) == ("model_error", "TimeoutError: no answer within 0.5 s")
    assert (len(branch["turns"]), branch["cost"]["model_calls"]) == (1, 3)


class Hangs(BaseChatModel):
    """A chat model that knows no asyncio, and answers only when it is told to."""

    let_go: threading.Event

    @property
    def _llm_type(self) -> str:
        return "hangs"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.let_go.wait(60)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("up"))])


def test_synchronous_models_that_hang_hold_nobody_up(tmp_path: Path) -> None:
    """As many as are played at once: environments and checkpoints still find a thread."""
    let_go = threading.Event()
    try:
        how: Any = {"limits": Limits(max_branches=1), "timeout": 0.2, "retry": None, "concurrency": 2}
        model = Hangs(let_go=let_go)
        run = unplayed(tmp_path, lambda: explore(model, GridWorld, grid_tasks(4), out=tmp_path, **how))
        assert not let_go.is_set()
    finally:
        let_go.set()
    assert [branch["end"] for branch in run.branches] == ["model_error"] * len(run.branches)
    assert {branch["task"]["id"] for branch in run.branches} == {task["id"] for task in grid_tasks(4)}


def test_answer_of_nothing_is_an_action(tmp_path: Path) -> None:
    """The environment does not understand it, and says so; it costs a turn."""
    with Server(["empty"]) as server:
        run = play(server, tmp_path)
    first = run.branches[0]["turns"][0]
    assert (first["action"], first["valid"]) == ("", False)
    assert run.branches[-1]["end"] == "success"


def test_reflector_that_fails_is_asked_again(tmp_path: Path) -> None:
    """One reflection, however many calls it took."""
    with Server([None, None, None, 503, 503]) as server:
        run = play(server, tmp_path)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert (run.cost["reflections"], run.cost["model_calls"]) == (1, 8)


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_tries_never_exceed_the_budget(calls: int, tmp_path: Path) -> None:
    """A try that the budget does not allow is not made, and what the earlier ones cost is not forgotten."""
    with Server(lambda n: 503) as server:
        run = unplayed(tmp_path, lambda: play(server, tmp_path, budget=Budget(model_calls=calls)))
    assert len(server.requests) == run.cost["model_calls"] == calls
    assert {branch["end"] for branch in run.branches} == {"model_error"}


def test_reservation_of_a_failed_try_is_given_back() -> None:
    """A budget of tokens is not eaten by answers that never came."""
    with Server([500, 500]) as server:
        model = load_model(server.model, max_tokens=20)
        agent = create_leafe_agent(model, env=GridWorld, retry=AT_ONCE, budget=Budget(completion_tokens=32))
        final = agent.invoke({"task": PIT})
    assert (final["end"], final["cost"]["completion_tokens"]) == ("success", 6 * 2)


def test_many_tasks_bear_a_server_that_fails_now_and_then(tmp_path: Path) -> None:
    """Every third request fails, another way each time, with eight tasks at once: the same trees."""
    faults = [429, 500, "silence", "torn", 408]
    tasks: Any = [PIT | {"id": f"pit {n}"} for n in range(8)]
    settings: Any = {"retry": AT_ONCE._replace(max_attempts=20), "concurrency": 8}
    with Server() as server:
        well = explore(server.model, GridWorld, tasks, out=tmp_path / "well", **settings)
    with Server(lambda n: faults[n // 3 % 5] if n % 3 == 2 else None) as server:
        ill = explore(server.model, GridWorld, tasks, out=tmp_path / "ill", **settings)
    same: Callable[[RunFolder], Any] = lambda run: [  # noqa: E731
        {**branch, "cost": {**branch["cost"], "model_calls": 0}} for branch in forest(run.branches)
    ]
    assert same(ill) == same(well)
    assert ill.cost["model_calls"] == len(server.requests) > well.cost["model_calls"]


# ---- a server that is gone, and a run that goes on when it is back


@pytest.mark.parametrize("last", [17, 18, 20])
def test_run_stops_when_the_server_is_gone_and_goes_on_when_it_is_back(tmp_path: Path, last: int) -> None:
    """Not all tasks are burnt; the error says what to do; in the end the trees are those of a healthy server.

    From one call on or another it is gone, some of them reflections: these are made, too.
    """
    tasks = grid_tasks(10)
    settings: Any = {
        "checkpointer": InMemorySaver(),
        "limits": Limits(max_branches=3, max_depth=2),
        "max_turns": 3,
        "concurrency": 2,
        "max_failed_calls": 5,
        "retry": None,
    }
    gone, calls, lock = threading.Event(), 0, threading.Lock()

    def reply(messages: Any, seed: int | None) -> str:
        nonlocal calls
        with lock:
            calls += 1
        if gone.is_set() or calls == last:
            gone.set()
            raise ConnectionError("nobody listens")
        return wandering_reply(messages, seed)

    model = ScriptedModel(reply=reply)
    with pytest.raises(ModelError, match=r"5 model calls in a row have failed.*nobody listens.*run the same command"):
        explore(model, GridWorld, tasks, out=tmp_path / "run", **settings)
    broken = RunFolder(tmp_path / "run")
    failed = [branch for branch in broken.branches if branch["error"]]
    assert 5 <= len(failed) < 5 + 4  # what is in flight also ends; an answer in flight starts the count anew
    assert len(broken.trees) < len(tasks)
    gone.clear()
    explore(model, GridWorld, tasks, out=tmp_path / "run", **settings)
    run = RunFolder(tmp_path / "run")
    well = explore(ScriptedModel(reply=wandering_reply), GridWorld, tasks, out=tmp_path / "well", **settings)
    assert 0 < len(run.superseded) <= len(failed)
    assert run.cost["model_calls"] == calls  # nothing that was asked is forgotten
    kept = {branch["task"]["id"] for branch in failed}
    assert [b for b in forest(run.branches) if b["task"]["id"] not in kept] == [
        b for b in forest(well.branches) if b["task"]["id"] not in kept
    ]
    started = {b["task"]["id"] for b in failed if not b["turns"]}  # they had lost nothing but calls
    for task in started & {b["task"]["id"] for b in failed if b["id"] == "0"}:
        assert forest(list(played(run.trees[task]).values())) == forest(list(well.trees[task].values()))


def test_failed_branch_is_played_again_once(tmp_path: Path) -> None:
    """Under its own name, from its own decision point; a third run of the same command finds nothing to do."""
    faults = iter([False] * 4 + [True])  # the root is lost and reflected upon; its fork's first call fails

    def reply(messages: Any, seed: int | None) -> str:
        if next(faults, False):
            raise ConnectionError("nobody listens")
        return pit_reply(messages, seed)

    settings: Any = {"out": tmp_path, "retry": None, "limits": Limits(max_branches=2)}
    first = explore(ScriptedModel(reply=reply), GridWorld, [PIT], **settings)
    assert [branch["end"] for branch in first.branches] == ["failure", "model_error"]
    again = explore(ScriptedModel(reply=reply), GridWorld, [PIT], **settings)
    assert [(b["id"], b["parent"], b["decision_point"], b["end"]) for b in again.branches] == [
        ("0", None, 0, "failure"),
        ("1", "0", 2, "success"),
    ]
    assert [branch["end"] for branch in again.superseded] == ["model_error"]
    assert again.cost["model_calls"] == 4 + 1 + 2
    recorder = Recorder()
    third = explore(recorder.model.model_copy(), GridWorld, [PIT], **(settings | {"out": tmp_path / "other"}))
    assert len(third.branches) == 2
    before = (tmp_path / "branches.jsonl").read_bytes()
    explore(ScriptedModel(reply=reply), GridWorld, [PIT], **settings)
    assert (tmp_path / "branches.jsonl").read_bytes() == before
    assert RunFolder(tmp_path).cost == again.cost


def test_failed_branch_is_paid_for_again(tmp_path: Path) -> None:
    """The budget of a task holds its failed branches too: resuming again and again spends no more."""

    def reply(messages: Any, seed: int | None) -> str:
        if len(messages) > 3:
            raise ConnectionError("nobody listens")
        return pit_reply(messages, seed)

    settings: Any = {"out": tmp_path, "retry": None, "budget": Budget(env_steps=5), "limits": Limits(max_branches=2)}
    model = ScriptedModel(reply=reply)
    steps = []
    for _ in range(4):
        with suppress(NothingPlayed):
            explore(model, GridWorld, [PIT], **settings)
        steps.append(RunFolder(tmp_path).cost["env_steps"])
    assert steps == [2, 4, 5, 5]
    assert [len(RunFolder(tmp_path).branches), len(RunFolder(tmp_path).superseded)] == [2, 3]


def test_prompts_that_are_refused_do_not_stop_a_run(tmp_path: Path) -> None:
    """A server that refuses what one task asks is well."""
    with Server(lambda n: 400) as server:
        how: Any = {"limits": Limits(max_branches=6), "max_failed_calls": 3}
        run = unplayed(tmp_path, lambda: play(server, tmp_path, **how))
    assert [branch["end"] for branch in run.branches] == ["model_error"] * 6


# ---- which errors, which pauses


def test_which_errors_are_transient() -> None:
    """By LangChain's classes, else by the HTTP status, else by Python's own."""
    from langchain_core import exceptions as langchain

    class Status(Exception):
        def __init__(self, status_code: int) -> None:
            self.status_code = status_code

    yes = [langchain.ModelRateLimitError(), langchain.ModelAPIError(), langchain.ModelTimeoutError(), Status(529)]
    yes += [Status(429), Status(408), TimeoutError(), ConnectionResetError(), langchain.ModelConnectionError()]
    no = [langchain.ModelInvalidRequestError(), langchain.ContextOverflowError(), langchain.ModelAuthenticationError()]
    no += [Status(400), Status(404), ValueError(), FileNotFoundError(), KeyError()]
    assert [transient(error) for error in yes] == [True] * len(yes)
    assert [transient(error) for error in no] == [False] * len(no)


def test_pauses_grow_and_add_up_to_a_minute() -> None:
    """The default policy bears a server that is started anew."""
    calm = RETRY._replace(jitter=False)
    pauses = [pause(calm, tries, TimeoutError()) for tries in range(1, 8)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, None]
    jittered = pause(RETRY, 1, TimeoutError())
    assert jittered is not None and 1.0 <= jittered <= 2.0


def test_policies_are_read_as_langgraph_reads_them() -> None:
    """``retry_on`` as a class, several, or a function; its own default is ours, which spares bad requests."""
    for on in (KeyError, [KeyError, OSError], lambda error: isinstance(error, KeyError)):
        policy = RetryPolicy(retry_on=on)
        assert pause(policy, 1, KeyError()) is not None
        assert pause(policy, 1, ValueError()) is None
    assert pause(RetryPolicy(), 1, Exception("what LangGraph would try again")) is None
    assert pause(None, 1, TimeoutError()) is None


def test_server_says_how_long_to_wait() -> None:
    """Its ``Retry-After`` counts, within the policy's longest pause."""

    class Limited(Exception):
        status_code = 429

        def __init__(self, after: str) -> None:
            self.response = type("Response", (), {"headers": {"retry-after": after}})()

    calm = RETRY._replace(jitter=False)
    assert [pause(calm, 1, Limited(after)) for after in ("7", "3600", "soon", "-1")] == [7.0, 30.0, 1.0, 0.0]


def test_failed_reflection_leaves_the_run_its_failures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was played stays a failure; only the fork is missing, which is told where it is so everywhere.

    When the reflector answers again, the same command reflects.
    """

    def reply(messages: Any, seed: int | None) -> str:
        if is_reflection(messages):
            raise ConnectionError("nobody listens")
        return pit_reply(messages, seed)

    settings: Any = {"out": tmp_path, "retry": None, "limits": Limits(max_branches=3)}
    run = explore(ScriptedModel(reply=reply), GridWorld, [PIT], **settings)
    assert [branch["end"] for branch in run.branches] == ["failure", "failure", "failure"]
    assert [branch["error"] for branch in run.branches] == ["ConnectionError: nobody listens"] * 2 + [None]
    assert "no reflection was made: 2 failed: 2 times ConnectionError: nobody listens" in caplog.text
    again = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], **settings)
    assert not any(branch["error"] for branch in again.branches)
    assert any(branch["reflections"] for branch in again.branches)


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"timeout": -1.0}, {"on_divergence": "ignore"}])
def test_impossible_settings_are_refused(bad: Any) -> None:
    """Before anything is played."""
    with pytest.raises(ConfigError, match=r"expected"):
        create_leafe_agent(ScriptedModel(reply=["up"]), env=GridWorld, **bad)


def test_a_few_calls_that_fail_beside_others_are_no_outage() -> None:
    """It is looked for where a branch has ended: what has answered since counts; once found, it stays."""
    outage, last = Outage(2), ValueError("second")
    outage.failed(ValueError("first"))
    outage.failed(last)
    outage.answered()
    outage.look()
    assert outage.error is None
    outage.failed(ValueError("first"))
    outage.failed(last)
    outage.look()
    outage.answered()
    assert outage.error is last


def test_a_model_that_has_nothing_more_to_say_ends_its_branch() -> None:
    """LangChain's fake models raise StopIteration then, which no coroutine could: it is told as it is."""
    model = GenericFakeChatModel(messages=iter([AIMessage("up")]))
    agent = create_leafe_agent(model, env=GridWorld, max_turns=4, max_rewinds=0, timeout=None)
    state = agent.invoke({"task": PIT})
    assert (state["end"], state["error"], len(state["turns"])) == ("model_error", "StopIteration: ", 1)
