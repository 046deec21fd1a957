"""Actors on Ray while they come up: what dies, hangs or is interrupted then."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from leafe_graph.errors import ConfigError, WorkersLost
from leafe_graph.exploration import actors
from leafe_graph.settings import Workers


def actor(*outcomes: Exception | None) -> Any:
    """Answers `prepare` with these one after the other, then not at all."""
    left = iter(outcomes)

    async def prepare(check: bool) -> None:
        outcome = next(left, "none")
        if outcome == "none":
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome

    return SimpleNamespace(prepare=SimpleNamespace(remote=prepare))


def test_worker_that_dies_before_any_is_ready_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started anew, or another one is ready; where none ever is, the last death is told."""
    lost = pytest.importorskip("ray.exceptions").ActorUnavailableError("killed for its memory", None)
    monkeypatch.setattr(actors, "AGAIN", 0.0)
    asyncio.run(actors._first([actor(lost, lost, None)], Workers(1)))
    asyncio.run(actors._first([actor(lost), actor(None)], Workers(2)))
    with pytest.raises(WorkersLost, match=r"within 0\.05 seconds; .*the last one died: .*killed for its memory"):
        asyncio.run(actors._first([actor(lost), actor()], Workers(2, timeout=0.05)))
    with pytest.raises(ConfigError, match="nothing to import"):
        asyncio.run(actors._first([actor(lost, ConfigError("nothing to import"))], Workers(1)))


def test_run_that_is_cancelled_while_ray_starts_leaves_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start cannot be cut short: its end is waited for, and what it has started is ended."""
    ray, up, go_on = pytest.importorskip("ray"), threading.Event(), threading.Event()

    def connect(*given: Any) -> None:
        go_on.wait()
        up.set()

    monkeypatch.setattr(actors, "_connect", connect)
    monkeypatch.setattr(ray, "shutdown", up.clear)

    async def cancelled() -> None:
        async def enter() -> None:
            async with actors.started(Workers(1), b"", concurrency=1, tasks=1):
                raise AssertionError("it was cancelled before")

        run = asyncio.create_task(enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        run.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancelled())
    assert go_on.is_set() and not up.is_set()
