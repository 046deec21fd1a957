"""The YAML file, read with the line of each mistake."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import ConfigError
from .config import DECIDED, RunConfig


def read_config(file: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a YAML file; ``changes``: other values by dotted name, texts among them as YAML.

    Raises:
        ConfigError: with the line and the field of each mistake.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: not YAML: {error.context or ''} {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} holds {type(data).__name__}, expected fields: model, env, explore, ...")
    problems: list[tuple[tuple[int | str, ...], str]] = [(where, "given twice") for where in _twice(node)]
    for name, value in (changes or {}).items():
        try:
            _put(data, name.split("."), yaml.safe_load(value) if isinstance(value, str) else value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {name}: {value!r} is not YAML") from error
    data.setdefault("out", f"runs/{file.stem}")
    for name, decided in DECIDED.items():
        if isinstance(section := data.get(name), dict):
            own = [key for key in section if key in decided]
            problems += [((name, key), "the run decides this itself: leave it out") for key in own]
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        for e in error.errors():
            where, what = e["loc"], e["msg"].removeprefix("Value error, ")
            if e["type"] == "missing":
                problems += [(where, what)] if len(where) == 1 else []
                continue
            if not _stands(data, where):  # what is shared stands once in the file, whatever sections complain
                where = where[1:]
            problems.append((where, what + f", got {e['input']!r}" * bool(where)))
    if problems:
        lines = []
        for where, what in problems:
            name = ".".join(map(str, where))
            place = "--set " if name in (changes or {}) else _line(file, node, where) + ": "
            lines.append(f"{place}{name}: {what}" if name else f"{place}{what}")
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return config


def _put(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        below = data.get(name)
        data[name] = data = below if isinstance(below, dict) else {}
    data[path[-1]] = value


def _stands(data: Any, where: Sequence[int | str]) -> bool:
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


def _twice(node: yaml.Node | None, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Fields that a mapping names more than once: YAML readers silently take the last."""
    if node is None or node.id != "mapping":
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            yield (*where, key.value)
        seen.add(key.value)
        yield from _twice(value, (*where, key.value))
