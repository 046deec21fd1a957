"""Exploring asks four things of the place where decision points are kept; every saver can be that place."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from postgres import Server
from savers import SAVERS, opener

from leafe_graph.checkpoint import DecisionPoints, TreeSaver, open_points, open_saver
from leafe_graph.checkpoint.points import Saved


async def threads(points: DecisionPoints) -> set[str]:
    """The threads that are there, for savers of sync graphs and of async ones."""
    assert points.saver is not None
    try:
        found: list[Any] = [each async for each in points.saver.alist(None)]
    except NotImplementedError:
        found = list(points.saver.list(None))
    return {each.config["configurable"]["thread_id"] for each in found}


async def put(points: DecisionPoints, thread_id: str) -> None:
    """One checkpoint of a thread."""
    assert points.saver is not None
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    try:
        await points.saver.aput(config, empty_checkpoint(), {}, {})
    except NotImplementedError:
        points.saver.put(config, empty_checkpoint(), {}, {})


@pytest.mark.parametrize("kind", SAVERS)
def test_any_saver_keeps_drops_and_shrinks(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whether it writes behind or through, and is for sync graphs or async ones."""
    where: Path | str = tmp_path / "c.sqlite"
    if "Postgres" in kind:
        server: Server = request.getfixturevalue("postgres_server")
        where = server.new_database()
    opening = opener(kind, where)()

    async def lives() -> set[str]:
        async with AsyncExitStack() as stack:
            there = opening if hasattr(opening, "__aenter__") else stack.enter_context(opening)
            points = open_points(await open_saver(there, stack), stack, file=None)
            for thread_id in ("one", "other"):
                await put(points, thread_id)
                await points.flush(thread_id)
            await points.drop("one")
            await points.drop("one")
            await points.shrink()
            return await threads(points)

    assert asyncio.run(lives()) == {"other"}


def test_what_was_flushed_is_in_the_file(tmp_path: Path) -> None:
    """In the run's own, whose puts wait long for others; what was not flushed is not there yet."""
    file = tmp_path / "c.sqlite"

    async def seen() -> list[str]:
        async with AsyncExitStack() as stack:
            points = open_points(None, stack, file=file, interval=60)
            for thread_id in ("one", "other"):
                await put(points, thread_id)
            await points.flush("one")
            with TreeSaver(file) as reader:
                return list(reader.threads())

    assert asyncio.run(seen()) == ["one"]


def test_a_saver_that_writes_behind_is_asked_to_flush(tmp_path: Path) -> None:
    """What it can do counts, not what its class is called."""
    asked: list[str | None] = []

    class Mine(TreeSaver):
        def flush(self, thread_id: str | None = None) -> None:
            asked.append(thread_id)

    with Mine(tmp_path / "c.sqlite") as saver:
        asyncio.run(Saved(saver).flush("one"))
    assert asked == ["one"]


def test_nothing_is_kept_where_nothing_forks(tmp_path: Path) -> None:
    """No saver and no file; the questions may be asked all the same."""

    async def asked() -> DecisionPoints:
        async with AsyncExitStack() as stack:
            points = open_points(None, stack, file=None)
            await points.flush("one")
            await points.drop("one")
            await points.shrink()
            return points

    assert asyncio.run(asked()).saver is None
    assert list(tmp_path.iterdir()) == []
