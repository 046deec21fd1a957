"""An environment that hangs, dies or raises when told to. It imports next to nothing: each process starts anew."""

import os
import signal
import sys
import time
from typing import Any

WORDS = ["up", "down", "lose", "win"]


class Faulty:
    """A walk that shows where it went; ``win`` and ``lose`` end it."""

    def __init__(self) -> None:
        self.path: list[str] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """Go nowhere."""
        self.path = []
        return f"at the start of {seed}", {"admissible": WORDS}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Walk, or do what was asked."""
        if action == "hang":
            time.sleep(600)
        elif action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "leave":
            sys.exit(3)
        elif action == "raise":
            raise KeyError("the floor is gone")
        elif action == "lack":
            from leafe_graph.errors import MissingDependency

            raise MissingDependency(extra="sokoban", needed_for="floors")
        elif action == "odd":
            raise Odd(1, 2)
        elif action == "who":
            return str(os.getpid()), 0.0, False, False, {}
        elif action == "secret":
            return "x", 0.0, False, False, {"secret": lambda: None}
        valid, over = action in WORDS, action in WORDS[2:]
        self.path += [action] * valid
        info = {"admissible": WORDS, "valid": valid} | ({"success": action == "win"} if over else {})
        return f"gone {' '.join(self.path)}", float(action == "win"), over, False, info

    def close(self) -> None:
        """Nothing is held."""


class Saved(Faulty):
    """The same, with snapshots."""

    def snapshot(self) -> bytes:
        """Where it went."""
        return " ".join(self.path).encode()

    def restore(self, state: bytes) -> None:
        """Go there."""
        self.path = state.decode().split()


class Odd(Exception):
    """Cannot be read again once it was pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"odd {a} {b}")


class Slow(Faulty):
    """Is never there."""

    def __init__(self) -> None:
        time.sleep(600)


def failing() -> Any:
    """No environment."""
    raise OSError("no display")
