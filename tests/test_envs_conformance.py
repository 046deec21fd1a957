"""Every environment keeps the contract, and the check notices one that does not."""

import time
from typing import Any, ClassVar

import pytest

from leafe_graph.envs import sokoban
from leafe_graph.errors import EnvError
from leafe_graph.testing import GridWorld, SnapshotGridWorld, check_env, grid_tasks

SOKOBAN_TASKS = sokoban.tasks("train", 4) + sokoban.tasks("test", 2, size=7, boxes=2, max_moves=20)


@pytest.mark.parametrize("max_steps", [None, 1, 6])
@pytest.mark.parametrize("end_on_deadlock", [False, True])
def test_sokoban_keeps_the_contract(max_steps: int | None, end_on_deadlock: bool) -> None:
    """Sokoban passes, with and without a horizon and an end on deadlock."""
    check_env(
        lambda: sokoban.SokobanEnv(max_steps=max_steps, end_on_deadlock=end_on_deadlock), tasks=SOKOBAN_TASKS, steps=30
    )


def test_sokoban_keeps_the_contract_from_seeds_and_through_solutions() -> None:
    """Generated from a seed, and played to the end by the solver."""
    check_env(sokoban.SokobanEnv)
    check_env(
        sokoban.SokobanEnv,
        tasks=SOKOBAN_TASKS,
        actions=lambda task: sokoban.solve(task["options"]["level"]) or [],
    )


@pytest.mark.parametrize("world", [GridWorld, SnapshotGridWorld])
@pytest.mark.parametrize("max_steps", [None, 4])
def test_grid_worlds_keep_the_contract(world: type[GridWorld], max_steps: int | None) -> None:
    """Both grid worlds pass, the one with snapshots and the one without."""
    check_env(lambda: world(max_steps=max_steps), tasks=grid_tasks(6))


class Clock(GridWorld):
    """Its observations depend on the time."""

    def _look(self) -> str:
        return f"{super()._look()} at {time.perf_counter_ns()}"


class Leaky(GridWorld):
    """A reset does not forget how often it was reset."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        observation, info = super().reset(**kwargs)
        return observation + "!" * (self.resets - 1), info


class Raising(GridWorld):
    """Raises on an action that it does not know."""

    def step(self, action: str) -> Any:
        if action not in ("up", "down", "left", "right"):
            raise ValueError(action)
        return super().step(action)


class RaisingOnEmpty(GridWorld):
    """Raises on an empty action only."""

    def step(self, action: str) -> Any:
        return super().step(action) if action[0] else None


class Credulous(GridWorld):
    """Calls everything valid."""

    def step(self, action: str) -> Any:
        *answer, info = super().step(action)
        return *answer, info | {"valid": True}


class FourValues(GridWorld):
    """Answers as in old Gym."""

    def step(self, action: str) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class BytesObservation(GridWorld):
    """Its observation is not text."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation.encode(), info


class TextReward(GridWorld):
    """Its reward is not a number."""

    def step(self, action: str) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, str(reward), *rest


class NoVerdict(GridWorld):
    """Terminates without saying whether that was a success."""

    def step(self, action: str) -> Any:
        *answer, info = super().step(action)
        info.pop("success", None)
        return *answer, info


class CloseOnce(GridWorld):
    """Its second close raises."""

    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class ForgetsSteps(SnapshotGridWorld):
    """Its snapshot has no step counter, so the horizon moves."""

    def restore(self, state: bytes) -> None:
        steps = self._steps
        super().restore(state)
        self._steps = steps


class ForgetsPits(SnapshotGridWorld):
    """Its snapshot keeps what is seen only; the pits disappear."""

    def restore(self, state: bytes) -> None:
        super().restore(state)
        self._pits = frozenset()


class Handle(SnapshotGridWorld):
    """Its snapshots are numbers of what only the same instance knows."""

    saved: ClassVar[dict[tuple[int, bytes], bytes]] = {}

    def snapshot(self) -> bytes:
        number = str(len(self.saved)).encode()
        self.saved[id(self), number] = super().snapshot()
        return number

    def restore(self, state: bytes) -> None:
        super().restore(self.saved[id(self), state])


class SnapshotMoves(SnapshotGridWorld):
    """Taking a snapshot changes the state."""

    def snapshot(self) -> bytes:
        state = super().snapshot()
        self._at = self._at[::-1]
        return state


class SnapshotText(SnapshotGridWorld):
    """Its snapshot is not bytes."""

    def snapshot(self) -> Any:
        return super().snapshot().decode()


@pytest.mark.parametrize(
    ("mutant", "said"),
    [
        (Clock, "reset"),
        (Leaky, "second reset"),
        (Raising, "raised ValueError"),
        (RaisingOnEmpty, "raised IndexError"),
        (Credulous, "valid"),
        (FourValues, "terminated, truncated, info"),
        (BytesObservation, "observation as a str"),
        (TextReward, "reward as a float"),
        (NoVerdict, "success"),
        (CloseOnce, "second close"),
        (ForgetsSteps, "restored in"),
        (ForgetsPits, "restored in"),
        (Handle, "in a new instance"),
        (SnapshotMoves, "after snapshots"),
        (SnapshotText, "expected bytes"),
    ],
)
def test_a_broken_environment_is_noticed(mutant: type[GridWorld], said: str) -> None:
    """Each mutant breaks one promise, and the error says which, for which task."""
    with pytest.raises(EnvError, match=said) as caught:
        check_env(lambda: mutant(max_steps=12), tasks=grid_tasks(8))
    assert "grid-00000" in str(caught.value)


def test_an_environment_without_known_actions_needs_some() -> None:
    """Without admissible actions the caller is told to give some, and then the check runs."""

    class Silent(GridWorld):
        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0], {}

        def step(self, action: str) -> Any:
            *answer, info = super().step(action)
            del info["admissible"]
            return *answer, info

    with pytest.raises(EnvError, match="actions="):
        check_env(Silent)
    check_env(Silent, actions=["up", "left", "jump", "down"])
