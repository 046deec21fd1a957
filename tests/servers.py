"""A model server on this machine that misbehaves as it is told, for the tests of faults."""

import json
import re
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, convert_to_messages, convert_to_openai_messages
from langgraph.types import RetryPolicy
from worlds import pit_reply

AT_ONCE = RetryPolicy(initial_interval=0.0, max_interval=0.0, max_attempts=3, jitter=False)
"""Three tries without a pause: `Retry-After` is cut to ``max_interval`` as well."""


PROMPT_IDS, REPLY_IDS = [1, 5, 7], [8, 2]
"""Token ids of every prompt and of every reply, its stop token included."""


class Server:
    """Speaks the OpenAI protocol. ``fault`` gives, from the number of the request (0 is the first), what goes wrong.

    None: it answers as `pit_reply` does. A number: that HTTP status. "garbage", "html", "null": answers that are none.
    "silence": the connection is closed without an answer. "torn": in the middle of one. "hang": no answer at all.
    "empty": an answer without text.
    ``ids``, what it does when asked for token ids: "vllm" and "sglang" give `PROMPT_IDS` and `REPLY_IDS` in the places
    of these two, "refuses" answers 400. Unless given, it ignores that. ``beside``: more fields of a message that says
    these words, such as the thoughts before them.
    ``lists``: the models that it names when asked which it has, or the status that it answers then; 501 unless given.
    """

    def __init__(
        self,
        fault: Callable[[int], str | int | None] | Sequence[str | int | None] = lambda n: None,
        *,
        port: int = 0,
        ids: Literal["vllm", "sglang", "refuses"] | None = None,
        lists: Sequence[str] | int = 501,
        beside: Callable[[str], dict[str, str]] = lambda words: {},
    ) -> None:
        self.ids, self.beside = ids, beside
        self.fault = fault if callable(fault) else lambda n: fault[n] if n < len(fault) else None
        self.requests: list[dict[str, Any]] = []
        self.hanging, self._lock, server = threading.Event(), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    fault = server.fault(len(server.requests))
                    server.requests.append(request)
                if fault == "hang":
                    server.hanging.wait(60)
                if fault in ("hang", "silence"):
                    self.close_connection = True
                    return
                status, kind, body = server.answer(request, fault)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Retry-After", "3600")
                self.send_header("Content-Length", str(len(body) + 100 * (fault == "torn")))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = fault == "torn"

            def do_GET(self) -> None:
                if isinstance(lists, int):
                    self.send_error(lists)
                    return
                models = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in lists]
                body = json.dumps({"object": "list", "data": models}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def answer(self, request: dict[str, Any], fault: str | int | None) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        if isinstance(fault, int):
            return fault, "application/json", json.dumps({"error": {"message": f"it is {fault}"}}).encode()
        if fault in ("garbage", "html"):
            return 200, "application/json" if fault == "garbage" else "text/html", b"<html>Please log in"
        asked = request.get("return_token_ids")
        if asked and self.ids == "refuses":
            refusal = {"error": {"message": "Unrecognized request argument supplied: return_token_ids"}}
            return 400, "application/json", json.dumps(refusal).encode()
        words = "" if fault == "empty" else pit_reply(convert_to_messages(request["messages"]))
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": words, **self.beside(words)},
            "finish_reason": "stop",
        }
        body: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": None if fault == "null" else [choice],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }
        if asked and self.ids:
            choice["token_ids"] = REPLY_IDS
            (body if self.ids == "vllm" else choice)["prompt_token_ids"] = PROMPT_IDS
        return 200, "application/json", json.dumps(body).encode()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_port)

    @property
    def url(self) -> str:
        """Its address for OpenAI clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def model(self) -> str:
        """What `load_model` takes."""
        return f"vllm:m@{self.url}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.hanging.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Scripted(Server):
    """One whose answers a function gives, also such that call tools."""

    def __init__(self, reply: Callable[[list[AnyMessage]], AIMessage]) -> None:
        super().__init__()
        self.reply = reply

    def answer(self, request: dict[str, Any], fault: str | int | None) -> tuple[int, str, bytes]:
        """The same, of a fault that there never is."""
        said = convert_to_openai_messages(self.reply(convert_to_messages(request["messages"])))
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }
        return 200, "application/json", json.dumps(body).encode()


def squares(requests: Sequence[dict[str, Any]]) -> list[str]:
    """Where the walker stood in each request."""
    return [re.findall(r"you are at (\d,\d)", request["messages"][-1]["content"])[-1] for request in requests]
