"""A total budget that several processes spend from: no limit is passed, and nothing stays unspent for being split."""

import logging
import random
import threading
import time
from typing import Any

import pytest

from leafe_graph.budget import Budget, Ledger, add_costs, no_cost
from leafe_graph.errors import BudgetExceeded, ConfigError
from leafe_graph.exploration.kit import Kit, made
from leafe_graph.exploration.leases import Leased, Purse
from leafe_graph.exploration.outbox import Outbox, Warnings
from leafe_graph.exploration.progress import Progress
from leafe_graph.prompts import Prompts
from leafe_graph.settings import Limits, Play, Workers
from leafe_graph.strategies import STRATEGIES
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks


class Bank:
    """The driver's part, as `Cluster` does it: one request after the other, with calls to give back in between."""

    def __init__(self, budget: Budget, workers: int) -> None:
        self.total = Ledger(budget)
        self.purse = Purse(self.total, workers)
        self.lock = threading.Lock()
        self.workers: dict[int, Leased] = {}
        self.asked = 0

    def worker(self, name: int) -> Leased:
        """A worker's account."""

        def ask(number: int, short: dict[str, float]) -> None:
            threading.Thread(target=self.answer, args=(name, number, short)).start()

        self.workers[name] = Leased(self.total.budget, ask)
        return self.workers[name]

    def answer(self, name: int, number: int, short: dict[str, float]) -> None:
        """Grant, after all others were asked if need be."""
        with self.lock:
            self.asked += 1
            lacking = [field for field, least in short.items() if self.purse.left(field) < least]
            for other in self.purse.holders(lacking):
                if other != name:
                    self.purse.given_back(other, self.workers[other].give_back())  # type: ignore[index]
            granted = self.purse.lease(name, short)
        self.workers[name].grant(number, granted)

    def logged(self, name: int, **cost: int) -> None:
        """A branch of a worker's has ended."""
        with self.lock:
            whole: Any = no_cost() | cost
            self.purse.logged(name, whole)
            self.total.record(**whole)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("field", [*Budget.model_fields])
def test_what_several_spend_is_exactly_the_limit(field: str, workers: int) -> None:
    """Each spends one by one until it is refused, which is when nothing is left anywhere."""
    bank = Bank(Budget(**{field: 97}), workers)
    spent = [0] * workers

    def work(name: int) -> None:
        task = Ledger(parent=bank.worker(name))
        while True:
            try:
                task.charge(**{field: 1})
            except BudgetExceeded as refused:
                assert refused.limit == field
                return
            spent[name] += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(spent) == 97
    assert (
        workers > 1 or bank.asked < 20
    )  # with several it is the scheduler's choice how often they take from each other


@pytest.mark.parametrize("seed", range(5))
def test_lease_of_the_dead_is_there_again_less_what_was_logged(seed: int) -> None:
    """Workers reserve, settle, log and die at random; at the end the books are even and the limit was never passed."""
    draw, bank = random.Random(seed), Bank(Budget(prompt_tokens=3000, env_steps=200), 3)
    tasks = {name: Ledger(parent=bank.worker(name)) for name in range(3)}
    open_cost = {name: no_cost() for name in tasks}
    for _ in range(400):
        name = draw.randrange(3)
        deed = draw.random()
        if deed < 0.7:
            try:
                tasks[name].charge(prompt_tokens=60, env_steps=1)
            except BudgetExceeded:
                continue
            used = draw.randrange(1, 60)
            tasks[name].record(prompt_tokens=used - 60)
            open_cost[name] = add_costs(open_cost[name], no_cost() | {"prompt_tokens": used, "env_steps": 1})  # type: ignore[arg-type]
        elif deed < 0.9:
            told = {field: open_cost[name][field] for field in ("prompt_tokens", "env_steps")}  # type: ignore[literal-required]
            bank.logged(name, **told)
            open_cost[name] = no_cost()
        else:
            bank.purse.lost(name)
            tasks[name], open_cost[name] = Ledger(parent=bank.worker(name)), no_cost()
        spent = bank.total.spent["prompt_tokens"] + sum(cost["prompt_tokens"] for cost in open_cost.values())
        assert spent <= 3000
    for name in tasks:
        bank.purse.lost(name)
    assert bank.purse.left("prompt_tokens") == 3000 - bank.total.spent["prompt_tokens"]
    assert bank.purse.left("env_steps") == 200 - bank.total.spent["env_steps"]


def test_what_is_spent_beyond_a_lease_is_not_there_for_others() -> None:
    """As where an answer is longer than was reserved for: who did it owes it, and others get what is really left."""
    bank = Bank(Budget(prompt_tokens=100), 2)
    first, second = (Ledger(parent=bank.worker(name)) for name in range(2))
    first.charge(prompt_tokens=10)
    first.record(prompt_tokens=30)
    bank.logged(0, prompt_tokens=40)
    assert bank.purse.left("prompt_tokens") == 60
    with pytest.raises(BudgetExceeded):
        second.charge(prompt_tokens=61)
    first.charge(prompt_tokens=20)
    second.charge(prompt_tokens=40)
    assert first.refuses(prompt_tokens=1) == second.refuses(prompt_tokens=1) == "prompt_tokens"


