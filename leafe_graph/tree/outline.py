"""What is kept in memory of a logged branch: all that counting, choosing and judging go by, and where the rest lies."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ..budget import no_cost
from ..types import Cost, EndReason, Task


class Place(NamedTuple):
    """Where a branch's line is."""

    shard: int
    offset: int
    """Bytes before it; of a row of Parquet the rows before it."""
    length: int
    """Bytes, its line's end included; 0 of a row of Parquet."""


@dataclass(slots=True, eq=False)
class Outline:
    """A branch without its texts: half a kilobyte, where the branch has as many turns as its path is long."""

    task: Task
    """Shared by a task's branches."""
    id: str
    parent: str | None
    depth: int
    decision_point: int
    told: bool
    """Whether its prompts were told an experience."""
    turns: int
    """How many it played itself."""
    rewinds_to: int | None
    """The decision point that its reflection goes back to; None where it asks for no rewind."""
    reflections: int
    """How many were made on it."""
    end: EndReason
    error: str | None
    spent: tuple[float, ...]
    """The values of `cost`."""
    place: Place | None = None
    """None of a branch that is in no log."""
    superseded: bool = False
    """Whether it failed and was played again: then its cost counts, nothing else of it does."""

    @property
    def cost(self) -> Cost:
        """What it cost."""
        told: Any = dict(zip(_COST, self.spent, strict=True))
        return told  # type: ignore[no-any-return]


_COST = tuple(no_cost())


def outlined(branch: Mapping[str, Any], place: Place | None = None) -> Outline:
    """The outline of a branch; what an unfinished record lacks is as if it had not been.

    Raises:
        KeyError: it has no task, id, end or cost, or one that lacks a field.
        TypeError: something in it is of another kind than in a branch.
    """
    reflection, cost = branch.get("reflection"), branch["cost"]
    rewinds = reflection is not None and reflection.get("verdict") == "rewind"
    return Outline(
        task=branch["task"],
        id=sys.intern(branch["id"]),
        parent=sys.intern(parent) if (parent := branch.get("parent")) is not None else None,
        depth=branch.get("depth", 0),
        decision_point=branch.get("decision_point", 0),
        told=bool(branch.get("experience")),
        turns=len(branch.get("turns", ())),
        rewinds_to=reflection.get("decision_point") if reflection and rewinds else None,
        reflections=len(branch.get("reflections", ())),
        end=sys.intern(branch["end"]),  # type: ignore[arg-type]
        error=branch.get("error"),
        spent=tuple(cost[field] for field in _COST),
        place=place,
    )


class _Counted(TypedDict):
    """Something of which nothing is read."""


class _Reflection(TypedDict):
    verdict: str
    decision_point: int | None


class _Line(TypedDict, total=False):
    """The fields of a branch that its outline is made of; no other is read into memory."""

    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    version: int
    id: str
    task: dict[str, Any]
    parent: str | None
    depth: int
    decision_point: int
    experience: str | None
    turns: list[_Counted]
    reflection: _Reflection | None
    reflections: list[_Counted]
    end: str
    error: str | None
    cost: Cost


_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


def skimmed(line: bytes) -> Mapping[str, Any] | None:
    """What a line says for an outline, in a third of the time that reading it all takes; None: it is to be read."""
    try:
        return _LINE.validate_json(line)
    except ValidationError:  # what another reader may take: half a pair of surrogates, a field of another type
        return None
