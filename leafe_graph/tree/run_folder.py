"""The run folder: settings, an append-only log of finished branches, and a lock.

::

    config.json         what the run was started with; the same command resumes it, another one is refused
    branches.jsonl      one finished branch a line, fsynced; a torn last line is dropped and that branch done again
    branches/           where the log of a large run goes on: 000001.jsonl and so on, or as Parquet, see log.py
    checkpoints.sqlite  LangGraph's checkpoints, in a TreeSaver, of a run that asks for them: where branches fork
    examples/ adapter/ eval/ report.html   made by the later commands

Everything that a resumed run needs to know follows from the log, so a kill at any moment loses at most the branches
that were being played. A branch that a model or an environment failed is played again by a resumed run: then its last
line counts, and all lines' costs.

In memory are outlines of the branches; the branches themselves are read when they are asked for, tree by tree.
"""

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, overload

from ..budget import add_costs, no_cost
from ..errors import ConfigError
from ..files import lock_folder, path_of, refuse_other_settings, save_json, writing
from ..redaction import without_passwords
from ..settings import defaults
from ..text import utf8_all
from ..types import FORMAT_VERSION, Branch, Cost
from .log import SHARD_BYTES, Entry, Log
from .outline import Outline
from .run_settings import RunSettings, read_config, run_settings, same_policy

log = logging.getLogger(__name__)


class RunFolder:
    """A run on disk. Opened for reading unless `lock` is used; then this process is its only writer."""

    def __init__(self, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """``shard_bytes``: from this size on a file of the log is closed, and another one is begun."""
        self.folder = path_of(folder)
        self._shard_bytes = shard_bytes
        self._log = Log(self.folder, shard_bytes=shard_bytes)
        self._lock: IO[bytes] | None = None
        self._logged: list[Outline] = []
        self._trees: dict[str, dict[str, Outline]] = {}
        self._read(repair=False)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self.outlines)} branches of {len(self._trees)} tasks, {len(self.solved)} solved"

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
    def outlines(self) -> list[Outline]:
        """What is known of the branches without reading them, in the order in which they ended."""
        return [outline for outline in self._logged if not outline.superseded]

    @property
    def all_outlines(self) -> Sequence[Outline]:
        """The same of all that is in the log, in its order."""
        return self._logged

    @property
    def branches(self) -> "Branches":
        """In the order in which they ended."""
        return Branches(self._log, self.outlines)

    @property
    def superseded(self) -> "Branches":
        """Tries of branches that failed and were played again. Their costs count, nothing else of them does."""
        return Branches(self._log, [outline for outline in self._logged if outline.superseded])

    @property
    def logged(self) -> "Branches":
        """All of both, in the order of the log."""
        return Branches(self._log, self._logged)

    @property
    def cost(self) -> Cost:
        """What all logged branches cost together."""
        return add_costs(*self.costs.values())

    @property
    def costs(self) -> dict[str, Cost]:
        """What the logged branches of each task cost together."""
        costs: dict[str, Cost] = defaultdict(no_cost)
        for outline in self._logged:
            costs[outline.task["id"]] = add_costs(costs[outline.task["id"]], outline.cost)
        return costs

    @property
    def trees(self) -> "Trees":
        """Branches by task id and branch id, in the order of the log."""
        return Trees(self._log, self._trees)

    @property
    def solved(self) -> set[str]:
        """Ids of the tasks that some branch solved."""
        return {outline.task["id"] for outline in self.outlines if outline.end == "success"}

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
                self._log.open()
        except BaseException:
            self.close()
            raise
        return self

    def append(self, branch: Branch) -> None:
        """Log a finished branch; on disk when this returns. One of the same name before it is superseded.

        Raises:
            RunFolderError: it could not be written whole, as on a full disk; the log is as it was.
        """
        for outline in self.write([branch]):
            self.add(outline)

    def write(self, branches: Sequence[Branch | Entry]) -> list[Outline]:
        """The part of `append` that may take its time, for several at once: they are on disk when this returns.

        Raises:
            RunFolderError: they could not be written whole, as on a full disk; the log is as it was.
        """
        return self._log.append(branches)

    def close(self) -> None:
        """Stop writing and give the lock back."""
        self._log.close()
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def refresh(self) -> None:
        """Know what another process has logged since this folder was opened or refreshed."""
        self._read(repair=False)

    def compact(self) -> tuple[int, list[str]]:
        """Make Parquet of the log's files that grow no more; needs pyarrow, as do readers from then on.

        Returns:
            Of how many files, and why others stay as they are.

        Raises:
            MissingDependency: pyarrow is not installed.
            RunFolderError: another process writes to the folder, or there is no room: what was there is as it was.
        """
        with self.open({name: value for name, value in self.config.items() if name != "version"}):
            try:
                return self._log.compact()
            finally:
                self._read(repair=False)

    def add(self, outline: Outline) -> None:
        """Know a branch that `write` has put on the disk."""
        tree = self._trees.setdefault(outline.task["id"], {})
        same = next((known.task for known in tree.values()), None)
        if same == outline.task:
            outline.task = same  # once in memory; and so the names, also of one from another process
        outline.id, outline.end = sys.intern(outline.id), sys.intern(outline.end)  # type: ignore[assignment]
        outline.parent = outline.parent if outline.parent is None else sys.intern(outline.parent)
        if (before := tree.pop(outline.id, None)) is not None:
            before.superseded = True
        tree[outline.id] = outline
        self._logged.append(outline)

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
        """Know what was logged since the last time; all anew where what was known is not there, as in a new folder."""
        if self._logged and not self._log.has(self._logged[-1]):
            self._forget()
        for outline in self._log.news(repair=repair):
            self.add(outline)

    def _forget(self) -> None:
        self._log.close()
        self._log = Log(self.folder, shard_bytes=self._shard_bytes)
        self._logged, self._trees = [], {}


class Branches(Sequence[Branch]):
    """Branches of a run; each is read from its log when it is asked for, so keep those that are asked for often."""

    def __init__(self, log: Log, outlines: Sequence[Outline]) -> None:
        self._log, self._outlines = log, outlines

    @overload
    def __getitem__(self, at: int) -> Branch: ...

    @overload
    def __getitem__(self, at: slice) -> list[Branch]: ...

    def __getitem__(self, at: int | slice) -> Branch | list[Branch]:
        if isinstance(at, slice):
            return [*self._log.read(self._outlines[at])]
        (branch,) = self._log.read([self._outlines[at]])
        return branch

    def __iter__(self) -> Iterator[Branch]:
        return self._log.read(self._outlines)

    def __len__(self) -> int:
        return len(self._outlines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Branches | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} branches of {self._log.folder}>"


class Trees(Mapping[str, dict[str, Branch]]):
    """The trees of a run by task id; each is read from its log when it is asked for, as by ``items()``."""

    def __init__(self, log: Log, outlines: Mapping[str, Mapping[str, Outline]]) -> None:
        self._log, self.outlines = log, outlines

    def __getitem__(self, task: str) -> dict[str, Branch]:
        return {branch["id"]: branch for branch in self._log.read(self.outlines[task].values())}

    def __iter__(self) -> Iterator[str]:
        return iter(self.outlines)

    def __len__(self) -> int:
        return len(self.outlines)

    def __contains__(self, task: object) -> bool:
        return task in self.outlines

    def __repr__(self) -> str:
        return f"<{len(self)} trees of {self._log.folder}>"
