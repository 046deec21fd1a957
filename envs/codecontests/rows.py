"""The rows of a data set's file: JSON lines, plain or compressed, or Parquet."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leafe_graph.env.common import read_json
from leafe_graph.errors import ConfigError, MissingDependency

from ..sandbox.process import shown


def read_rows(path: Path, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file from ``start`` on, with their 0-based numbers; empty lines are none.

    Raises:
        ConfigError: the file is of another kind or cannot be read; the line that is no JSON object.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, start)
        return
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"{path}: expected 'humaneval', or a file .jsonl, .jsonl.gz or .parquet")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as lines:
            number = -1
            for number, line in enumerate(filter(bytes.strip, lines)):
                if number < start:
                    continue
                try:
                    row = read_json(line, by_hand=True)
                except ValueError as error:
                    raise ConfigError(f"{path}, line {number + 1}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise ConfigError(f"{path}, line {number + 1}: expected an object, found {shown(row)[:80]}")
                yield number, row
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _parquet_rows(path: Path, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependency(extra="codecontests", needed_for="reading Parquet") from error
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    number = 0
    with file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number + rows > start:
                for row in file.read_row_group(group).to_pylist()[max(0, start - number) :]:
                    yield max(number, start), row
                    start = number = max(number, start) + 1
                continue
            number += rows
