"""Closed files of a run's log as Parquet: a sixth of the size, and columns that DuckDB and `datasets` read as they are.

One row a branch, in the log's order. What every branch has is in columns, ``turns`` are a list of structs, and what
only some have is JSON text: ``rest`` of the branch and of each turn. A file of rows takes the place of a file of lines
only if it gives back every record as it was.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import MissingDependency
from ..parsing import json_text

ROWS = 256
"""Branches that are read or written at once."""
KEPT = 8
"""So many times as many are kept."""
_TEXTS = ("id", "parent", "experience", "end", "error", "thread_id")
_OBJECTS = ("task", "reflection", "reflections")
_TURN = ("observation", "action", "feedback", "reward", "terminated", "truncated", "valid", "checkpoint_id")
_COUNTS = ("env_steps", "replayed_steps", "model_calls", "prompt_tokens", "completion_tokens", "reflections")
_OUTLINE = ("version", "task", "id", "parent", "depth", "decision_point", "experience", "end", "error", "cost")


def write_rows(records: Iterable[dict[str, Any]], file: Path) -> None:
    """Write the records of lines as rows.

    Raises:
        MissingDependency: pyarrow is not installed.
        ValueError: a record is not as a branch's is.
    """
    pa, pq = _arrow()
    turn = dict.fromkeys((*_TURN, "content", "rest"), pa.string())
    turn |= {"reward": pa.float64(), **dict.fromkeys(("terminated", "truncated", "valid"), pa.bool_())}
    cost = dict.fromkeys(_COUNTS, pa.int64()) | {"seconds": pa.float64()}
    columns = {"version": pa.int32(), "task_id": pa.string()}
    columns |= dict.fromkeys((*_TEXTS, *_OBJECTS), pa.string())
    columns |= {"depth": pa.int32(), "decision_point": pa.int32(), "return_": pa.float64()}
    columns |= {"cost": pa.struct([*cost.items()]), "played": pa.int32()}
    columns |= {"turns": pa.list_(pa.struct([*turn.items()])), "rest": pa.string()}
    schema, rows = pa.schema([*columns.items()]), map(_row, records)
    try:
        with pq.ParquetWriter(file, schema, compression="zstd") as out:
            while part := [*islice(rows, ROWS)]:
                out.write_table(pa.Table.from_pylist(part, schema=schema))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, pa.ArrowException) as error:
        raise ValueError(f"a record is not as a branch's is: {error!r}") from error


class Rows:
    """Reads records by their numbers; the parts of files that were read last are kept in memory."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def read(self, file: Path, number: int) -> dict[str, Any]:
        """The record of a row, counted from 0.

        Raises:
            OSError: there is no such file, or it is no Parquet.
            IndexError: it has no such row.
        """
        pa, pq = _arrow()
        place = file, number // ROWS
        if place not in self._parts:
            try:
                with pq.ParquetFile(file) as rows:
                    if place[1] >= rows.num_row_groups:
                        raise IndexError(number)
                    self._parts[place] = rows.read_row_group(place[1])
            except pa.ArrowException as error:
                raise OSError(str(error)) from error
            if len(self._parts) > KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end(place)
        (row,) = self._parts[place].slice(number % ROWS, 1).to_pylist()
        return _record(row)


def read_outlines(file: Path) -> Iterator[dict[str, Any]]:
    """Of each row what an outline is made of; no turn is read."""
    _, pq = _arrow()
    with pq.ParquetFile(file) as rows:
        for batch in rows.iter_batches(batch_size=8192, columns=[*_OUTLINE, "reflection", "reflections", "played"]):
            for row in batch.to_pylist():
                yield row | {name: json.loads(row[name]) for name in _OBJECTS} | {"turns": range(row["played"])}


def _row(record: dict[str, Any]) -> dict[str, Any]:
    held = dict(record)
    row = {name: held.pop(name) for name in ("version", *_TEXTS, "depth", "decision_point", "return_", "cost")}
    row |= {name: json_text(held.pop(name)) for name in _OBJECTS}
    turns = held.pop("turns")
    return row | {
        "task_id": record["task"]["id"],
        "played": len(turns),
        "turns": [_turn(turn) for turn in turns],
        "rest": json_text(held),
    }


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    held = dict(turn)
    row = {name: held.pop(name) for name in _TURN}
    message = dict(held.pop("message"))
    content = message.pop("content")
    if held.pop("env_state") is not None:
        raise ValueError("a snapshot, which no line holds")
    return row | {"content": content, "rest": json_text(held | {"message": message}) if held or message else None}


def _record(row: dict[str, Any]) -> dict[str, Any]:
    del row["task_id"], row["played"]
    row |= {name: json.loads(row[name]) for name in _OBJECTS}
    row["turns"] = [_told(turn) for turn in row["turns"]]
    return row | json.loads(row.pop("rest"))  # type: ignore[no-any-return]


def _told(turn: dict[str, Any]) -> dict[str, Any]:
    rest, content = turn.pop("rest"), turn.pop("content")
    more = json.loads(rest) if rest is not None else {"message": {}}
    more["message"] = {"content": content} | more["message"]
    return turn | {"env_state": None} | more


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency(extra="train", needed_for="A log in Parquet") from error
    return pa, pq
