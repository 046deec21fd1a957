"""Where a branch of a whole agent can begin without a replay: steps of its outermost graph, each with its world."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel

from ..env.worlds import World
from ..types import Turn


class Step(NamedTuple):
    """The moment before a step of the outermost graph."""

    thread_id: str
    checkpoint_id: str
    ref: str | None
    """The world's snapshot; None where there is no world."""
    done: int
    """Steps behind it, from the attempt's start."""


class Steps(InMemorySaver):
    """Keeps the states of a tree's attempts, and with each of the outermost graph the world of that moment.

    It is while checkpoints are put that no node runs, where a run waits for that (``durability="sync"``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.known: dict[str, Step] = {}
        """By the id of a checkpoint; a step that was forked has another id, and is the same one."""
        self._from: Step | None = None
        self._done = 0

    def begin(self, start: Step | None) -> None:
        """An attempt begins, at a step or anew."""
        self._from, self._done = start, start.done if start else 0

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Put a checkpoint."""
        saved = await super().aput(config, checkpoint, metadata, new_versions)
        place = saved["configurable"]
        if not place["checkpoint_ns"] and metadata["source"] == "fork" and self._from is not None:
            self.known[place["checkpoint_id"]] = self._from
        elif not place["checkpoint_ns"] and metadata["source"] == "loop":
            self._done += 1
            ref = None if self.world is None else await asyncio.to_thread(self.world.snapshot)
            self.known[place["checkpoint_id"]] = Step(place["thread_id"], place["checkpoint_id"], ref, self._done)
        return saved

    def start_of(self, turns: Sequence[Turn], t: int) -> tuple[Step | None, list[int]]:
        """Where to begin so as to come to decision ``t`` of a path, and the decisions of that step by their places.

        None, and all decisions: from the start. So it is in the first step, which has nothing before it; and where a
        person was asked, whose answer a step does not tell.
        """
        every = [*range(len(turns))]
        step = self.known.get(turns[t]["checkpoint_id"] or "") if turns else None
        if step is None:
            return None, every
        inside = [place for place in every if self.known.get(turns[place]["checkpoint_id"] or "") is step]
        return (None, every) if any(turns[place].get("replies") for place in inside) else (step, inside)


def can_fork(agent: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether a checkpoint is all of the agent's state: no saver or store in it, and no channel that is not kept."""
    return not (
        agent.checkpointer
        or agent.store
        or any(getattr(part, "checkpointer", None) for _, part in agent.get_subgraphs(recurse=True))
        or any(isinstance(channel, UntrackedValue) for channel in agent.channels.values())
    )
