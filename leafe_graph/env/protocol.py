"""The environment's door: Gymnasium's words on text, and snapshots where an environment can give them."""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable


class TextEnv(Protocol):
    """What an environment must have: Gymnasium's ``reset``, ``step`` and ``close`` with text in and text out.

    ``info["success"]: bool`` once terminated: whether the task was solved, which no reward tells (also where it was
    truncated, if it was solved even so); ``info["valid"]: bool`` where the environment can tell that an action was
    not understood or had no effect; ``info["feedback"]: str``, a short answer to the action, where the observation is
    long; ``info["admissible"]: list[str]`` where the possible actions are known.

    A class may say ``instant = True``: ``step``, ``snapshot`` and ``restore`` take microseconds and never wait, so that
    they may be called in an event loop. Otherwise they are called in threads, which takes longer than such a step. A
    class that inherits from it may wait, so it says it anew or is called in threads.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a task; the observation and info."""
        ...

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info. A bad action is answered, not raised."""
        ...

    def close(self) -> None:
        """Give resources back; may be called twice."""
        ...


@runtime_checkable
class SnapshotEnv(Protocol):
    """An environment that can also be brought back exactly."""

    def snapshot(self) -> bytes:
        """Everything that decides what the following steps answer."""
        ...

    def restore(self, state: bytes) -> None:
        """Bring back what `snapshot` saved; in any instance that was reset to the same task."""
        ...


@runtime_checkable
class AnchoredEnv(Protocol):
    """An environment that can say where it stands, however and whenever that was come to."""

    def anchor(self) -> str:
        """The same for states in which the same actions do the same, but for how many steps are left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a policy is told about an environment, in pieces; ``str(guide)`` is the whole text."""

    role: str
    """Who the policy is and what it is to do."""
    actions: str
    """How an action looks."""
    example: str = ""
    """A worked example; the first piece to leave out for a model that is trained."""

    def __str__(self) -> str:
        return "\n\n".join(piece for piece in (self.role, self.actions, self.example) if piece)


def snapshot(env: TextEnv) -> bytes | None:
    """The environment's snapshot, or None where it cannot give one."""
    return env.snapshot() if has_snapshots(env) else None


def anchor(env: TextEnv) -> str | None:
    """A digest of where the environment stands, by its `AnchoredEnv.anchor`; None where it has none."""
    own = getattr(env, "anchor", None)
    return hashlib.blake2b(own().encode(), digest_size=8).hexdigest() if callable(own) else None


def has_snapshots(env: TextEnv) -> TypeGuard[SnapshotEnv]:
    """``isinstance(env, SnapshotEnv)``, in a tenth of the time: it is asked at every step."""
    return callable(getattr(env, "snapshot", None)) and callable(getattr(env, "restore", None))
