"""The run folder: settings, an append-only log of finished branches, and a lock.

::

    config.json         what the run was started with; the same command resumes it, another one is refused
    branches.jsonl      one finished branch a line, fsynced; a torn last line is dropped and that branch done again
    checkpoints.sqlite  LangGraph's checkpoints, in a TreeSaver: where the next branches fork
    examples/ adapter/ eval/ report.html   made by the later commands

Everything that a resumed run needs to know follows from the log, so a kill at any moment loses at most the branches
that were being played. A branch that a model or an environment failed is played again by a resumed run: then its last
line counts, and all lines' costs.
"""

import contextlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..budget import add_costs, no_cost
from ..errors import ConfigError, RunFolderError
from ..files import lock_folder, path_of, refuse_other_settings, save_json, writing
from ..parsing import json_line
from ..redaction import without_passwords
from ..settings import defaults
from ..text import utf8_all
from ..types import FORMAT_VERSION, Branch, Cost
from .run_settings import RunSettings, read_config, run_settings, same_policy

log = logging.getLogger(__name__)


class RunFolder:
    """A run on disk. Opened for reading unless `lock` is used; then this process is its only writer."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = path_of(folder)
        self.branches: list[Branch] = []
        """In the order in which they ended."""
        self.superseded: list[Branch] = []
        """Tries of branches that failed and were played again. Their costs count, nothing else of them does."""
        self.logged: list[Branch] = []
        """All of both, in the order of the log."""
        self._log: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._read(repair=False)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self.branches)} branches of {len(self.trees)} tasks, {len(self.solved)} solved"

    def __repr__(self) -> str:
        return f"RunFolder({self})"

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.json`` says; empty for a new folder."""
        return read_config(self.folder / "config.json")

    def require(self) -> None:
        """See that there is a run.

        Raises:
            ConfigError: there is none.
        """
        if not self.config:
            raise ConfigError(f"{self.folder} is not a run folder (it has no config.json): give one that explore made")

    @property
    def settings(self) -> RunSettings:
        """What the run was started with.

        Raises:
            RunFolderError: this release does not understand it.
        """
        return run_settings(self.config, self.folder / "config.json")

    @property
    def cost(self) -> Cost:
        """What all logged branches cost together."""
        return add_costs(*self.costs.values())

    @property
    def costs(self) -> dict[str, Cost]:
        """What the logged branches of each task cost together."""
        costs: dict[str, Cost] = defaultdict(no_cost)
        for branch in (*self.superseded, *self.branches):
            costs[branch["task"]["id"]] = add_costs(costs[branch["task"]["id"]], branch["cost"])
        return costs

    @property
    def trees(self) -> dict[str, dict[str, Branch]]:
        """Branches by task id and branch id, in the order of the log."""
        trees: dict[str, dict[str, Branch]] = defaultdict(dict)
        for branch in self.branches:
            trees[branch["task"]["id"]][branch["id"]] = branch
        return dict(trees)

    @property
    def solved(self) -> set[str]:
        """Ids of the tasks that some branch solved."""
        return {branch["task"]["id"] for branch in self.branches if branch["end"] == "success"}

    def open(self, config: Mapping[str, Any]) -> "RunFolder":
        """Become the folder's only writer; resumes if it holds a run with the same settings.

        Raises:
            RunFolderError: another process writes to it.
            ConfigError: it holds a run with other settings; the message names them.
        """
        self._lock = lock_folder(self.folder)
        try:
            with writing(self.folder):
                told = utf8_all(json.loads(json.dumps({"version": FORMAT_VERSION, **config})))
                self._claim(without_passwords(told))
                self._read(repair=True)
                self._log = open(self.folder / "branches.jsonl", "ab", buffering=0)  # noqa: SIM115
        except BaseException:
            self.close()
            raise
        return self

    def append(self, branch: Branch) -> None:
        """Log a finished branch; on disk when this returns. One of the same name before it is superseded.

        Raises:
            RunFolderError: it could not be written whole, as on a full disk; the log is as it was.
        """
        self.write([branch])
        self.add(branch)

    def write(self, branches: Sequence[Branch]) -> None:
        """The part of `append` that may take its time, for several at once: they are on disk when this returns.

        Raises:
            RunFolderError: they could not be written whole, as on a full disk; the log is as it was.
        """
        if self._log is None:
            raise RunFolderError(f"{self.folder} is not open for writing: call open() first")
        file, line = self._log.fileno(), "".join(map(json_line, branches)).encode(errors="replace")
        size = os.fstat(file).st_size
        try:
            while line:  # a disk that becomes full takes a part first
                line = line[os.write(file, line) :]
            os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):  # else the torn line is cut off when the run is resumed
                os.ftruncate(file, size)
            with writing(self.folder):
                raise

    def close(self) -> None:
        """Stop writing and give the lock back."""
        for file in (self._log, self._lock):
            if file is not None:
                file.close()
        self._log = self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def add(self, branch: Branch) -> None:
        """Know a branch that `write` has put on the disk."""
        before = self._latest.get(name := (branch["task"]["id"], branch["id"]))
        if before is not None:
            self.branches.remove(before)
            self.superseded.append(before)
        self.branches.append(branch)
        self.logged.append(branch)
        self._latest[name] = branch

    def _claim(self, config: dict[str, Any]) -> None:
        known = without_passwords(self.config)  # earlier releases kept them
        if not known:
            save_json(self.folder / "config.json", config)
            return
        theirs, ours = same_policy(known.get("settings", {}), config.get("settings", {}))
        if "weights" in config.get("settings", {}) and "weights" not in ours:
            log.warning("%s does not tell the weights it was played with: made by an earlier release", self.folder)
        whole = {**known, "settings": theirs}, {**config, "settings": ours}
        refuse_other_settings(self.folder, *whole, {"settings": defaults(RunSettings)})

    def _read(self, *, repair: bool) -> None:
        """Load the log. A last line without its newline was torn by a kill: it is left out, and cut off on repair."""
        file = self.folder / "branches.jsonl"
        self.branches, self.superseded, self.logged = [], [], []
        self._latest: dict[tuple[str, str], Branch] = {}
        if not file.exists():
            return
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                branch: Branch = json.loads(line)
                if not isinstance(branch, dict):
                    raise ValueError(f"it holds {line[:40]!r}")
            except (ValueError, RecursionError) as error:
                raise RunFolderError(
                    f"{file}:{number} is not a branch record: {error}; only a torn last line is repaired: restore this "
                    "line, or delete it and all lines that follow to have their branches done again"
                ) from error
            if branch.get("version") != FORMAT_VERSION:
                raise RunFolderError(
                    f"{file}:{number} has format version {branch.get('version')!r}; this release reads {FORMAT_VERSION}"
                )
            self.add(branch)
        if repair and len(whole) < len(data):
            with open(file, "r+b") as log:
                log.truncate(len(whole))
