"""One model over several servers: who is asked, who is left out, and that nothing is lost when one is restarted."""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from servers import AT_ONCE, Server
from worlds import PIT

pytest.importorskip("langchain_openai", reason='these tests need pip install ".[openai]"')

from leafe_graph.agent.retries import transient
from leafe_graph.exploration.explore import explore
from leafe_graph.models import balanced as balance
from leafe_graph.models.balanced import LEFT_OUT, SLACK, Servers
from leafe_graph.models.load import load_model
from leafe_graph.testing import GridWorld
from leafe_graph.types import Task

MESSAGES = [("system", "Walk."), ("user", "you are at 0,0")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, as the test says."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(balance, "time", clock)
    return clock


def test_a_task_stays_with_its_server_until_that_is_too_busy() -> None:
    """Every prompt of a task goes where its prefix is; tasks spread; the slack bounds what waiting for it may cost."""
    servers = Servers("abc")
    first = {key: servers.take(key) for key in "0123456789"}
    for url in first.values():
        servers.give_back(url, well=True)
    assert set(first.values()) == {*"abc"}
    for key, home in first.items():
        assert servers.take(key) == home
        servers.give_back(home, well=True)
    taken = Counter(servers.take("0") for _ in range(3 * (SLACK + 2)))
    assert taken.most_common(1)[0][0] == first["0"]
    assert max(taken.values()) - min(taken.values()) <= SLACK + 1


def test_a_server_that_failed_is_tried_again_by_one_request(clock: SimpleNamespace) -> None:
    """Left out for a while; then one request finds out, and the others wait for what it finds."""
    servers = Servers("ab")
    home = servers.take("task")
    other = "ab".replace(home, "")
    servers.give_back(home, well=False)
    clock.now += LEFT_OUT / 2
    assert servers.take("task") == other
    clock.now += LEFT_OUT
    assert [servers.take("task") for _ in range(3)] == [home, other, other]
    servers.give_back(home, well=False)
    assert servers.take("task") == other
    clock.now += 2 * LEFT_OUT
    assert servers.take("task") == home
    servers.give_back(home, well=True)
    assert [servers.take("task") for _ in range(2)] == [home, home]


def test_with_all_servers_down_the_one_that_failed_first_is_asked(clock: SimpleNamespace) -> None:
    """A call is always made: the caller's retries are what waits."""
    servers = Servers("ab")
    servers.give_back(servers.take("task"), well=True)
    for url in "ba":
        servers._in_flight[url] += 1
        servers.give_back(url, well=False)
        clock.now += 1
    assert servers.take("task") == "b"


def test_a_server_that_is_gone_moves_its_own_tasks_alone(clock: SimpleNamespace) -> None:
    """Where it fails for a while, after which they come back, and where it is not named; the order of names is none."""
    urls = [f"http://10.0.0.{number}/v1" for number in range(20)]

    def homes(servers: Servers) -> dict[str, str]:
        found = {}
        for task in map(str, range(500)):
            found[task] = servers.take(task)
            servers.give_back(found[task], well=True)
        return found

    servers = Servers(urls)
    before, gone = homes(servers), urls[3]
    theirs = {task for task, url in before.items() if url == gone}
    for other in (Servers(urls[::-1]), Servers([url for url in urls if url != gone])):
        moved = {task for task, url in homes(other).items() if url != before[task]}
        assert moved == theirs.intersection(moved) and (moved == theirs) == (gone not in other._in_flight)
    servers._in_flight[gone] += 1
    servers.give_back(gone, well=False)
    without = homes(servers)
    assert {task for task in before if without[task] != before[task]} == theirs
    assert len({without[task] for task in theirs}) > 5  # no single neighbour gets them all
    clock.now += 2 * LEFT_OUT
    assert homes(servers) == before


def _busiest(servers: list[Servers], tasks: int) -> int:
    """Requests of the busiest of so many servers, where each of these has so many tasks, at their second turns."""
    total: Counter[str] = Counter()
    for process, chosen in enumerate(servers):
        chosen._random.seed(process)
        at: dict[str, str] = {}
        for turn in range(2):
            for task in (f"{process}/{task}" for task in range(tasks)):
                if turn:
                    chosen.give_back(at[task], well=True)
                at[task] = chosen.take(task)
        total.update(at.values())
    return max(total.values())


def test_load_is_even_also_where_many_know_of_their_own_requests_only() -> None:
    """The busiest has less than by a hash of the task alone; where one sees all, hardly more than the mean."""
    urls = [f"http://10.0.{number}.1/v1" for number in range(400)]
    number = 32 * len(urls)

    def hashed(seed: int) -> int:
        return max(Counter(random.Random(seed).choices(urls, k=number)).values())

    assert _busiest([Servers(urls)], number) <= 1.15 * 32
    assert _busiest([Servers(urls) for _ in range(64)], number // 64) < statistics.median(map(hashed, range(15)))


def test_a_choice_looks_at_few_servers_however_many_there_are() -> None:
    """Ten thousand requests of one task, so that its home is too busy: the same for 4 servers and for 1,000."""
    looks: list[int] = []
    for number in (4, 1000):
        servers = Servers([f"http://10.0.{at}.1/v1" for at in range(number)])
        seen = [0]

        class Counted(list[str]):
            """Whose points these are; each look at one is counted."""

            def __getitem__(self, at: Any, seen: list[int] = seen) -> Any:
                seen[0] += 1
                return super().__getitem__(at)

        servers._owners = Counted(servers._owners)
        for _ in range(10_000):
            servers.take("task")
        looks.append(seen[0])
        assert max(servers._in_flight.values()) <= 10_000 / number + 3 * SLACK
    assert looks[1] <= looks[0]


@pytest.fixture
def two() -> Iterator[tuple[Server, Server]]:
    """Two servers of one model."""
    with Server() as a, Server() as b:
        yield a, b


def test_settings_reach_the_server(two: tuple[Server, Server]) -> None:
    """Those of the model, of a copy and of a call, seeds among them, whichever way it is called."""
    model: Any = load_model(f"vllm:m@{two[0].url}, {two[1].url}", temperature=0.5)
    copy: Any = load_model(model, temperature=0.25)
    assert copy._servers is model._servers
    assert model.invoke(MESSAGES, seed=3).text == "down"
    assert asyncio.run(copy.ainvoke(MESSAGES, seed=4, max_tokens=5)).text == "down"
    assert "".join(chunk.text for chunk in model.bind(seed=5).stream(MESSAGES)) == "down"
    requests = [request for server in two for request in server.requests]
    assert [(r["temperature"], r["seed"], r["model"]) for r in requests] == [
        (0.5, 3, "m"),
        (0.25, 4, "m"),
        (0.5, 5, "m"),
    ]
    assert requests[1]["max_completion_tokens"] == 5
    assert {len(server.requests) for server in two} == {0, 3}  # one task, one server
    single: Any = load_model(two[0].model, temperature=0.5)
    assert model._identifying_params == single._identifying_params  # where it is served makes no other policy


@pytest.mark.parametrize("fault", [404, 500, 503, "silence", "torn"])
def test_the_next_try_meets_another_server(fault: int | str) -> None:
    """Whatever is wrong with the first: the call fails, as one that may be made again, and then succeeds elsewhere."""
    with Server(lambda n: fault) as a, Server(lambda n: fault) as b:
        model = load_model(f"vllm:m@{a.url},{b.url}")
        for _ in range(2):
            with pytest.raises(Exception) as raised:
                model.invoke(MESSAGES)
            assert transient(raised.value)
        assert len(a.requests) == len(b.requests) == 1


def test_a_bad_request_is_the_callers_own_fault() -> None:
    """The server is well and stays the one that is asked; the error is as it came."""
    with Server(lambda n: 400) as a, Server(lambda n: 400) as b:
        model = load_model(f"vllm:m@{a.url},{b.url}")
        for _ in range(2):
            with pytest.raises(Exception, match="400") as raised:
                model.invoke(MESSAGES)
            assert not transient(raised.value)
        assert {len(a.requests), len(b.requests)} == {0, 2}


def test_no_request_is_lost_when_a_server_is_restarted(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of two is gone for a while in the middle: the trees are those of a healthy run, each try is counted."""
    first = Server().__enter__()
    second: list[Server] = []
    tries: list[str] = []
    lost: list[str] = []
    take, give_back = Servers.take, Servers.give_back

    def taken(self: Servers, key: str) -> str:
        tries.append(take(self, key))
        return tries[-1]

    def given_back(self: Servers, url: str, *, well: bool) -> None:
        lost.extend([] if well else [url])
        give_back(self, url, well=well)

    monkeypatch.setattr(Servers, "take", taken)
    monkeypatch.setattr(Servers, "give_back", given_back)

    def stays(n: int) -> None:
        """The other server; its requests are the clock, by which the first goes and comes back."""
        clock.now += 1
        if n == 20:
            first.__exit__()
        if n == 50:
            second.append(Server(port=first.port).__enter__())

    tasks: list[Task] = [{**PIT, "id": f"pit-{i}", "instruction": f"Walk to the goal, {i}."} for i in range(40)]
    with Server(stays) as other:
        run = explore(
            f"vllm:m@{first.url},{other.url}",
            GridWorld,
            tasks,
            out=tmp_path,
            retry=AT_ONCE,
            checkpointer=InMemorySaver(),
            concurrency=8,
        )
    second[0].__exit__()
    ends = Counter((branch["task"]["id"], branch["end"]) for branch in run.branches)
    assert ends == Counter((task["id"], end) for task in tasks for end in ("failure", "success"))
    assert {*lost} == {first.url} and len(second[0].requests) > 0
    answered = len(first.requests) + len(second[0].requests) + len(other.requests)
    assert run.cost["model_calls"] == len(tries) == answered + len(lost)
    assert run.cost["model_calls"] == 40 * 6 + len(lost)
