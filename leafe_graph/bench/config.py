"""The YAML file of ``leafe bench``: what ``leafe run`` takes, shared by all methods, and what each has otherwise."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from ..env.common import Split
from ..errors import ConfigError
from ..evaluation.random_policy import NAME as RANDOM
from ..files import UserPath
from ..rounds.config import RunConfig
from ..rounds.yaml_file import put, validated
from ..settings import Settings

STRIDE = 1_000_000
"""Tasks between those of one training seed and those of the next: each learns from tasks of its own."""
JUDGE_SEED = 1_000_000
"""Between the seeds of playing to learn and of playing to be judged."""


def _each_once(seeds: list[int]) -> list[int]:
    if len({*seeds}) < len(seeds):
        raise ValueError("expected each seed once")
    return seeds


Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_each_once)]


class Tune(Settings):
    """How settings are chosen: each of the grid learned with the first seed, the best on tasks of their own taken."""

    grid: list[dict[str, Any]] = Field(default_factory=list)
    """The settings to choose from, each by dotted names: ``{train.learning_rate: 1e-3}``. A method may have a grid of
    its own."""
    split: Split = "validation"
    """Which tasks they are judged on."""
    start: int = Field(default=0, ge=0)
    """Where in the split these begin."""
    tasks: int = Field(default=100, ge=1)
    """How many of them."""
    samples: int = Field(default=16, ge=1)
    """Samples of each."""
    k: int = Field(default=16, ge=1)
    """The highest Pass@k is chosen; of equal ones the first of the grid."""

    @model_validator(mode="after")
    def _enough_samples(self) -> "Tune":
        if self.k > self.samples:
            raise ValueError(f"k is {self.k}, but samples is {self.samples}: take more samples or a smaller k")
        return self


class Entry(Settings):
    """What a method of the file says beside its fields of `RunConfig`."""

    method: str
    """Its name in `METHODS`, or MODULE:ATTRIBUTE; the entry's own name unless given. "none": judged as it starts,
    "random": actions drawn at random, the floor of the table."""
    seeds: Seeds | None = None
    """Training seeds; those of the file unless given. A method that learns nothing has none."""
    grid: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    """Settings to choose from; those of ``tune`` unless given."""
    choice: str | None = None
    """The entry whose chosen setting holds here too, instead of a choice of its own."""
    start: str | None = None
    """The entry whose policy it starts from, seed by seed: one method after another. What that spent counts too."""

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn."""
        return self.method not in ("none", RANDOM)


@dataclass(frozen=True, order=True)
class Cell:
    """A method with one of its settings and a training seed."""

    entry: str
    setting: int
    """Its place in the grid."""
    seed: int

    def __str__(self) -> str:
        return f"{self.entry} setting {self.setting} seed {self.seed}"


