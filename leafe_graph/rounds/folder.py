"""Where a run of rounds keeps what, and how a phase is played once.

::

    run.json                 what the run was started with
    rounds.json, curve.svg   held-out Pass@k over the rounds, with what each cost
    round-0/eval/            how the policy that the run starts from does
    round-1/                 a run folder: branches.jsonl, examples/, adapter/, eval/, report.html
    round-1/done/PHASE.json  a finished phase; it is never played again

Nothing else is kept: which phase comes next follows from the marks that are there.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import save_json
from .config import RunConfig

log = logging.getLogger(__name__)


def round_folder(config: RunConfig, number: int) -> Path:
    """The run folder of a round."""
    return config.out / f"round-{number}"


def result_file(folder: Path) -> Path:
    """The JSON that the evaluation of a round writes."""
    return folder / "eval" / f"{folder.name}.json"


def mark(folder: Path, phase: str) -> Path:
    """The file that says that a phase is finished, and what it came to."""
    return folder / "done" / f"{phase}.json"


def once(folder: Path, phase: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a phase came to; it is played unless its mark is there.

    ``seconds`` are those of the call that finished it.
    """
    file = mark(folder, phase)
    if not file.exists():
        log.info("%s: %s", folder.name, phase)
        started = time.monotonic()
        facts = work()
        save_json(file, {"seconds": round(time.monotonic() - started, 1), **facts})
    else:
        log.info("%s: %s is there", folder.name, phase)
    return done(folder, phase)


def done(folder: Path, phase: str) -> dict[str, Any]:
    """What a finished phase came to."""
    facts: dict[str, Any] = json.loads(mark(folder, phase).read_text(encoding="utf-8"))
    return facts
