"""A thread's checkpoints in memory, read from what was put; and the rows that a put is, as they are kept.

A channel's value is kept once, with the checkpoint that changed it; later checkpoints refer to it by its version. For
that a version must never mean two values. The newest checkpoint is the one that was put last, whatever the clock said:
its number tells.
"""

import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.base import WRITES_IDX_MAP, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

CHECKPOINT, VALUES, WRITES = range(3)
LONG = 4096
"""Bytes of a value that stays in memory as it is, at most; longer ones are compressed there."""
BLOCK = 2**18
"""Bytes from which on a block of a segment is closed: what is read of it is decompressed with all the block."""
ROW = 200
"""Bytes of memory that a row takes beside its body, about."""


class Part(NamedTuple):
    """Bytes that stay compressed until they are asked for: see `whole`."""

    block: bytes
    """Compressed, with what lies beside them."""
    start: int
    end: int


class Row(NamedTuple):
    """Part of a put. To apply it twice, or in another order, changes nothing."""

    kind: int
    """`CHECKPOINT`, `VALUES` that it changed, or `WRITES` of a task at it."""
    ns: str
    """The namespace in the thread."""
    id: str
    """The checkpoint's."""
    number: Any
    """Of a checkpoint and of writes: grows with each put. Of values: the version that their channels have."""
    about: Any
    """Of a checkpoint its parent's id or None, of values the channels' names."""
    body: bytes | Part
    """What the serializer made of it, see `packed`."""


def packed(serde: SerializerProtocol, value: Any) -> bytes:
    """A value's bytes with its serializer's name."""
    kind, data = serde.dumps_typed(value)
    return kind.encode() + b"\0" + data


def unpacked(serde: SerializerProtocol, body: bytes | Part) -> Any:
    """The value that was packed."""
    kind, _, data = whole(body).partition(b"\0")
    return serde.loads_typed((kind.decode(), data))


def whole(body: bytes | Part) -> bytes:
    """What was packed."""
    return _block(body.block)[body.start : body.end] if isinstance(body, Part) else body


@lru_cache(maxsize=4)
def _block(compressed: bytes) -> bytes:
    return zlib.decompress(compressed)


def _small(body: bytes) -> bytes | Part:
    """A body as it stays in memory: a thread has many long values that say nearly the same."""
    return Part(zlib.compress(body, 1), 0, len(body)) if len(body) > LONG else body


def segment(rows: Iterable[Row]) -> bytes:
    """Rows as the bytes that are kept of them: an index, each id in it once, and then their bodies in blocks.

    So of a long thread that is read no more is decompressed than what is asked for.
    """
    blocks: list[list[bytes]] = [[]]
    counts, size = [0], 0
    ids: dict[str, int] = {}
    index: list[Any] = []
    for row in rows:
        if size >= BLOCK:
            blocks.append([])
            counts.append(0)
            size = 0
        body, about = whole(row.body), row.about
        blocks[-1].append(body)
        counts[-1] += 1
        size += len(body)
        if row.kind == CHECKPOINT and about is not None:
            about = ids.setdefault(about, len(ids))
        index.append((row.kind, row.ns, ids.setdefault(row.id, len(ids)), row.number, about, len(body)))
    head = ormsgpack.packb([[*ids], [*zip(*index, strict=True)], counts])
    blocks[0].insert(0, head)
    return ormsgpack.packb([len(head), *(zlib.compress(b"".join(block), 3) for block in blocks)])


def rows_of(body: bytes) -> Iterator[Row]:
    """The rows of a `segment`."""
    length, *blocks = ormsgpack.unpackb(body)
    ids, columns, counts = ormsgpack.unpackb(zlib.decompress(blocks[0])[:length])
    rows, end = zip(*columns, strict=True), length
    for block, count in zip(blocks, counts, strict=True):
        for kind, ns, place, number, about, size in islice(rows, count):
            parent = ids[about] if kind == CHECKPOINT and about is not None else about
            yield Row(kind, ns, ids[place], number, parent, Part(block, end, end := end + size))
        end = 0


