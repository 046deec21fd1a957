"""One chat model over several servers of the same model: the least busy one is asked, those that are down are not.

A failed call is not made again here: the agent does that, and counts; it then meets another server. Which server is
asked first depends on the task alone, so that its prompts find their prefixes in one cache.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
"""Requests that the server with a task's prefixes may have in flight beyond those of the least busy one."""

_CLIENTS = ("client", "async_client", "root_client", "root_async_client")


class Servers:
    """Which server gets the next request; for any number of threads and event loops."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._in_flight = dict.fromkeys(urls, 0)
        self._out_until = dict.fromkeys(urls, 0.0)

    def take(self, key: str) -> str:
        """The address for a request whose prompt begins with ``key``. With all left out, the one that was so first."""
        with self._lock:
            now, in_flight = time.monotonic(), self._in_flight
            well = [url for url, until in self._out_until.items() if until <= now]
            well = well or [min(self._out_until, key=self._out_until.__getitem__)]
            least = min(well, key=in_flight.__getitem__)
            home = max(well, key=lambda url: hashlib.sha256(f"{url} {key}".encode()).digest())
            url = home if in_flight[home] <= in_flight[least] + SLACK else least
            if self._out_until[url]:  # the others wait for what this one finds
                self._out_until[url] = now + LEFT_OUT
            in_flight[url] += 1
            return url

    def give_back(self, url: str, *, well: bool) -> None:
        """The request has ended; ``well``: the server is up."""
        with self._lock:
            self._in_flight[url] -= 1
            self._out_until[url] = 0.0 if well else time.monotonic() + LEFT_OUT


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
