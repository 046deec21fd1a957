"""A LangGraph checkpointer that writes behind and writes little, on whichever database: see `WriteBehind`.

What is put is serialised at once and queued. A read of a thread sees what is queued, too.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import ConfigError
from .thread import CHECKPOINT, VALUES, WRITES, Namespace, Row, packed, unpacked
from .twins import at_once, in_thread, one_by_one
from .write_behind import Store, WriteBehind

_ABSENT = object()


class SegmentSaver(BaseCheckpointSaver[int]):
    """Checkpoints as segments in a store; thread-safe, for sync and async graphs alike.

    A put returns before it is on the disk: a kill may lose what was put within the last ``interval``, never a part of a
    checkpoint, and never what was put before a `flush` that returned. Use it as a context manager, or call `close`.

    Args:
        store: keeps the segments.
        serde: how values become bytes; LangGraph's own if None.
        interval: seconds that a put may wait for others to share its segment.
    """

    def __init__(self, store: Store, *, serde: SerializerProtocol | None = None, interval: float = 1.0) -> None:
        super().__init__(serde=serde)
        self._log = WriteBehind(store, interval=interval)

    # ---- putting

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Queue a checkpoint; see `BaseCheckpointSaver.put`."""
        (thread_id, ns), parent, id_ = where_of(config), get_checkpoint_id(config), checkpoint["id"]
        head = {name: value for name, value in checkpoint.items() if name not in ("id", "channel_values")}
        body = packed(self.serde, (head, get_checkpoint_metadata(config, metadata)))
        rows = [Row(CHECKPOINT, ns, id_, self.get_next_version(None, None), parent, body)]
        values = checkpoint["channel_values"]
        by_version: dict[Any, dict[str, Any]] = defaultdict(dict)
        for name, version in new_versions.items():
            if name in values:
                by_version[version][name] = values[name]
        for version, changed in by_version.items():
            rows.append(Row(VALUES, ns, id_, version, list(changed), packed(self.serde, changed)))
        self._log.put(thread_id, rows)
        return config_of(thread_id, ns, id_)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Queue what a task wrote; see `BaseCheckpointSaver.put_writes`."""
        (thread_id, ns), id_ = where_of(config), config["configurable"]["checkpoint_id"]
        body = packed(self.serde, (task_id, task_path, list(writes)))
        self._log.put(thread_id, [Row(WRITES, ns, id_, self.get_next_version(None, None), None, body)])

    def get_next_version(self, current: int | None, channel: None) -> int:
        """A number above ``current`` and all that are there; the clock keeps it apart from other processes'."""
        return self._log.next_number(current or 0)

    # ---- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the thread's newest; see `BaseCheckpointSaver.get_tuple`."""
        thread_id, ns = where_of(config)
        with self._log.reading(thread_id) as thread:
            space = thread.spaces[ns]
            id_ = get_checkpoint_id(config) or space.newest()
            return self._tuple(thread_id, ns, space, id_) if id_ in space.checkpoints else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, the newest first; see `BaseCheckpointSaver.list`."""
        where = {} if config is None else config["configurable"]
        earlier = None if before is None else get_checkpoint_id(before)
        found: list[tuple[tuple[int, str], str, str, Namespace]] = []
        for thread_id in self.threads() if config is None else [where_of(config)[0]]:
            with self._log.reading(thread_id) as thread:
                for ns, space in thread.spaces.items():
                    if ns != where.get("checkpoint_ns", ns):
                        continue
                    for id_ in space.checkpoints:
                        if id_ == (where.get("checkpoint_id") or id_) and (
                            earlier is None or space.is_before(id_, earlier)
                        ):
                            found.append((space.place(id_), thread_id, ns, space))

        def read() -> Iterator[CheckpointTuple]:
            for (_, id_), thread_id, ns, space in sorted(found, key=lambda each: each[0], reverse=True):
                with self._log.lock:
                    found_one = self._tuple(thread_id, ns, space, id_)
                yield found_one  # without the lock: the next step may be another thread's

        wanted = (filter or {}).items()
        matching = (each for each in read() if all(each.metadata.get(k, _ABSENT) == v for k, v in wanted))
        return itertools.islice(matching, limit)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Each channel's nearest stored value and the writes since; see `BaseCheckpointSaver`."""
        histories = {name: DeltaChannelHistory(writes=[]) for name in channels}
        thread_id, ns = where_of(config)
        with self._log.reading(thread_id) as thread:
            space, missing = thread.spaces[ns], set(channels)
            chain = space.chain(get_checkpoint_id(config) or space.newest())
            next(chain, None)  # what is written at the checkpoint itself belongs to the next one
            for ancestor in chain:
                if not missing:
                    break
                for write in reversed(space.writes(self.serde, ancestor)):
                    if write[1] in missing:
                        histories[write[1]]["writes"].append(write)
                versions = unpacked(self.serde, space.checkpoints[ancestor].body)[0]["channel_versions"]
                for name in [name for name in missing if name in versions and space.has(name, versions[name])]:
                    histories[name]["seed"] = space.channels(self.serde, ancestor, {name: versions[name]})[name]
                    missing.discard(name)
        for history in histories.values():
            history["writes"].reverse()
        return histories

    def _tuple(self, thread_id: str, ns: str, space: Namespace, id_: str) -> CheckpointTuple:
        row = space.checkpoints[id_]
        head, metadata = unpacked(self.serde, row.body)
        values = space.channels(self.serde, id_, head["channel_versions"])
        return CheckpointTuple(
            config_of(thread_id, ns, id_),
            cast(Checkpoint, head | {"id": id_, "channel_values": values}),
            metadata,
            None if row.about is None else config_of(thread_id, ns, row.about),
            space.writes(self.serde, id_),
        )

    def threads(self) -> Sequence[str]:
        """The ids of all threads."""
        return self._log.threads()

    # ---- the queue

    def flush(self, thread_id: str | None = None) -> None:
        """Return when all that was put before, or all of one thread's, is safe from a kill and from a power failure.

        Raises:
            RunFolderError: it cannot be written; what was put stays queued.
        """
        self._log.flush(thread_id)

    def close(self) -> None:
        """Commit what is queued and close the store; may be called twice."""
        self._log.close()

    # ---- deleting

    def delete_thread(self, thread_id: str) -> None:
        """Drop everything of a thread."""
        self._log.keep(str(thread_id))

    def keep(self, thread_id: str, checkpoint_ids: Collection[str]) -> None:
        """Drop all checkpoints of a thread but these and their ancestors, which they are rebuilt from."""
        self._log.keep(thread_id, checkpoint_ids)

    def vacuum(self) -> None:
        """Give the space of what was deleted back, where that is not done by the database itself."""
        self._log.vacuum()

    # ---- the same for asyncio: puts queue at once, the rest may wait for the database

    aput = at_once(put)
    aput_writes = at_once(put_writes)
    aget_tuple = in_thread(get_tuple)
    alist = one_by_one(list)
    aget_delta_channel_history = in_thread(get_delta_channel_history)
    adelete_thread = in_thread(delete_thread)
    aflush = in_thread(flush)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def where_of(config: RunnableConfig) -> tuple[str, str]:
    """A thread's id and a namespace in it.

    Raises:
        ConfigError: the id is no text that a database can hold.
    """
    thread_id = str(config["configurable"]["thread_id"])
    if "\0" in thread_id:
        raise ConfigError(f"thread_id {thread_id!r}: NUL, which no database can hold")
    try:
        thread_id.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"thread_id {thread_id!r}: half a surrogate pair at character {error.start}, which no database can hold"
        ) from None
    return thread_id, config["configurable"].get("checkpoint_ns", "")


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """What LangGraph calls a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
