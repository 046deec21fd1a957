"""LangGraph's own conformance suite for checkpoint savers, over ours."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import BASE_CAPABILITIES
from savers import POSTGRES_TREE, TREE, opener


@pytest.mark.parametrize("kind", [TREE, POSTGRES_TREE])
def test_our_savers_conform(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every test of all that a saver must be able to do, on an empty database each."""

    def place(number: int) -> Path | str:
        if kind == TREE:
            return tmp_path / f"{number}.sqlite"
        address: str = request.getfixturevalue("postgres_server").new_database()
        return address

    openers: list[Callable[[], AbstractContextManager[Any]]] = []

    @checkpointer_test(name=kind)
    async def saver() -> AsyncGenerator[Any, None]:
        openers.append(opener(kind, place(len(openers))))
        with openers[-1]() as opened:
            yield opened

    report = asyncio.run(validate(saver))
    results = {each.value: report.results[each.value] for each in BASE_CAPABILITIES}
    assert {name: each.failures for name, each in results.items()} == {name: [] for name in results}
    assert all(each.passed and each.tests_passed > 0 for each in results.values())
