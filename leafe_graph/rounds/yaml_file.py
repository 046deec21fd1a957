"""The YAML file, read with the line of each mistake."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ..errors import ConfigError
from ..files import path_of
from ..parsing import load_yaml, read_text
from ..text import did_you_mean
from .config import DECIDED, RunConfig

Problem = tuple[tuple[int | str, ...], str]
"""Where something is wrong, as the names on the way to it, and what."""


def read_config(file: str | Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a YAML file; ``changes``: other values by dotted name, texts among them as YAML.

    Raises:
        ConfigError: with the line and the field of each mistake.
    """
    said = YamlFile(file, changes)
    config: RunConfig = said.told(*validated(said.data))
    return config


class YamlFile:
    """What a file says, with changes to it, and on which line.

    Raises:
        ConfigError: it holds no fields.
    """

    def __init__(self, file: str | Path, changes: Mapping[str, Any] | None = None) -> None:
        self.file, self._changes = path_of(file), changes or {}
        self.data, self._node = load_yaml(read_text(self.file), str(self.file))
        if not isinstance(self.data, dict):
            held = "is empty" if self.data is None else f"holds {type(self.data).__name__}"
            raise ConfigError(f"{self.file} {held}, expected fields: model, env, explore, ...")
        for name, value in self._changes.items():
            put(self.data, name, load_yaml(value, f"--set {name}")[0] if isinstance(value, str) else value)
        self.data.setdefault("out", f"runs/{self.file.stem}")

    def told(self, found: Any, problems: Sequence[Problem]) -> Any:
        """What was found, unless there are problems.

        Raises:
            ConfigError: with the line and the field of each.
        """
        lines = []
        for where, what in problems:
            name = ".".join(map(str, where))
            place = "--set " if name in self._changes else _line(self.file, self._node, where) + ": "
            lines.append(f"{place}{name}: {what}" if name else f"{place}{what}")
        if lines:
            raise ConfigError("\n".join(dict.fromkeys(lines)))
        return found


def validated(data: dict[str, Any]) -> tuple[RunConfig | None, list[Problem]]:
    """The settings of rounds that are said, or what is wrong with them."""
    problems: list[Problem] = []
    for name, decided in DECIDED.items():
        if isinstance(section := data.get(name), dict):
            own = [key for key in section if key in decided]
            problems += [((name, key), "the run decides this itself: leave it out") for key in own]
    config = None
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        for e in error.errors():
            where, what = e["loc"], e["msg"].removeprefix("Value error, ")
            if e["type"] == "missing":
                problems += [(where, what)] if len(where) == 1 else []
                continue
            if e["type"] == "extra_forbidden":
                problems.append((where, "there is no such field" + did_you_mean(str(where[-1]), _fields(where[:-1]))))
                continue
            if not stands(data, where):  # what is shared stands once in the file, whatever sections complain
                where = where[1:]
            problems.append((where, what + f", got {e['input']!r}" * bool(where)))
    return config, problems


def put(data: dict[str, Any], name: str, value: Any) -> None:
    """Set a field by its dotted name, making what is above it."""
    path = name.split(".")
    for name in path[:-1]:
        below = data.get(name)
        data[name] = data = below if isinstance(below, dict) else {}
    data[path[-1]] = value


def _fields(section: Sequence[int | str]) -> list[str]:
    """The fields that may be said in a section; those of the file for no section."""
    model: Any = RunConfig
    decided = DECIDED.get(str(section[0]), {}) if section else {}
    for name in section:
        kind = model.model_fields[name].annotation  # a section, or one or None
        model = next(each for each in (*get_args(kind), kind) if hasattr(each, "model_fields"))
    return [name for name in model.model_fields if name not in decided]


def stands(data: Any, where: Sequence[int | str]) -> bool:
    """Whether the file, or a change, says something there."""
    for name in where:
        if isinstance(data, dict):
            if name not in data:
                return False
            data = data[name]
    return True


def _line(file: Path, node: yaml.Node | None, where: Sequence[int | str]) -> str:
    """FILE:LINE of the deepest part of a field's path that the file has."""
    line = 1
    for name in where:
        pairs: list[tuple[Any, Any]] = node.value if node is not None and node.id == "mapping" else []
        found = [(key, value) for key, value in pairs if key.value == name]
        if not found:
            break
        key, node = found[-1]
        line = key.start_mark.line + 1
    return f"{file}:{line}"
