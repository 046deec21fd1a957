"""Trees are sent as traces once they are finished, and noted: whoever goes on with a run sends no span twice."""

import asyncio
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ..errors import ConfigError, LeafeError, MissingDependency
from ..files import path_of, writing
from ..parsing import json_line
from ..prompts import Prompts
from ..redaction import without_passwords
from ..tree.run_folder import RunFolder
from ..types import Branch
from .spans import Told, spans_of, texts_of

log = logging.getLogger(__name__)

SENT = "traced.jsonl"
"""In a run folder: how many branches of which task went to which address."""
PATH = "/v1/traces"
PAUSE = 60.0
"""Seconds before an address that took nothing is tried again."""


def trace(run: RunFolder | str | Path, to: str, *, prompts: Prompts | None = None) -> int:
    """Send what a run has logged as traces to an OpenTelemetry collector: a trace a task, a span a branch.

    What was sent to this address before is not sent again. Secrets are taken out.

    Args:
        run: a run folder.
        to: the collector, as ``https://HOST:PORT``; ``/v1/traces`` is put behind it. Headers and certificates are read
            from the variables ``OTEL_EXPORTER_OTLP_…``.
        prompts: the texts that the policy was run with; those that the run kept unless given.

    Returns:
        How many branches were sent. Those of releases that logged no times are left out.

    Raises:
        ConfigError: no run folder, an address that is none, or OpenTelemetry is switched off.
        MissingDependency: OpenTelemetry is not installed.
        LeafeError: the collector did not take it all; another call sends the rest.
    """
    with Tracing(run, to, prompts=prompts) as tracing:
        tracing.run.require()
        told = [*tracing.send_all([*tracing.run.trees])]
        for _, error in told:
            if isinstance(error, Exception):
                raise error
        return sum(sent for _, sent in told if isinstance(sent, int))


def unsent(run: RunFolder, to: str) -> bool:
    """Whether something that a run has logged was not sent to this address."""
    sent = dict(_noted(run.folder / SENT, without_passwords(address(to))))
    logged = Counter(outline.task["id"] for outline in run.all_outlines)
    return any(sent.get(task, 0) < branches for task, branches in logged.items())


class Tracing:
    """Sends the trees of a run that are finished, from a thread of its own.

    Args:
        run: a run folder; its log is read from the disk.
        to, prompts: as `trace` has them.
    """

    def __init__(self, run: RunFolder | str | Path, to: str, *, prompts: Prompts | None = None) -> None:
        self.to = address(to)
        try:
            from .otlp import Collector
        except ImportError as error:
            raise MissingDependency(extra="otel", needed_for="Sending traces") from error
        self._collector = Collector(self.to)
        self.run = RunFolder(run.folder if isinstance(run, RunFolder) else path_of(run))
        self._prompts = prompts
        self._places: dict[str, list[int]] = defaultdict(list)
        self._placed = 0
        self._sent = dict(_noted(self.run.folder / SENT, without_passwords(self.to)))
        self._id: str | None = None
        self._waiting: dict[str, None] = {}
        self._not_before = 0.0
        self._stopped = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="leafe-traces")

    def __enter__(self) -> "Tracing":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> "Tracing":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """`close`, which whoever cancels it does not wait for: then no other request is begun."""
        try:
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                self._stop()
            await asyncio.to_thread(self.close)
        except asyncio.CancelledError:
            self._stop()
            raise

    def close(self) -> None:
        """Send what waits, and say what could not be sent."""
        self._not_before = 0.0
        self._pool.submit(self._work)
        self._pool.shutdown()
        self._collector.close()
        self.run.close()
        if self._waiting:
            log.warning(
                "%d trees were not sent to %s: leafe trace %s --to ADDRESS sends them",
                *(len(self._waiting), without_passwords(self.to), self.run.folder),
            )

    def finished(self, task: str) -> None:
        """A task's tree is logged whole: send it soon."""
        self._pool.submit(self._work, task)

    def send(self, task: str) -> int:
        """Send what is logged of a task and was not sent; how many branches.

        Raises:
            LeafeError: the collector did not take it.
        """
        self.run.refresh()
        logged, branches = self.run.all_outlines, self.run.logged
        for place in range(self._placed, len(logged)):
            self._places[logged[place].task["id"]].append(place)
            self._id = self._id or _identity(branches[place])
        self._placed = len(logged)
        places = self._places[task]
        if self._id is None or (known := self._sent.get(task, 0)) >= len(places):
            return 0
        settings = self.run.settings
        told = Told(settings=settings, prompts=texts_of(settings, self._prompts))
        entries, sent = [(place, branches[place]) for place in places], 0
        for spans in spans_of(entries, known, told):
            if self._stopped:
                raise LeafeError("it was stopped")
            if spans:
                self._collector.take(spans, self._id, task)
                sent += 1
            known += 1
            self._sent[task] = known
            note = {"to": without_passwords(self.to), "task": task, "branches": known}
            with writing(self.run.folder), open(self.run.folder / SENT, "a", encoding="utf-8") as notes:
                notes.write("\n" + json_line(note))  # behind a line that a process died in
        return sent

    def send_all(self, tasks: Iterable[str]) -> Iterator[tuple[str, int | Exception]]:
        """`send` each of these tasks: how many branches of it, or why not. Where two in a row fail, it ends."""
        failed = 0
        for task in tasks:
            try:
                found: int | Exception = self.send(task)
                failed = 0
            except Exception as error:
                found, failed = error, failed + 1
            yield task, found
            if failed == 2:
                return

    def _stop(self) -> None:
        self._stopped = True
        self._collector.stop()

    def _work(self, task: str | None = None) -> None:
        if task is not None:
            self._waiting[task] = None
        if self._stopped or time.monotonic() < self._not_before:
            return
        for each, sent in self.send_all([*self._waiting]):
            del self._waiting[each]
            if isinstance(sent, Exception):
                self._waiting[each] = None  # behind the others, which it does not hold up
                if self._stopped:
                    return
                log.warning("a trace was not sent, which is tried again: %s", sent)
                self._not_before = time.monotonic() + PAUSE


def address(to: str) -> str:
    """Where a collector takes traces.

    Raises:
        ConfigError: that is no address.
    """
    try:
        parts = urlsplit(to)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"trace_to={to!r}; expected the address of an OpenTelemetry collector, http://HOST:PORT")
    own = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=own if own.endswith(PATH) else own + PATH))


def _noted(file: Path, to: str) -> Iterator[tuple[str, int]]:
    """How many branches of each task went there."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        with suppress(ValueError, LookupError, TypeError):
            if (note := json.loads(line))["to"] == to:
                yield note["task"], note["branches"]


def _identity(first: Branch) -> str | None:
    """What tells a run from all others: when the first branch began that says so."""
    return json.dumps([first["task"]["id"], first["id"], first["time"]["started"]]) if "time" in first else None
