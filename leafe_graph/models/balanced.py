"""One chat model over several servers of the same model: a task stays with one of them, and those down are not asked.

A failed call is not made again here: the agent does that, and counts; it then meets another server. A task's prompts go
to one server, so that they find their prefixes in one cache.
"""

import bisect
import hashlib
import random
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from pydantic import PrivateAttr

from .connection import direct
from .vllm_chat import VllmChatModel

LEFT_OUT = 5.0
"""Seconds after which a server that failed is tried again, by one request at first."""
SLACK = 4
"""Requests that the server with a task's prefixes may have in flight beyond those of the less busy of two others."""
POINTS = 128
"""Points of each server on the ring: their shares of it differ by about a tenth."""
CHOICES = 3
"""Points of each task on the ring. A third evens out more than what the servers' shares differ by."""
TASKS = 2**16
"""Tasks whose places are remembered."""

_CLIENTS = ("client", "async_client", "root_client", "root_async_client")


def _numbers(text: str, count: int) -> "array[int]":
    """So many numbers below 2⁶⁴ that depend on the text alone."""
    return array("Q", hashlib.shake_128(text.encode()).digest(8 * count))


@lru_cache(maxsize=8)
def _ring(urls: tuple[str, ...]) -> "tuple[array[int], list[str]]":
    """The points of all servers in order, and whose each is: without one of them, the others' are where they were."""
    points = sorted((point, url) for url in urls for point in _numbers(url, POINTS))
    return array("Q", [point for point, _ in points]), [url for _, url in points]


class Servers:
    """Which server gets the next request; for any number of threads and event loops.

    Consistent hashing: a task has some points on a ring of servers, and its place is the one whose server has least to
    do when the task is first seen. Its requests go to the first server from there on that is up, or, while that one is
    too busy, to the less busy of two others that are drawn. All of it takes the same time however many servers there
    are, and evens them out also where many processes know of their own requests only.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._in_flight = dict.fromkeys(urls, 0)
        self._out: dict[str, float] = {}  # until when; the first has been so for longest
        self._points, self._owners = _ring(tuple(self._in_flight))
        self._place = lru_cache(TASKS)(self._less_busy)
        self._random = random.Random()

    def take(self, key: str) -> str:
        """The address for a request whose prompt begins with ``key``. With all left out, the one that was so first."""
        with self._lock:
            now, in_flight = time.monotonic(), self._in_flight
            home = next(self._from(self._place(*_numbers(key, CHOICES)), now))
            url = home
            if in_flight[home] > SLACK:
                drawn = self._from(self._random.getrandbits(64), now)
                others = islice((other for other in drawn if other != home), 2)
                other = min(others, key=in_flight.__getitem__, default=home)
                url = home if in_flight[home] <= in_flight[other] + SLACK else other
            if url in self._out:  # the others wait for what this one finds
                self._leave_out(url, now)
            in_flight[url] += 1
            return url

    def give_back(self, url: str, *, well: bool) -> None:
        """The request has ended; ``well``: the server is up."""
        with self._lock:
            self._in_flight[url] -= 1
            if well:
                self._out.pop(url, None)
            else:
                self._leave_out(url, time.monotonic())

    def _leave_out(self, url: str, now: float) -> None:
        self._out.pop(url, None)
        self._out[url] = now + LEFT_OUT

    def _less_busy(self, *points: int) -> int:
        """The one of these points whose server has least to do, as far as it is known here."""
        now = time.monotonic()
        return min(points, key=lambda point: self._in_flight[next(self._from(point, now))])

    def _from(self, point: int, now: float) -> Iterator[str]:
        """The servers that may be asked, each once, in their order on the ring from this point on; one at least."""
        first = next(iter(self._out), None)
        if first is not None and len(self._out) == len(self._in_flight) and self._out[first] > now:
            yield first
            return
        seen: set[str] = set()
        start, owners = bisect.bisect_left(self._points, point), self._owners
        for at in range(start - len(owners), start):
            url = owners[at]
            if url not in seen and self._out.get(url, now) <= now:
                seen.add(url)
                yield url


class BalancedChatModel(VllmChatModel):
    """`VllmChatModel` over several addresses: ``load_model("vllm:NAME@http://A/v1,http://B/v1")``. It never streams.

    Copies and bindings share what is known of the servers.
    """

    base_urls: list[str]
    """Addresses of OpenAI-compatible servers that serve the same models."""

    _servers: Servers = PrivateAttr()
    _clients: dict[str, dict[str, Any]] = PrivateAttr()

    def __init__(self, *, base_urls: list[str], **data: Any) -> None:
        first = direct(base_urls[0]) | data
        super().__init__(base_urls=base_urls, base_url=base_urls[0], disable_streaming=True, **first)
        self._servers = Servers(base_urls)
        each = {url: VllmChatModel(base_url=url, **direct(url) | data) for url in base_urls}
        self._clients = {url: {name: getattr(model, name) for name in _CLIENTS} for url, model in each.items()}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._server(messages) as server:
            return VllmChatModel._generate(server, messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._server(messages) as server:
            return await VllmChatModel._agenerate(server, messages, stop, run_manager, **kwargs)

    @contextmanager
    def _server(self, messages: list[BaseMessage]) -> Iterator["BalancedChatModel"]:
        """This model with one server's clients. Its instruction and first observation stand for the task."""
        url, well = self._servers.take(repr([message.text for message in messages[:2]])), False
        try:
            yield self.model_copy(update=self._clients[url])
            well = True
        except Exception as error:
            status = getattr(error, "status_code", None)
            well = isinstance(status, int) and status < 500 and status != 404
            if status == 404:  # it was started anew, and its adapters are not loaded yet: others have them
                raise ConnectionError(f"{url} does not serve {self.model_name}: {error}") from error
            raise
        finally:
            self._servers.give_back(url, well=well)
