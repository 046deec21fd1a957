"""Jobs in processes of their own, some at once, until there is nothing more to do."""

import logging
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..terminal import streams
from .child import end_with_parent, ignore_ctrl_c

log = logging.getLogger(__name__)

FAILED = 1
"""Exit code of a job that said why it failed."""


@dataclass(frozen=True)
class Job:
    """A call to make in a fresh process."""

    name: str
    """Tells it from other jobs."""
    function: Callable[..., object]
    args: tuple[Any, ...]
    log: Path
    """Takes what it prints."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it has otherwise."""


def side_by_side(ready: Callable[[], Iterable[Job]], at_once: int) -> dict[str, str]:
    """Run jobs until none is ready; what those said that failed, by their names.

    Args:
        ready: the jobs that could begin now, the most urgent first. It is asked whenever one has ended; jobs that run
            or have failed may be among them, and those that are done must not.
        at_once: processes at the same time.

    All end with this process, and with an error or a Ctrl-C in it.
    """
    context = multiprocessing.get_context("forkserver")
    running: dict[Any, tuple[Job, BaseProcess, float]] = {}
    failed: dict[str, str] = {}
    try:
        while True:
            busy = {job.name for job, _, _ in running.values()} | failed.keys()
            for job in ready():
                if len(running) >= at_once:
                    break
                if job.name in busy:
                    continue
                busy.add(job.name)
                process = context.Process(target=_work, args=(job,))
                process.start()
                running[process.sentinel] = job, process, time.monotonic()
                log.info("%s: begun", job.name)
            if not running:
                return failed
            for sentinel in wait(list(running)):
                job, ended, started = running.pop(sentinel)
                ended.join()
                seconds = time.monotonic() - started
                if ended.exitcode:
                    said = _last_words(job.log) if ended.exitcode == FAILED else ""  # killed, it had not its last say
                    failed[job.name] = said or f"it died (exit code {ended.exitcode})"
                    log.warning("%s: failed after %.0f s, see %s", job.name, seconds, job.log)
                else:
                    log.info("%s: done in %.0f s", job.name, seconds)
    finally:
        for _, left, _ in running.values():
            left.kill()
            left.join()


def _work(job: Job) -> None:
    ignore_ctrl_c()
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ.update(job.environment)  # before anything heavy is imported
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    streams.ready()
    streams.log_to_people()
    try:
        job.function(*job.args)
    except BaseException as error:
        print("".join(traceback.format_exception(error)), flush=True)
        print(f"{type(error).__name__}: {error}", flush=True)
        streams.flush()
        os._exit(FAILED)


def _last_words(file: Path) -> str:
    """The last line of a log that says something."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
