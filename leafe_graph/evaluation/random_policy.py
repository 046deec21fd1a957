"""The floor of a table: what acting at random solves."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..budget import no_cost
from ..env.answers import start_of, step_of
from ..env.protocol import SnapshotEnv, TextEnv, snapshot
from ..errors import ConfigError
from ..types import Task
from .results import Result, TaskResult

NAME = "random"
"""What ``leafe eval --model`` calls it."""


def random_policy(
    make: Callable[[], TextEnv],
    tasks: Iterable[Task],
    *,
    n: int,
    max_turns: int,
    actions: Sequence[str] | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Play each task ``n`` times, every action drawn evenly from those that are possible.

    Nothing is asked and nothing kept, so it is as fast as the environment; one instance plays all, brought back to a
    task's start by its snapshot where it gives one. The same tasks and seed give the same result. An episode that the
    environment fails counts as `Result.failed`.

    Args:
        make: makes the environment.
        tasks: to be played.
        n: samples a task.
        max_turns: the longest episode, in actions.
        actions: to draw from; those of ``info["admissible"]`` unless given.
        seed: of the random numbers.
        settings: what the samples depend on, for `Result.settings`.

    Raises:
        ConfigError: the environment does not say which actions are possible, and none are given.
        NothingPlayed: the environment failed in every episode.
    """
    env, causes, spent, judged = make(), Counter[str](), no_cost(), []
    try:
        for task in tasks:
            # One generator a task: neither more samples nor fewer tasks change what the others meet.
            rng, start, solved, failed, turns = random.Random(f"{seed}\0{task['id']}"), None, 0, 0, 0
            began = time.perf_counter()
            for _ in range(n):
                try:
                    start = _start(env, task, start)
                    played, success = _episode(env, rng, start[0], actions, max_turns)
                except ConfigError:
                    raise
                except Exception as error:
                    failed, start = failed + 1, None
                    causes[f"{type(error).__name__}: {error}"] += 1
                else:
                    turns, solved = turns + played, solved + success
            seconds = time.perf_counter() - began
            spent["env_steps"] += turns
            spent["seconds"] += seconds
            counts = {"c": solved, "errors": failed, "failed": failed}
            judged.append(TaskResult(task_id=task["id"], n=n, **counts, turns=turns / n, seconds=seconds))
    finally:
        env.close()
    result = Result(
        policy=NAME, settings=settings or {}, n=n, tasks=judged, causes=dict(causes.most_common()), cost=spent
    )
    result.per_task(1)  # refuses where every sample failed
    return result


Start = tuple[Sequence[str], bytes | None]
"""What is possible at a task's start, and its snapshot."""


def _start(env: TextEnv, task: Task, start: Start | None) -> Start:
    """Bring the environment to the task's start, by the snapshot that an earlier call took if there is one."""
    if start is not None and start[1] is not None and isinstance(env, SnapshotEnv):
        env.restore(start[1])
        return start
    _, info = start_of(env.reset(seed=task.get("seed"), options=task.get("options")))
    return info.get("admissible") or (), snapshot(env)


def _episode(
    env: TextEnv, rng: random.Random, possible: Sequence[str], actions: Sequence[str] | None, max_turns: int
) -> tuple[int, bool]:
    """Act at random until the episode ends; how many turns it took, and whether it was a success."""
    for turn in range(1, max_turns + 1):
        choices = actions or possible
        if not choices:
            raise ConfigError(
                "a random policy draws from info['admissible'], which this environment does not give; give "
                "random_policy(actions=[…])"
            )
        answer = step_of(env.step(rng.choice(choices)))
        if answer.terminated or answer.truncated:
            return turn, answer.success
        possible = answer.info.get("admissible") or possible
    return max_turns, False
