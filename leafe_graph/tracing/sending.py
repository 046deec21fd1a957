"""Trees are sent as traces once they are finished, and noted: whoever goes on with a run sends no span twice."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ..errors import ConfigError, MissingDependency
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
        ConfigError: no run folder, or an address that is none.
        MissingDependency: OpenTelemetry is not installed.
        LeafeError: the collector did not take it all; another call sends the rest.
    """
    with Tracing(run, to, prompts=prompts) as tracing:
        tracing.run.require()
        return sum(tracing.send(task) for task in [*tracing.run.trees])


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
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="leafe-traces")

    def __enter__(self) -> "Tracing":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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
        logged = self.run.all_outlines
        for place in range(self._placed, len(logged)):
            self._places[logged[place].task["id"]].append(place)
        self._placed = len(logged)
        places, branches = self._places[task], self.run.logged
        if (known := self._sent.get(task, 0)) >= len(places):
            return 0
        self._id = self._id or _identity(branches)
        if self._id is None:
            return 0
        settings = self.run.settings
        told = Told(settings=settings, prompts=texts_of(settings, self._prompts))
        entries, sent = [(place, branches[place]) for place in places], 0
        for spans in spans_of(entries, known, told):
            if spans:
                self._collector.take(spans, self._id, task)
                sent += 1
            known += 1
            self._sent[task] = known
            note = {"to": without_passwords(self.to), "task": task, "branches": known}
            with writing(self.run.folder), open(self.run.folder / SENT, "a", encoding="utf-8") as notes:
                notes.write("\n" + json_line(note))  # behind a line that a process died in
        return sent

    def _work(self, task: str | None = None) -> None:
        if task is not None:
            self._waiting[task] = None
        if time.monotonic() < self._not_before:
            return
        for each in [*self._waiting]:
            try:
                self.send(each)
            except Exception as error:
                log.warning("a trace was not sent, which is tried again: %s", error)
                self._not_before = time.monotonic() + PAUSE
                return
            del self._waiting[each]


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


def _identity(branches: Sequence[Branch]) -> str | None:
    """What tells a run from all others: when its first branch began; None where none of them says."""
    first = next((branch for branch in branches if "time" in branch), None)
    return None if first is None else json.dumps([first["task"]["id"], first["id"], first["time"]["started"]])
