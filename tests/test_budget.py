"""Limits hold, whoever spends, in whatever order, on however many threads."""

import pickle
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_graph.budget import Budget, Ledger, add_costs, no_cost
from leafe_graph.errors import BudgetExceeded

FIELDS = ["env_steps", "replayed_steps", "model_calls", "prompt_tokens", "completion_tokens", "reflections"]
LIMITS = st.builds(Budget, **{field: st.none() | st.integers(0, 20) for field in FIELDS})
CHARGE = st.dictionaries(st.sampled_from(FIELDS), st.integers(0, 8), min_size=1)


def within(ledger: Ledger) -> bool:
    """Whether no limit is exceeded, here and in the parents."""
    limits = {field: getattr(ledger.budget, field) for field in FIELDS}
    kept = all(limit is None or ledger.spent[field] <= limit for field, limit in limits.items())  # type: ignore[literal-required]
    return kept and (ledger.parent is None or within(ledger.parent))


def test_refused_charge_spends_nothing_anywhere() -> None:
    """The error names the limit; neither the ledger nor its parent has moved, not even in the fields with room."""
    total = Ledger(Budget(model_calls=1))
    task = Ledger(Budget(env_steps=5), parent=total)
    task.charge(env_steps=5, model_calls=1)
    for amounts, limit in (({"reflections": 1, "env_steps": 1}, "env_steps"), ({"model_calls": 1}, "model_calls")):
        with pytest.raises(BudgetExceeded, match=limit) as refused:
            task.charge(**amounts)
        assert refused.value.limit == limit
        assert pickle.loads(pickle.dumps(refused.value)).limit == limit
    assert task.spent == total.spent == no_cost() | {"env_steps": 5, "model_calls": 1}


def test_limit_can_be_spent_to_the_last_unit() -> None:
    """A charge that meets a limit exactly is granted; zero is granted even then; None is no limit."""
    ledger = Ledger(Budget(env_steps=3))
    ledger.charge(env_steps=3, model_calls=10**9)
    ledger.charge(env_steps=0)
    assert ledger.refuses(env_steps=1) == "env_steps"
    assert ledger.refuses(model_calls=1) is None


def test_reservation_is_given_back() -> None:
    """What an answer did not use is there again for the next one, in the parent too."""
    total = Ledger(Budget(completion_tokens=10))
    task = Ledger(parent=total)
    task.charge(completion_tokens=10)
    assert task.refuses(completion_tokens=1) == "completion_tokens"
    task.record(completion_tokens=-7)
    task.charge(completion_tokens=7)
    assert total.spent["completion_tokens"] == 10


def test_resumed_ledger_starts_with_what_was_spent() -> None:
    """What is known to be spent counts against its own limits, and is not charged to the parent a second time."""
    before = no_cost() | {"env_steps": 4}
    total = Ledger(spent=before)  # type: ignore[arg-type]
    task = Ledger(Budget(env_steps=5), spent=before, parent=total)  # type: ignore[arg-type]
    task.charge(env_steps=1)
    assert task.refuses(env_steps=1) == "env_steps"
    assert total.spent["env_steps"] == 5
    assert before["env_steps"] == 4


@given(LIMITS, LIMITS, st.lists(st.tuples(st.booleans(), CHARGE)))
def test_no_sequence_of_charges_exceeds_a_limit(
    total_limits: Budget, limits: Budget, charges: list[tuple[bool, dict[str, int]]]
) -> None:
    """Whatever two ledgers of one parent are asked: refused exactly when it would not fit; the parent is the sum."""
    total = Ledger(total_limits)
    children = [Ledger(limits, parent=total), Ledger(parent=total)]
    for first, amounts in charges:
        child = children[not first]
        fits = not any(
            limit is not None and amount and ledger.spent[field] + amount > limit  # type: ignore[literal-required]
            for ledger in (child, total)
            for field, amount in amounts.items()
            for limit in [getattr(ledger.budget, field)]
        )
        assert (child.refuses(**amounts) is None) == fits
        before = dict(child.spent), dict(total.spent)
        try:
            child.charge(**amounts)
        except BudgetExceeded:
            assert not fits
            assert (child.spent, total.spent) == before
        assert within(children[0])
        assert within(children[1])
    assert total.spent == add_costs(*(child.spent for child in children))


@settings(max_examples=20)
@given(LIMITS, st.lists(st.lists(CHARGE, max_size=30), min_size=2, max_size=8))
def test_no_limit_is_exceeded_by_threads(limits: Budget, charges: list[list[dict[str, int]]]) -> None:
    """Threads that reserve, give back and spend at once never see a limit exceeded, and nothing gets lost."""
    total = Ledger(limits)
    children = [Ledger(parent=total) for _ in charges]
    start, broken = threading.Barrier(len(charges)), []

    def spend(child: Ledger, wanted: list[dict[str, int]]) -> None:
        start.wait()
        for amounts in wanted:
            try:
                child.charge(**amounts)
            except BudgetExceeded:
                continue
            if not within(total):
                broken.append(amounts)
            child.record(**{field: -(amount // 2) for field, amount in amounts.items()})

    threads = [threading.Thread(target=spend, args=pair) for pair in zip(children, charges, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert total.spent == add_costs(*(child.spent for child in children))


def test_sixteen_threads_spend_a_budget_exactly() -> None:
    """Of 1,600 single steps that are asked for, exactly as many as the limit are granted."""
    total = Ledger(Budget(env_steps=997))
    granted: list[Any] = []

    def spend() -> None:
        child = Ledger(Budget(env_steps=80), parent=total)
        for _ in range(100):
            try:
                child.charge(env_steps=1)
            except BudgetExceeded:
                continue
            granted.append(child)

    threads = [threading.Thread(target=spend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == total.spent["env_steps"] == 997
    assert max(granted.count(child) for child in set(granted)) <= 80
