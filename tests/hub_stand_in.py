"""A Hugging Face hub on this machine: it makes repositories and takes commits of small files."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HARNESSES = "/api/agent-harnesses"
"""What huggingface_hub asks of its own accord, without a token."""


class Hub:
    """What it was sent. ``refuses``: the HTTP status that the next commits get."""

    def __init__(self) -> None:
        self.refuses: int | None = None
        self.repositories: dict[str, dict[str, Any]] = {}
        """Request bodies by name."""
        self.files: dict[str, bytes] = {}
        """Of all commits together."""
        self.tokens: set[str | None] = set()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        if path == HARNESSES:
            return 404, {"error": "none"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.repositories
            self.repositories.setdefault(name, asked)
            return 409 if known else 200, {"url": f"{self.url}/{name}"}
        _, _, _, user, name, what, *_ = path.split("/")
        if f"{user}/{name}" not in self.repositories:
            return 404, {"error": "no such repository"}
        if what == "tree":
            return 200, [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files]
        if what == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if self.refuses is not None:
            return self.refuses, {"error": "refused"}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        return 200, {"commitUrl": f"{self.url}/{user}/{name}/commit/0", "commitOid": "0"}

    @contextmanager
    def served(self) -> Iterator[str]:
        """Listen; its address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def do_POST(self) -> None:
                if self.path != HARNESSES:
                    hub.tokens.add(self.headers["Authorization"])
                status, said = hub.answer(self.path, self.rfile.read(int(self.headers["Content-Length"] or 0)))
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self.url
        finally:
            http.shutdown()
            http.server_close()
            thread.join()
