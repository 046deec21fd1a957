"""An OpenTelemetry collector on 127.0.0.1: what it is sent over HTTP, read by OpenTelemetry's own messages."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class OtlpCollector:
    """Takes traces while it is entered; ``status`` is what it answers, 413 to what has ``refused`` in it."""

    def __init__(self) -> None:
        self.status = 200
        self.refused: bytes | None = None
        self.asked, self.answers = threading.Event(), threading.Event()
        """Whether something has come, and whether it is answered yet."""
        self.answers.set()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.resource: dict[str, Any] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.set()
                collector.answers.wait()
                status = 413 if collector.refused and collector.refused in body else collector.status
                if status == 200:
                    packed = self.headers.get("Content-Encoding") == "gzip"
                    collector.bodies.append(gzip.decompress(body) if packed else body)
                    collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                    collector.paths.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OtlpCollector":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans that came, in their order."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource = _attributes(resource.resource.attributes)
                found += [_span(span) for scope in resource.scope_spans for span in scope.spans]
        return found


def _span(span: Any) -> dict[str, Any]:
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "failed": span.status.code == 2,
        "said": span.status.message,
        "links": [link.span_id.hex() for link in span.links],
        "events": {event.name: _attributes(event.attributes) for event in span.events},
        **_attributes(span.attributes),
    }


def _attributes(held: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in held}


def messages(span: dict[str, Any], which: str) -> Any:
    """What a call was asked, "input", or what it answered, "output"."""
    return json.loads(span[f"gen_ai.{which}.messages"])
