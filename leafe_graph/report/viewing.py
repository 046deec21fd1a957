"""A run served to browsers of this machine, and followed while it is played."""

import re
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import ConfigError, LeafeError
from ..settings import Rows
from ..tree.branches import telling
from ..tree.run_folder import RunFolder
from .contents import as_json, outline, overview, trees
from .page import head, script
from .wholes import bench_overview, is_bench, is_rounds, rounds_overview, rows_of_rounds

HOST = "127.0.0.1"
POLL = 1.0
"""Seconds between two looks at a run that somebody follows."""
_PATH = re.compile(r"/(round-\d+/)?(?:(report\.html)?|(overview\.json)|(events)|trees/(\d{1,9})\.json)")


class Viewer(ThreadingHTTPServer):
    """Serves the viewer of a folder until `shutdown`; ``with`` closes it.

    It listens on this machine alone, and answers no page of another origin: neither one that says so, nor one whose
    name was made to lead here.

    Args:
        folder: a run folder, or one of ``leafe run`` or ``leafe bench``.
        port: where to listen; 0 takes a free one.

    Raises:
        ConfigError: it is none of them, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.ended = folder, threading.Event()
        self._shown: dict[str, _Shown] = {}
        self._lock = threading.Lock()
        self.shown("")  # refuses what is no run
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"port {port} of {HOST} cannot be served at: {error.strerror}; give another") from error

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/"

    def shown(self, place: str) -> "_Shown":
        """What is shown at a place: the folder's own, or a round's, as ``round-1/``.

        Raises:
            ConfigError: there is nothing to show.
        """
        with self._lock:
            if place not in self._shown:
                self._shown[place] = _shown(self.folder, place)
            return self._shown[place]

    def shutdown(self) -> None:
        """Stop, also for those who follow."""
        self.ended.set()
        super().shutdown()


class _Shown:
    """A whole ``leafe run`` or ``leafe bench``, whose overview is all there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()

    def version(self) -> str:
        """Another text when there is something new."""
        files = [self.folder / "rounds.json", self.folder / "table.json", *sorted(self.folder.glob("round-*"))]
        return " ".join(str(file.stat().st_mtime_ns) for file in files if file.exists())

    def overview(self) -> dict[str, Any]:
        return bench_overview(self.folder) if is_bench(self.folder) else rounds_overview(self.folder)

    def tree(self, place: int) -> Mapping[str, Any]:
        raise LookupError(place)


class _ShownRun(_Shown):
    """A run folder, which may still grow: its tasks in the order in which they were begun."""

    def __init__(self, folder: Path, rows: Rows | None) -> None:
        super().__init__(folder)
        self.run, self.rows = RunFolder(folder), rows
        self.run.require()

    def version(self) -> str:
        self.run.refresh()
        judged = sorted((self.folder / "eval").glob("*.json"))
        return " ".join([str(len(self.run.all_outlines)), *(str(file.stat().st_mtime_ns) for file in judged)])

    def overview(self) -> dict[str, Any]:
        ranks = {task: rank for rank, task in enumerate(telling(self.run))}
        known = self.run.trees.outlines
        return overview(self.run) | {"trees": [outline(known[task].values(), ranks[task]) for task in known]}

    def tree(self, place: int) -> Mapping[str, Any]:
        return next(trees(self.run, [[*self.run.trees][place]], self.rows))


def _shown(folder: Path, place: str) -> _Shown:
    if place:
        if not is_rounds(folder):
            raise ConfigError(f"{folder} has no rounds")
        return _ShownRun(folder / place, rows_of_rounds(folder))
    if is_rounds(folder) or is_bench(folder):
        return _Shown(folder)
    return _ShownRun(folder, None)


class _Handler(BaseHTTPRequestHandler):
    server: Viewer

    def do_GET(self) -> None:
        """Answer a page, its data, or what is new."""
        try:
            self._answer()
        except LookupError:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such tree")
        except ConfigError as error:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", str(error).encode(errors="replace"))
        except LeafeError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode(errors="replace"))
        except (BrokenPipeError, ConnectionResetError):  # the browser went elsewhere
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing: every look at a tree would be a line."""

    def _answer(self) -> None:
        if (why := self._refused()) is not None:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", why.encode())
            return
        asked = urlsplit(self.path)
        found = _PATH.fullmatch(asked.path)
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")
            return
        place, _, data, events, tree = found.groups()
        shown = self.server.shown(place or "")
        if events:
            self._follow(shown, parse_qs(asked.query).get("seen", [""])[0])
            return
        with shown.lock:
            if tree:
                told: Any = shown.tree(int(tree))
            else:
                version = shown.version()
                told = shown.overview() | {"version": version}
        if data or tree:
            self._send(HTTPStatus.OK, "application/json", as_json(told))
        else:
            page = f"{head(told, live=True)}<script>{script()}</script>\n</body></html>\n"
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(errors="replace"))

    def _refused(self) -> str | None:
        """Why a request is not answered: it was made for another host, or by a page of another origin."""
        own = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if (host := self.headers.get("Host")) not in own:
            return f"this is {self.server.address}, not {host}"
        if (origin := self.headers.get("Origin")) is not None and origin not in {f"http://{name}" for name in own}:
            return f"no page of {origin} is answered"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return "no page of another site is answered"
        return None

    def _follow(self, shown: _Shown, seen: str) -> None:
        """Say when there is something new, until one of both goes."""
        seen = self.headers.get("Last-Event-ID") or seen
        self._begin(HTTPStatus.OK, "text/event-stream")
        for version in _versions(shown, self.server.ended):
            news = f"id: {version}\nevent: grown\ndata: {version}\n\n"
            self.wfile.write((news if version != seen else ": still here\n\n").encode())
            self.wfile.flush()
            seen = version

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind, len(body))
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _versions(shown: _Shown, ended: threading.Event) -> Iterator[str]:
    while not ended.wait(POLL):
        with shown.lock:
            version = shown.version()
        yield version