class BenchConfig(Settings):
    """All that a bench is told."""

    out: UserPath
    """Folder for everything; runs/NAME-OF-THE-FILE unless given."""
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    """What is compared: names, with what each has otherwise than the rest of the file, and the fields of `Entry`."""
    seeds: Seeds = Field(default=[0])
    """Training seeds: each plays tasks of its own with sampling seeds of its own. All are judged on the same tasks."""
    tune: Tune | None = None
    """How settings are chosen; unless given, every method has those of the file."""
    baselines: list[str] = Field(default_factory=list)
    """The methods that the others are compared with, the first of all unless given."""
    shared: dict[str, Any] = Field(default_factory=dict)
    """The rest of the file: fields of `RunConfig`."""

    def only(self, names: Sequence[str]) -> "BenchConfig":
        """The same with some of its methods, and those that they need.

        Raises:
            ConfigError: it has no such method.
        """
        wanted = set(names)
        if strange := sorted(wanted - self.methods.keys()):
            raise ConfigError(f"there is no method {', '.join(strange)}; expected some of {', '.join(self.methods)}")
        for name in reversed(self.methods):
            if name in wanted:
                wanted |= {need for need in (self.entries[name].choice, self.entries[name].start) if need}
        kept = {name: own for name, own in self.methods.items() if name in wanted}
        baselines = [each for each in self.baselines if each in kept]
        own = {field: getattr(self, field) for field in type(self).model_fields}
        return type(self)(**(own | {"methods": kept, "baselines": baselines}))

    _rounds: dict[Cell, RunConfig] = PrivateAttr(default_factory=dict)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The methods, by name."""
        return {
            name: Entry.model_validate({"method": name} | {key: own[key] for key in Entry.model_fields if key in own})
            for name, own in self.methods.items()
        }

    def grid(self, name: str) -> list[dict[str, Any]]:
        """The settings that an entry is tried with; one that says nothing where there is nothing to choose."""
        entry = self.entries[name]
        if entry.choice is not None:
            return self.grid(entry.choice)
        shared = self.tune.grid if self.tune is not None else []
        return (entry.grid or shared or [{}]) if entry.learns else [{}]

    def seeds_of(self, name: str) -> list[int]:
        """The training seeds of an entry; what learns nothing has one, which stands for all."""
        entry = self.entries[name]
        return (entry.seeds or self.seeds) if entry.learns else self.seeds[:1]

    def folder(self, cell: Cell) -> Path:
        """Where a cell lies."""
        return self.out / "cells" / cell.entry / f"setting-{cell.setting}" / f"seed-{cell.seed}"

    def said(self, cell: Cell) -> dict[str, Any]:
        """What a cell's run of rounds is told, as a file of ``leafe run`` would."""
        own = {key: value for key, value in self.methods[cell.entry].items() if key not in Entry.model_fields}
        entry = self.entries[cell.entry]
        data = _merged(copy.deepcopy(self.shared), own)
        for name, value in self.grid(cell.entry)[cell.setting].items():
            put(data, name, value)
        data |= {"out": str(self.folder(cell)), "method": entry.method if entry.learns else "leafe"}
        kept = {"keep_samples": False}  # a result is what a bench is after
        seeds = {"explore": STRIDE * cell.seed, "eval": JUDGE_SEED + cell.seed, "train": cell.seed}
        for name, seed in seeds.items():
            section = data.get(name) or {}
            if isinstance(section, dict):  # else it is told to be none
                data[name] = (kept if name == "eval" else {}) | section | {"seed": seed}
        if isinstance(explore := data["explore"], dict) and isinstance(start := explore.get("start", 0), int):
            explore["start"] = start + STRIDE * self.number(cell.entry, cell.seed)
        return data

    def number(self, name: str, seed: int) -> int:
        """The place of an entry's seed, which it keeps when others are put behind it: its tasks are there."""
        return [*dict.fromkeys([*self.seeds, *self.seeds_of(name)])].index(seed)

    def rounds(self, cell: Cell) -> RunConfig:
        """The settings of a cell's rounds, which `read_bench` has seen to be right."""
        if cell not in self._rounds:
            config, problems = validated(self.said(cell))
            assert config is not None and not problems, problems
            self._rounds[cell] = config
        return self._rounds[cell]

    def judged(self, panel: str) -> dict[str, Any]:
        """What eval sections have otherwise: "tune", the tasks to choose by, or "test", those of the file."""
        if panel == "test":
            return {}
        tune = cast(Tune, self.tune)
        return {"split": tune.split, "start": tune.start, "tasks": tune.tasks, "samples": tune.samples}


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``above`` over those of ``below``, section by section."""
    for name, value in above.items():
        own = below.get(name)
        below[name] = _merged(own, value) if isinstance(own, dict) and isinstance(value, Mapping) else value
    return below


def told_setting(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting by the last parts of its names where these tell them apart, for tables."""
    last = {name: name.rpartition(".")[2] for name in setting}
    return {short if [*last.values()].count(short) == 1 else name: setting[name] for name, short in last.items()}
