"""Probes of a run as a file: JSON lines, the first with the settings, then one for each task.

A kill costs what was being written: a torn last line is dropped, and its task is probed again.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..budget import no_cost
from ..errors import RunFolderError
from ..files import refuse_other_settings, writing
from ..method_settings import Probing
from ..parsing import json_line
from ..settings import defaults
from ..types import FORMAT_VERSION, Cost, Probe

FILE = "probes.jsonl"
"""Its name."""


class Probes(Mapping[str, list[Probe]]):
    """Probes by task id; each task's are read when they are asked for."""

    def __init__(self, file: Path) -> None:
        """Read what is there.

        Raises:
            RunFolderError: it is no file of probes that this release understands.
        """
        self.file = file
        self.costs: dict[str, Cost] = {}
        """Of each task, ``replayed_steps`` among it: those by which its paths were walked again."""
        self.spared: dict[str, int] = {}
        """Steps of each task that a world without snapshots would have replayed beside those."""
        self._places: dict[str, int] = {}
        self._end = 0
        self._head: dict[str, Any] = {}
        if file.exists():
            self._read()

    @property
    def settings(self) -> Probing:
        """With which they were made."""
        return Probing.model_validate(self._head.get("settings", {}))

    def open(self, settings: Probing) -> None:
        """Begin to write, or go on.

        Raises:
            ConfigError: the probes that are there were made with other settings.
            RunFolderError: the file cannot be written.
        """
        now = settings.model_dump(mode="json")
        if self._head:
            refuse_other_settings(self.file, self._head["settings"], now, defaults(Probing))
            with writing(self.file), self.file.open("r+b") as lines:
                lines.truncate(self._end)
            return
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._head = {"version": FORMAT_VERSION, "settings": now}
            self.file.write_bytes(line := json_line(self._head).encode(errors="replace"))
        self._end = len(line)

    def add(self, task: str, probes: list[Probe], cost: Cost, spared: int) -> None:
        """Write the probes of a task.

        Raises:
            RunFolderError: they cannot be written.
        """
        told = {"task": task, "probes": probes, "cost": cost, "spared_steps": spared}
        with writing(self.file), self.file.open("ab") as lines:
            lines.write(line := json_line(told).encode(errors="replace"))
        self._know(told, self._end)
        self._end += len(line)

    def __getitem__(self, task: str) -> list[Probe]:
        with self.file.open("rb") as lines:
            lines.seek(self._places[task])
            probes: list[Probe] = json.loads(lines.readline())["probes"]
        return probes

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _know(self, told: Mapping[str, Any], place: int) -> None:
        self._places[told["task"]] = place
        self.costs[told["task"]] = no_cost() | told["cost"]
        self.spared[told["task"]] = told["spared_steps"]

    def _read(self) -> None:
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    told = json.loads(line)
                    if number == 1 and told["version"] != FORMAT_VERSION:
                        raise ValueError(f"its version is {told['version']!r}, expected {FORMAT_VERSION}")
                    if number == 1:
                        self._head = told
                    else:
                        self._know(told, self._end)
                except (ValueError, KeyError, TypeError) as error:
                    raise RunFolderError(f"{self.file}, line {number} is no line of probes: {error}") from error
                self._end += len(line)
