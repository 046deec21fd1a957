"""Tiny worlds, deterministic in task and actions."""

import itertools
import json
import random
from typing import Any

from ..env.common import plain
from ..errors import ConfigError, EnvError
from ..types import Task

_STEPS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


class GridWorld:
    """Walk to a goal; unseen pits end the episode in failure. No snapshots: rewinding it means replaying.

    Args:
        size: squares a side of the worlds that are made from a seed.
        pits: pits of the worlds that are made from a seed.
        max_steps: the step at which an episode is truncated; None for never.

    ``reset`` takes the options ``size``, ``start``, ``goal`` (``[x, y]``, from the upper left) and ``pits`` (a list of
    squares); what is not given comes from the seed, in such a way that the goal can be reached.
    """

    instant = True

    def __init__(self, *, size: int = 5, pits: int = 4, max_steps: int | None = None) -> None:
        if size < 2 or not 0 <= pits <= size * size - 2:
            raise ConfigError(f"size={size}, pits={pits}: expected at least 2x2 squares, two of them without a pit")
        self._defaults = plain(size), plain(pits)
        self._max_steps = plain(max_steps)
        self._size = 0
        self._at = self._goal = (0, 0)
        self._pits: frozenset[tuple[int, int]] = frozenset()
        self._steps = 0
        self._end: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Put the walker on its start."""
        seed, options = plain(seed), plain(options or {})
        self._size = options.get("size", self._defaults[0])
        given = {name: tuple(options[name]) for name in ("start", "goal") if name in options}
        squares = [(x, y) for y in range(self._size) for x in range(self._size) if (x, y) not in given.values()]
        draw = random.Random(seed)
        for attempt in itertools.count():
            free = draw.sample(squares, len(squares))
            self._at = given.get("start") or free.pop()
            self._goal = given.get("goal") or free.pop()
            pits = max(0, self._defaults[1] - attempt // 10)  # fewer where so many cannot be
            self._pits = frozenset((x, y) for x, y in options.get("pits", free[:pits]))
            if "pits" in options or self._reachable():
                break
        self._steps, self._end = 0, None
        return self._look(), {"admissible": list(_STEPS)}

    def _reachable(self) -> bool:
        """Whether a path leads to the goal."""
        seen, todo = {self._at}, [self._at]
        while todo:
            x, y = todo.pop()
            for dx, dy in _STEPS.values():
                near = (x + dx, y + dy)
                if near not in seen and near not in self._pits and 0 <= min(near) <= max(near) < self._size:
                    seen.add(near)
                    todo.append(near)
        return self._goal in seen

    def _look(self) -> str:
        return f"you are at {self._at[0]},{self._at[1]}; the goal is at {self._goal[0]},{self._goal[1]}"

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Walk one square up, down, left or right; the reward is 1 at the goal, else 0."""
        valid, reward = False, 0.0
        if self._end is not None:
            feedback = "the episode is over"
        else:
            self._steps += 1
            dx, dy = _STEPS.get(action.strip().lower(), (0, 0))
            x, y = to = (self._at[0] + dx, self._at[1] + dy)
            if to == self._at:
                feedback = "unknown action, answer up, down, left or right"
            elif not (0 <= x < self._size and 0 <= y < self._size):
                feedback = "blocked by wall"
            else:
                self._at, valid, feedback = to, True, "moved"
                if to == self._goal:
                    self._end, reward, feedback = "success", 1.0, "reached the goal"
                elif to in self._pits:
                    self._end, feedback = "failure", "fell into a pit"
            if self._end is None and self._steps == self._max_steps:
                self._end = "truncated"
        info: dict[str, Any] = {"valid": valid, "feedback": feedback, "admissible": list(_STEPS)}
        terminated = self._end in ("success", "failure")
        if terminated:
            info["success"] = self._end == "success"
        return f"{feedback}; {self._look()}", reward, terminated, self._end == "truncated", info

    def anchor(self) -> str:
        """Where the walker and all else are."""
        return repr((self._size, self._at, self._goal, sorted(self._pits)))

    def close(self) -> None:
        """Nothing is held."""


class SnapshotGridWorld(GridWorld):
    """The same world, with snapshots."""

    def snapshot(self) -> bytes:
        """All that the following steps depend on."""
        world = (self._size, self._at, self._goal, sorted(self._pits), self._steps, self._end, self._max_steps)
        return json.dumps(world).encode()

    def restore(self, state: bytes) -> None:
        """Bring back what `snapshot` saved, in any instance."""
        try:
            size, at, goal, pits, steps, end, max_steps = json.loads(state)
        except ValueError as error:
            raise EnvError(f"not a snapshot of a grid world: {state[:40]!r}") from error
        self._size, self._at, self._goal = size, tuple(at), tuple(goal)
        self._pits = frozenset((x, y) for x, y in pits)
        self._steps, self._end, self._max_steps = steps, end, max_steps


def grid_tasks(n: int, *, start: int = 0) -> list[Task]:
    """Tasks for the grid worlds; their seeds count up from ``start``."""
    text = "Walk to the goal. Answer up, down, left or right."
    return [{"id": f"grid-{seed:06d}", "instruction": text, "seed": seed} for seed in range(start, start + n)]
