"""What a checkpoint holds (`State`, plain JSON and bytes) and what it never holds (`Context`, live objects).

A checkpoint whose next node is ``act`` is a *decision point*. It carries everything needed to go on from there, the
environment included, so rewinding is forking that checkpoint. Both ways of rewinding, in place and by a fork, go
through `rewound`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from langgraph.channels import DeltaChannel
from typing_extensions import TypedDict

from ..budget import no_cost
from ..types import Branch, Cost, Divergence, EndReason, ModelMessage, Reflection, Task, Turn


class Keep(TypedDict):
    """A write to an append-only channel that drops everything from position ``keep`` on."""

    keep: int


def append(values: list[Any], writes: Sequence[list[Any] | Keep]) -> list[Any]:
    """Reducer of the append-only channels: a list is appended, a `Keep` truncates.

    Folding writes one by one or all at once gives the same, as DeltaChannel asks.
    """
    values = list(values)
    for write in writes:
        if isinstance(write, dict):
            del values[write["keep"] :]
        else:
            values.extend(write)
    return values


def appended() -> DeltaChannel[list[Any]]:
    """An append-only channel, stored as its writes alone up to the depth at which LangGraph itself stores it whole.

    DeltaChannel's own hundred would make an episode of T turns store T / 100 copies of its turns.
    """
    return DeltaChannel(append, snapshot_frequency=5000)


APPENDED = ("turns", "reflections", "abandoned")
"""The append-only channels."""


class BranchInfo(TypedDict):
    """Which node of the experience tree is being played."""

    id: str
    parent: str | None
    decision_point: int
    """Where it left its parent."""
    depth: int


class AgentInput(TypedDict):
    """What the agent is invoked with."""

    task: Task | str
    """A task record, or its instruction."""


class State(TypedDict):
    """The checkpointed state; survives ``LANGGRAPH_STRICT_MSGPACK=true``."""

    task: Task
    turns: Annotated[list[Turn], appended()]
    """The current path from the task's start; written once a turn, so an episode costs O(T)."""
    observation: str
    """What is seen now."""
    env_state: bytes | None
    """The environment's snapshot now; None where it has none: then ``turns`` are replayed."""
    message: ModelMessage | None
    """What the policy just said, between ``act`` and ``step``."""
    decision_checkpoint: str | None
    """The decision point at which it was said."""
    experience: str | None
    """What this branch's prompts are told; put in at call time only."""
    branch: BranchInfo
    reflection: Reflection | None
    """The latest reflection of this branch."""
    reflections: Annotated[list[Reflection], appended()]
    """All reflections, in order; a fork starts with none."""
    abandoned: Annotated[list[Branch], appended()]
    """The paths left behind by rewinding in place, oldest first."""
    cost: Cost
    end: EndReason | None
    """None while the episode goes on."""
    error: str | None
    divergence: Divergence | None
    """The first replay of this branch that did not bring back what was recorded."""


def root(name: str = "0") -> BranchInfo:
    """A branch from the task's start."""
    return BranchInfo(id=name, parent=None, decision_point=0, depth=0)


def child(name: str, parent: BranchInfo | Branch, decision_point: int) -> BranchInfo:
    """A branch that leaves its parent at a decision point."""
    return BranchInfo(id=name, parent=parent["id"], decision_point=decision_point, depth=parent["depth"] + 1)


def rewound(state: State, decision_point: int, experience: str | None, branch: BranchInfo) -> dict[str, Any]:
    """The update that brings ``state`` back to a decision point of its own path and starts ``branch`` there.

    ``state`` may stand anywhere at or after the decision point.
    """
    update: dict[str, Any] = {
        "experience": experience,
        "branch": branch,
        "message": None,
        "decision_checkpoint": None,
        "reflection": None,
        "end": None,
        "error": None,
        "divergence": None,
    }
    if decision_point < len(state["turns"]):
        turn = state["turns"][decision_point]
        update |= {
            "turns": Keep(keep=decision_point),
            "observation": turn["observation"],
            "env_state": turn["env_state"],
        }
    return update


def forked(state: State, decision_point: int, experience: str | None, branch: BranchInfo) -> dict[str, Any]:
    """`rewound` for a fork of the decision point's checkpoint: a branch of its own, with its own account."""
    return rewound(state, decision_point, experience, branch) | {"reflections": Keep(keep=0), "cost": no_cost()}


def fresh_start(task: Task, observation: str, env_state: bytes | None, branch: BranchInfo) -> dict[str, Any]:
    """The update that starts a task: nothing of an earlier run on the same thread is left."""
    return {
        "task": task,
        "turns": Keep(keep=0),
        "observation": observation,
        "env_state": env_state,
        "message": None,
        "decision_checkpoint": None,
        "experience": None,
        "branch": branch,
        "reflection": None,
        "reflections": Keep(keep=0),
        "abandoned": Keep(keep=0),
        "cost": no_cost(),
        "end": None,
        "error": None,
        "divergence": None,
    }
