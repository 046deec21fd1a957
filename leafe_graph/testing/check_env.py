"""The environment's contract as a check that anybody can run on their own environment."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from ..env.answers import scalar
from ..env.gymnasium_adapter import action_names
from ..env.protocol import SnapshotEnv, TextEnv, anchor
from ..env.tasks import as_tasks
from ..errors import EnvError
from ..types import Task

log = logging.getLogger(__name__)

BAD_ACTIONS = ("", " \n\t", "xyzzy %s {} <|end|> \\", "z" * 20_000, "öäü 漢字 🙂 \u202e\x00")
"""Texts that no environment should know: each must be answered, not raised."""

_INFO = ("success", "valid", "feedback", "admissible")
_Answer = tuple[str, float, bool, bool, dict[str, Any]]


def check_env(
    make_env: Callable[[], TextEnv],
    *,
    tasks: Sequence[Task] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    actions: Sequence[str] | Callable[[Task], Sequence[str]] | None = None,
    steps: int = 20,
) -> None:
    """Prove on some tasks that an environment keeps its contract.

    Same task and actions give the same answers, in a new instance and after another reset; a snapshot restored later,
    in this instance or a new one, has the same anchor and goes on with the same answers; bad actions are answered;
    what is returned has the right types; it can be closed twice. Snapshots and anchors are checked where the
    environment has them.

    Args:
        make_env: builds an instance.
        tasks: what to reset to; without them, ``seeds`` and no options.
        seeds: used where no tasks are given.
        actions: what to play, for all tasks or computed from one; None draws from ``info["admissible"]``, and goes on
            to the episode's end, as far as that is met within ten times ``steps``.
        steps: how many actions are played at most.

    Raises:
        EnvError: what was played, what was expected and what came.
        ConfigError: what is given as a task or as actions is none.
    """
    ended = False
    for task in as_tasks(tasks or [Task(id=f"seed {seed}", instruction="", seed=seed) for seed in seeds]):
        given = action_names(actions(task) if callable(actions) else actions, twice=True)
        ended |= _Check(make_env, task).run(None if given is None else given[:steps], steps)
    if not ended:
        log.warning("no episode has terminated, so nobody saw whether info['success'] is there: give actions= that win")


class _Check:
    """The checks on one task."""

    def __init__(self, make_env: Callable[[], TextEnv], task: Task) -> None:
        self.make_env = make_env
        self.task = task

    def run(self, actions: list[str] | None, steps: int) -> bool:
        """Whether an episode has terminated."""
        env = self.make_env()
        start, played, story = self.first_play(env, actions, steps)
        other = self.make_env()
        for instance, what in ((other, "a new instance"), (env, "a second reset")):
            self.same(start, self.reset(instance), f"{what}: reset")
            self.replay(instance, played, story, 0, f"same actions in {what}")
        terminated = any(answer[2] for answer in story) or (actions is None and self.go_on(env, story, 10 * steps))
        if isinstance(env, SnapshotEnv):
            self.snapshots(env, played, story)
        for action in BAD_ACTIONS:
            self.reset(env)
            info = self.step(env, action, f"bad action {action[:20]!r}")[4]
            if info.get("valid"):
                self.fail(f"bad action {action[:20]!r}", "info['valid'] False or absent", "True")
        for instance in (env, other):
            for time in ("first", "second"):
                with self.no_raise(f"{time} close"):
                    instance.close()
        return terminated

    def first_play(self, env: TextEnv, given: list[str] | None, steps: int) -> tuple[Any, list[str], list[_Answer]]:
        """Play and write down: start, actions, answers. One bad action is among those that are drawn."""
        start = self.reset(env)
        draw, info = random.Random(self.task["id"]), start[1]
        played: list[str] = []
        story: list[_Answer] = []
        for number in range(len(given) if given is not None else steps):
            if given is not None:
                action = given[number]
            elif number == 1:
                action = BAD_ACTIONS[2]
            elif info.get("admissible"):
                action = draw.choice(info["admissible"])
            else:
                self.fail(f"step {number}", "info['admissible'], or actions= given to check_env", "neither")
            answer = self.step(env, action, f"step {number}, action {action[:40]!r}")
            played.append(action)
            story.append(answer)
            info = answer[4]
            if answer[2] or answer[3]:
                break
        return start, played, story

    def go_on(self, env: TextEnv, story: list[_Answer], steps: int) -> bool:
        """Play what is drawn until the episode ends, and look at the answers; whether it terminated."""
        draw, (*_, terminated, truncated, info) = random.Random(self.task["id"]), story[-1]
        for number in range(steps):
            if terminated or truncated or not info.get("admissible"):
                break
            action = draw.choice(info["admissible"])
            *_, terminated, truncated, info = self.step(env, action, f"further step {number}, action {action[:40]!r}")
        return bool(terminated)

    def snapshots(self, env: SnapshotEnv, played: list[str], story: list[_Answer]) -> None:
        """Restore each decision point in the instance that went on, and in a new one."""
        live = cast(TextEnv, env)
        self.reset(live)
        saved: list[tuple[bytes, str | None]] = []
        for number, action in enumerate([*played, None]):
            with self.no_raise(f"snapshot before step {number}"):
                state = env.snapshot()
            if not isinstance(state, bytes):
                self.fail(f"snapshot before step {number}", "bytes", repr(state)[:80])
            with self.no_raise(f"anchor before step {number}"):
                saved.append((state, anchor(live)))
            if action is not None:
                self.same(story[number], self.step(live, action, f"step {number}"), f"step {number} after snapshots")
        new = self.make_env()
        for number in reversed(range(len(saved))):
            self.reset(new)
            for instance, what in ((live, "in the same instance"), (new, "in a new instance")):
                where = f"snapshot before step {number} restored {what}"
                state, stands_at = saved[number]
                with self.no_raise(where):
                    cast(SnapshotEnv, instance).restore(state)
                    stands_at_now = anchor(instance)
                self.same(stands_at, stands_at_now, f"{where}, digest of its anchor")
                self.replay(instance, played, story, number, where)
        new.close()

    def replay(self, env: TextEnv, played: list[str], story: list[_Answer], start: int, where: str) -> None:
        """Play the actions from ``start`` on and compare."""
        for number in range(start, len(played)):
            what = f"{where}, step {number}, action {played[number][:40]!r}"
            self.same(story[number], self.step(env, played[number], what), what)

    def reset(self, env: TextEnv) -> tuple[str, dict[str, Any]]:
        with self.no_raise("reset"):
            result = env.reset(seed=self.task.get("seed"), options=self.task.get("options"))
        if not (isinstance(result, tuple) and len(result) == 2):
            self.fail("reset", "(observation, info)", repr(result)[:80])
        self.types("reset", *result)
        return result[0], {name: result[1][name] for name in _INFO if name in result[1]}

    def step(self, env: TextEnv, action: str, where: str) -> _Answer:
        with self.no_raise(where):
            result = env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            self.fail(where, "(observation, reward, terminated, truncated, info)", repr(result)[:80])
        observation, *told, info = result
        reward, terminated, truncated = (scalar(value, where) for value in told)
        self.types(where, observation, info)
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            self.fail(where, "the reward as a float", repr(reward))
        if not (isinstance(terminated, bool) and isinstance(truncated, bool)):
            self.fail(where, "terminated and truncated as bools", f"{terminated!r}, {truncated!r}")
        if terminated and not isinstance(info.get("success"), bool):
            self.fail(where, "info['success'] as a bool, since it terminated", repr(info.get("success")))
        return observation, float(reward), terminated, truncated, {name: info[name] for name in _INFO if name in info}

    def types(self, where: str, observation: Any, info: Any) -> None:
        """What reset and step have in common."""
        if not isinstance(observation, str):
            self.fail(where, "the observation as a str", repr(observation)[:80])
        if not isinstance(info, dict):
            self.fail(where, "info as a dict", repr(info)[:80])
        info.update((name, scalar(info[name], where)) for name in ("success", "valid") if name in info)
        for name, kind in (("success", bool), ("valid", bool), ("feedback", str), ("admissible", list)):
            if name in info and not isinstance(info[name], kind):
                self.fail(where, f"info[{name!r}] as a {kind.__name__}", repr(info[name])[:80])
        if not all(isinstance(action, str) for action in info.get("admissible", ())):
            self.fail(where, "info['admissible'] as a list of str", repr(info["admissible"])[:80])

    def same(self, expected: Any, actual: Any, where: str) -> None:
        if expected != actual:
            self.fail(where, f"{expected!r}", f"{actual!r}")

    def fail(self, where: str, expected: str, actual: str) -> Any:
        raise EnvError(f"task {self.task['id']!r}, {where}:\n  expected {expected}\n  got      {actual}")

    @contextmanager
    def no_raise(self, where: str) -> Iterator[None]:
        """Say where it happened if the environment raises."""
        try:
            yield
        except Exception as error:
            raise EnvError(f"task {self.task['id']!r}, {where}: raised {type(error).__name__}: {error}") from error
