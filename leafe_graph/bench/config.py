"""The YAML file of ``leafe bench``: what ``leafe run`` takes, shared by all methods, and what each has otherwise."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ..env.common import Split
from ..errors import ConfigError
from ..evaluation.random_policy import NAME as RANDOM
from ..files import UserPath
from ..methods import METHODS
from ..rounds.config import RunConfig
from ..rounds.yaml_file import Problem, YamlFile, put, stands, validated
from ..settings import Settings

STRIDE = 1_000_000
"""Tasks between those of one training seed and those of the next: each learns from tasks of its own."""
JUDGE_SEED = 1_000_000
"""Between the seeds of playing to learn and of playing to be judged."""


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
    seeds: list[int] | None = Field(default=None, min_length=1)
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
    seeds: list[int] = Field(default=[0], min_length=1)
    """Training seeds: each plays tasks of its own with sampling seeds of its own. All are judged on the same tasks."""
    tune: Tune | None = None
    """How settings are chosen; unless given, every method has those of the file."""
    baselines: list[str] = Field(default_factory=list)
    """The methods that the others are compared with, the first of all unless given."""
    keep_samples: bool = False
    """Keep every episode by which a policy was judged; else only what came of each task."""
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
        number = sorted({*self.seeds, *(entry.seeds or [])}).index(cell.seed)
        data |= {"out": str(self.folder(cell)), "method": entry.method if entry.learns else "leafe"}
        for name in ("explore", "eval", "train"):
            data[name] = dict(data.get(name) or {})
        data["explore"] |= {
            "seed": STRIDE * cell.seed,
            "start": int(data["explore"].get("start", 0)) + STRIDE * number,
        }
        data["eval"] |= {"seed": JUDGE_SEED + cell.seed}
        data["train"] |= {"seed": cell.seed}
        return data

    def rounds(self, cell: Cell) -> RunConfig:
        """The settings of a cell's rounds, which `read_bench` has seen to be right."""
        if cell not in self._rounds:
            config, problems = validated(self.said(cell))
            assert config is not None and not problems, problems
            self._rounds[cell] = config
        return self._rounds[cell]

    def judged(self, cell: Cell, panel: str) -> dict[str, Any]:
        """What a cell's eval section has otherwise: "tune", the tasks to choose by, or "test", those of the file."""
        if panel == "test":
            return {}
        tune = cast(Tune, self.tune)
        return {"split": tune.split, "start": tune.start, "tasks": tune.tasks, "samples": tune.samples}


def read_bench(file: str | Path, changes: Mapping[str, Any] | None = None) -> BenchConfig:
    """Read a YAML file; ``changes``: other values by dotted name, texts among them as YAML.

    Raises:
        ConfigError: with the line and the field of each mistake.
    """
    said = YamlFile(file, changes)
    own = {name: value for name, value in said.data.items() if name in BenchConfig.model_fields and name != "shared"}
    if isinstance(own.get("methods"), dict):  # `leafe:` with nothing below it
        own["methods"] = {str(name): {} if each is None else each for name, each in own["methods"].items()}
    shared = {name: value for name, value in said.data.items() if name not in own}
    try:
        config = BenchConfig.model_validate({**own, "shared": shared})
    except ValidationError as error:
        problems = [(e["loc"], f"{e['msg'].removeprefix('Value error, ')}, got {e['input']!r}") for e in error.errors()]
        said.told(None, problems)
        raise
    said.told(None, [*_mistakes(config)])
    return config


def _mistakes(config: BenchConfig) -> Iterator[Problem]:
    """What is wrong with the methods, each where it stands."""
    names = list(config.methods)
    for name, own in config.methods.items():
        here = ("methods", name)
        if not name or any(letter in name for letter in "/\\") or name.startswith("."):
            yield here, "a method's name is a folder's: expected no slashes, and no dot in front"
            continue
        try:
            entry = config.entries[name]
        except ValidationError as error:
            yield from (((*here, *e["loc"]), f"{e['msg']}, got {e['input']!r}") for e in error.errors())
            return
        if entry.learns:
            try:
                METHODS.known(entry.method)
            except ValueError as error:
                said = f"{error}, none, or random; got {entry.method!r}"
                yield (*here, "method") if "method" in own else here, said
                continue
        for field in ("choice", "start"):
            named = getattr(entry, field)
            if named is not None and (named not in names or names.index(named) >= names.index(name)):
                above = ", ".join(names[: names.index(name)]) or "there are none"
                yield (*here, field), f"expected a method that stands above it ({above}), got {named!r}"
                return
        for setting in range(len(config.grid(name))):
            cell = Cell(name, setting, config.seeds_of(name)[0])
            _, problems = validated(config.said(cell))
            for where, what in problems:
                yield ((*here, *where) if where and stands(own, where) else where or here), what
    for named in config.baselines:
        if named not in names or config.entries[named].method == RANDOM:
            yield ("baselines",), f"expected some of {', '.join(names)}, got {named!r}"


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``above`` over those of ``below``, section by section."""
    for name, value in above.items():
        own = below.get(name)
        below[name] = _merged(own, value) if isinstance(own, dict) and isinstance(value, Mapping) else value
    return below


def told_setting(setting: Mapping[str, Any], unless: Sequence[str] = ()) -> dict[str, Any]:
    """A setting by the last parts of its names, for tables."""
    return {name.rpartition(".")[2]: value for name, value in setting.items() if name not in unless}