def test_limit_of_a_task_holds_while_the_total_is_asked_for() -> None:
    """Who waits for a part lets others spend, and they may have reached the task's own limit by then."""
    asked: list[int] = []
    total = Leased(Budget(env_steps=100), lambda number, short: asked.append(number))
    task = Ledger(Budget(env_steps=3), parent=total)
    refused: list[str] = []

    def spend() -> None:
        try:
            task.charge(env_steps=1)
        except BudgetExceeded as error:
            refused.append(error.limit)

    threads = [threading.Thread(target=spend) for _ in range(5)]
    for thread in threads:
        thread.start()
    while len(asked) < 5:
        time.sleep(0.001)
    for number in asked:
        total.grant(number, {"env_steps": 1})
    for thread in threads:
        thread.join(60)
    assert task.spent["env_steps"] == 3
    assert refused == ["env_steps"] * 2


def test_unlimited_fields_are_never_asked_for() -> None:
    """A run without a total budget sends nothing."""
    leased = Leased(Budget(env_steps=3), lambda *needed: pytest.fail("asked"))
    assert leased.refuses(model_calls=1, seconds=9.0) is None
    leased.record(env_steps=5)
    assert leased.refuses(env_steps=-1) is None


def test_branches_are_sent_together_and_what_is_waited_for_at_once() -> None:
    """In the order in which it was said; a large one does not wait for others."""
    outbox = Outbox(100, 30.0, beat=lambda: None)
    parcels = outbox.parcels()
    outbox.say("answered", some_time=True)
    outbox.say("branch", 1, size=60)
    outbox.say("branch", 2, size=60)
    assert next(parcels) == [("answered",), ("branch", 1), ("branch", 2)]
    outbox.say("branch", 3, size=1)
    outbox.say("finished", "task", now=True)
    assert next(parcels) == [("branch", 3), ("finished", "task")]


def test_branch_that_is_alone_is_sent_soon() -> None:
    """After the seconds that it may wait for others."""
    outbox = Outbox(100, 0.01, beat=lambda: ("calls", {"task": 3}))
    outbox.say("branch", 1, size=1)
    assert next(outbox.parcels()) == [("branch", 1), ("calls", {"task": 3})]


def test_warning_that_cannot_be_written_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a process of one's own: it is told on the worker's own output, and the tree grows on."""
    outbox = Outbox(100, 0.0, beat=lambda: None)
    for said, given in (("%d of %d", (1,)), ("%d of %d", (1, 2))):
        Warnings(outbox).handle(logging.LogRecord("a", logging.WARNING, "file", 1, said, given, None))
    assert next(outbox.parcels()) == [("warning", logging.WARNING, "1 of 2")]
    assert "not enough arguments" in capsys.readouterr().err


def kit(**other: Any) -> Kit:
    """What workers are handed."""
    given: dict[str, Any] = dict(
        model="vllm:m@http://127.0.0.1:1/v1",
        reflector=None,
        env=GridWorld,
        prompts=Prompts(),
        play=Play(),
        retry=None,
        strategy=STRATEGIES.of("leafe"),
        limits=Limits(),
        budget=Budget(),
        total_budget=Budget(),
        checkpointer=None,
        durability="async",
        interval=1.0,
    )
    return Kit(**given | other)


def script() -> GridWorld:
    """As if it stood in the script that is run."""
    return GridWorld()


script.__module__ = "__main__"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"model": ScriptedModel(reply=["up"])}, "model is ScriptedModel, an object of this process"),
        ({"reflector": ScriptedModel(reply=["up"])}, "reflector is ScriptedModel, an object of this process"),
        ({"model": lambda: None}, "model cannot be handed to workers .*lambda"),
        ({"env": lambda: None}, "env cannot be handed to workers"),
        ({"env": script}, "env cannot be handed to workers .*in the script that is run"),
        ({"prompts": Prompts(action=lambda message: "up")}, "prompts cannot be handed to workers"),
    ],
)
def test_what_exists_in_one_process_alone_is_refused_by_name(part: dict[str, Any], said: str) -> None:
    """Before anything is started, with what to do."""
    with pytest.raises(ConfigError, match=said):
        kit(**part).packed()
    assert kit().packed()


def test_what_a_factory_makes_must_be_a_chat_model() -> None:
    """As everywhere."""
    with pytest.raises(ConfigError, match="model is None"):
        made(lambda: None, "model")


def test_bar_tells_of_the_last_trees() -> None:
    """Once no other one waits for them: how many there are, and how far the longest is."""
    tasks = grid_tasks(4)
    bar = Progress("explore", tasks, [], Ledger(), shown=False)
    assert bar.counts()[0] == "0 won"
    bar.stragglers = lambda: {tasks[0]["id"]: 7, tasks[2]["id"]: 41}
    assert bar.counts()[:2] == ["2 tasks left, longest 41 calls", "0 won"]


def test_workers_are_settings() -> None:
    """Their number comes first; an address is one that Ray tells."""
    assert Workers(3, address="auto").number == 3
    with pytest.raises(ConfigError, match="number=0; expected 1 or more"):
        Workers(0)
    for address in ("ray://head:10001", "head"):
        with pytest.raises(ConfigError, match='expected "auto" or HOST:PORT'):
            Workers(1, address=address)
