"""A bench's file: read, with the line of each mistake, also of those that would make an unfair table."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..evaluation.random_policy import NAME as RANDOM
from ..methods import METHODS
from ..phases.config import PlayConfig
from ..rounds.config import RunConfig
from ..rounds.yaml_file import Problem, YamlFile, stands, validated
from ..settings import TASKS
from .config import BenchConfig, Cell

SEEDED = (("seed",), ("explore", "seed"), ("eval", "seed"), ("train", "seed"))
"""What neither the file nor a method may say: these follow from the training seed."""

Span = tuple[tuple[str, str], int, int]
"""Tasks: of which environment and split or file of levels, the first, and the one after the last."""


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
    names, first = list(config.methods), None
    for here, own in [((), config.shared), *((("methods", name), own) for name, own in config.methods.items())]:
        yield from (
            ((*here, *at), "it follows from the training seeds: leave it out") for at in SEEDED if stands(own, at)
        )
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
        if (start := entry.start) is not None:
            if config.entries[start].method == RANDOM:
                yield (*here, "start"), f"expected a method with a policy, got {start!r}, which has none"
            elif config.entries[start].learns and (more := {*config.seeds_of(name)} - {*config.seeds_of(start)}):
                yield (*here, "start"), f"{start} has no seed {min(more)} to start from: give it that, or this fewer"
        if entry.choice is not None and entry.grid is not None:
            yield (*here, "grid"), f"the setting is the one that is chosen for {entry.choice}: leave grid or choice out"
        for setting in range(len(config.grid(name))):
            cell = Cell(name, setting, min(config.seeds_of(name), key=lambda seed: config.number(name, seed)))
            rounds, problems = validated(config.said(cell))
            for where, what in problems:
                yield ((*here, *where) if where and stands(own, where) else where or here), what
            if rounds is None:
                continue
            compared = _span(rounds.eval, rounds.eval.tasks or TASKS)
            first = first or (name, compared)
            if compared != first[1]:
                yield (*here, "eval"), f"judged on other tasks than {first[0]}: only the same can be compared"
            if entry.learns:
                yield from _leaks(config, rounds)
    for named in config.baselines:
        if named not in names or config.entries[named].method == RANDOM:
            yield ("baselines",), f"expected some of {', '.join(names)}, got {named!r}"


def _span(told: PlayConfig, n: int) -> Span:
    return (told.env, str(told.levels or told.split)), told.start, told.start + n


def _leaks(config: BenchConfig, rounds: RunConfig) -> Iterator[Problem]:
    """Tasks that would be learned from, chosen by or compared on twice."""
    spans = {
        "compared on": _span(rounds.eval, rounds.eval.tasks or TASKS),
        "learned from": _span(rounds.explore, rounds.tasks * (rounds.rounds if rounds.fresh_tasks else 1)),
    }
    if config.tune is not None:
        spans["chosen by"] = _span(rounds.eval.model_copy(update=config.judged("tune")), config.tune.tasks)
    for (one, a), (other, b) in itertools.combinations(spans.items(), 2):
        shared = range(max(a[1], b[1]), min(a[2], b[2]))
        if a[0] == b[0] and shared:
            what = f"{a[0][1]} tasks {shared[0]:,} to {shared[-1]:,} would be {one} and {other}"
            where = "tune" if other == "chosen by" else "explore"
            yield (where,), f"{what}: take another split or start for one of them"