@dataclass
class Namespace:
    """The checkpoints of one namespace of a thread."""

    checkpoints: dict[str, Row] = field(default_factory=dict)
    """By id."""
    values: dict[Any, dict[str, Row]] = field(default_factory=lambda: defaultdict(dict))
    """By version, then by the checkpoint that they were put with."""
    tasks: dict[str, dict[int, bytes | Part]] = field(default_factory=lambda: defaultdict(dict))
    """What tasks wrote, by checkpoint, then by number."""

    def newest(self) -> str | None:
        """The id of the checkpoint that was put last."""
        return max(self.checkpoints, key=self.place, default=None)

    def place(self, checkpoint_id: str) -> tuple[int, str]:
        """What checkpoints are sorted by."""
        return self.checkpoints[checkpoint_id].number, checkpoint_id

    def is_before(self, checkpoint_id: str, other: str) -> bool:
        """Whether a checkpoint was put before another: by the ids alone where that is not here (any more)."""
        if other in self.checkpoints:
            return self.place(checkpoint_id) < self.place(other)
        return checkpoint_id < other

    def chain(self, checkpoint_id: str | None) -> Iterator[str]:
        """A checkpoint and its ancestors, as far as they are here."""
        while checkpoint_id is not None and (row := self.checkpoints.get(checkpoint_id)) is not None:
            yield checkpoint_id
            checkpoint_id = row.about

    def channels(self, serde: SerializerProtocol, checkpoint_id: str, versions: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a checkpoint's channels have at these versions, of those that were put."""
        found: dict[str, Any] = {}
        for version in set(versions.values()):
            stored = self.values.get(version, {})
            for each in sorted(stored, key=lambda other: (other == checkpoint_id, other)):
                value = unpacked(serde, stored[each].body)
                found |= {name: value[name] for name in value if versions.get(name) == version}
        return found

    def has(self, name: str, version: Any) -> bool:
        """Whether a channel's value at a version was put."""
        return any(name in row.about for row in self.values.get(version, {}).values())

    def writes(self, serde: SerializerProtocol, checkpoint_id: str) -> list[PendingWrite]:
        """What tasks wrote at a checkpoint, in `writes_sort_key` order.

        Of regular writes at the same place the first counts, of special ones (an error, an interrupt) the last.
        """
        found: dict[tuple[str, str, int], PendingWrite] = {}
        places: dict[tuple[str, int], tuple[str, str, int]] = {}
        for _, body in sorted(self.tasks.get(checkpoint_id, {}).items()):
            task_id, task_path, writes = unpacked(serde, body)
            special = all(name in WRITES_IDX_MAP for name, _ in writes)
            for number, (name, value) in enumerate(writes):
                index = WRITES_IDX_MAP.get(name, number)
                if (task_id, index) in places:
                    if not special:
                        continue
                    del found[places[task_id, index]]
                places[task_id, index] = place = writes_sort_key(task_path, task_id, index)
                found[place] = (task_id, name, value)
        return [found[place] for place in sorted(found)]


class Thread:
    """A thread's checkpoints, of all its namespaces."""

    def __init__(self) -> None:
        self.spaces: dict[str, Namespace] = defaultdict(Namespace)
        self.rows: list[Row] = []
        """All of them, in the order in which they were put."""
        self.size = 0
        """Bytes, about."""

    def apply(self, rows: Sequence[Row]) -> None:
        """Take in what was put; the size of a segment that rows lie in is its reader's to add."""
        for row in rows:
            if isinstance(row.body, bytes):
                row = row._replace(body=(body := _small(row.body)))
                self.size += len(body.block if isinstance(body, Part) else body)
            self.size += ROW
            self.rows.append(row)
            space = self.spaces[row.ns]
            if row.kind == CHECKPOINT:
                space.checkpoints[row.id] = row
            elif row.kind == VALUES:
                space.values[row.number][row.id] = row
            else:
                space.tasks[row.id][row.number] = row.body

    def kept(self, checkpoint_ids: Collection[str]) -> list[Row]:
        """The rows of these checkpoints and of their ancestors, which they are rebuilt from."""
        keep = {(ns, each) for ns, space in self.spaces.items() for id_ in checkpoint_ids for each in space.chain(id_)}
        return [row for row in self.rows if (row.ns, row.id) in keep]


def weight(row: Row) -> int:
    """Bytes of memory that a row takes which waits, about."""
    return ROW + len(row.body)
