"""The pool of environments: where an instance stands, how it is brought there, and that it is never shared."""

import pickle
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PIT, WORLDS

from leafe_graph.env import EnvPool, Place, TextEnv, snapshot
from leafe_graph.errors import ConfigError, EnvError, ReplayDivergence
from leafe_graph.testing import GridWorld, SnapshotGridWorld, grid_tasks
from leafe_graph.types import Task, Turn

STEPS = ["down", "right", "right", "up"]


class Counting(GridWorld):
    """A world that counts what is done to it; `kept` holds every instance that was made."""

    kept: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.resets = self.steps = self.closed = 0
        self.kept.append(self)

    def reset(self, **kwargs: Any) -> Any:
        """As ever."""
        self.resets += 1
        return super().reset(**kwargs)

    def step(self, action: str) -> Any:
        """As ever."""
        self.steps += 1
        return super().step(action)

    def close(self) -> None:
        """As ever."""
        self.closed += 1


def counting() -> Any:
    """A fresh class of counting worlds."""
    return type("Counting", (Counting,), {"kept": []})


def walk(pool: EnvPool, task: Task, steps: Sequence[str], *, owner: str = "") -> list[Place]:
    """Play a task from its start; the places on the way. The instance is put back at the last one."""
    env, observation, _ = pool.reset(task)
    places = [Place(task=task, turns=[], observation=observation, env_state=snapshot(env), owner=owner)]
    for action in steps:
        here = places[-1]
        observation, reward, terminated, truncated, info = env.step(action)
        turn = Turn(
            observation=here.observation,
            action=action,
            message={"content": action},
            feedback=info["feedback"],
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            valid=info["valid"],
            checkpoint_id=None,
            env_state=here.env_state,
        )
        places.append(replace(here, turns=[*here.turns, turn], observation=observation, env_state=snapshot(env)))
    pool.put_back(env, places[-1])
    return places


@pytest.mark.parametrize("size", [0, -1])
def test_pool_without_room_is_refused(size: int) -> None:
    """It would wait for ever."""
    with pytest.raises(ConfigError, match="size >= 1"):
        EnvPool(GridWorld, size=size)


def test_instance_instead_of_a_factory_is_refused() -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigError, match=r"'GridWorld', an instance; expected .* such as the class"):
        EnvPool(GridWorld())  # type: ignore[arg-type]


@pytest.mark.parametrize("world", WORLDS)
def test_lease_stands_where_it_is_wanted(world: Any) -> None:
    """At any place of an episode, again and again and in any order, the next step answers as it did the first time."""
    with EnvPool(world) as pool:
        places = walk(pool, PIT, STEPS)
        for t in [2, 0, 3, 1, 1, 2]:
            env = pool.lease(places[t])
            assert env.step(STEPS[t])[0] == places[t + 1].observation
            pool.put_back(env)


@given(st.integers(0, 20), st.lists(st.sampled_from(["up", "down", "left", "right", "jump"]), max_size=8), st.data())
@pytest.mark.parametrize("world", WORLDS)
def test_every_place_of_any_walk_is_brought_back(world: Any, seed: int, steps: list[str], data: Any) -> None:
    """Whatever world and actions: a leased instance goes on as the first one did, to the walk's end."""
    (task,) = grid_tasks(1, start=seed)
    with EnvPool(world, size=2) as pool:
        places = walk(pool, task, steps)
        t = data.draw(st.integers(0, len(steps)))
        env = pool.lease(places[t])
        for k in range(t, len(steps)):
            assert env.step(steps[k])[0] == places[k + 1].observation
        assert snapshot(env) == places[-1].env_state


def test_idle_instance_that_stands_there_costs_nothing() -> None:
    """Going on where one left off neither resets nor replays."""
    world = counting()
    with EnvPool(world) as pool:
        places = walk(pool, PIT, STEPS[:2])
        env = pool.lease(places[2], before_replay=lambda steps: pytest.fail("replayed"))
        assert [(e.resets, e.steps) for e in world.kept] == [(1, 2)]
        assert env is world.kept[0]


def test_replay_is_announced_before_it_is_paid_for() -> None:
    """`before_replay` gets the number of steps; if it refuses, no step is taken, and the instance is not lost."""
    world = counting()
    with EnvPool(world, size=1) as pool:
        places = walk(pool, PIT, STEPS)
        announced: list[int] = []
        pool.put_back(pool.lease(places[3], before_replay=announced.append))
        assert announced == [3]
        with pytest.raises(RuntimeError, match="too dear"):
            pool.lease(places[2], before_replay=lambda steps: (_ for _ in ()).throw(RuntimeError("too dear")))
        assert sum(e.steps for e in world.kept) == 4 + 3
        assert pool.lease(places[0], before_replay=announced.append)
        assert announced == [3]


def test_snapshot_is_restored_and_not_replayed() -> None:
    """With a snapshot at hand the actions are not played again."""
    with EnvPool(SnapshotGridWorld) as pool:
        places = walk(pool, PIT, STEPS)
        env = pool.lease(places[3], before_replay=lambda steps: pytest.fail("replayed"))
        assert snapshot(env) == places[3].env_state


class Drifting(GridWorld):
    """A world that is not deterministic: one of its instances calls a square by another name."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.odd = type(self).made > 0
        type(self).made += 1

    def _look(self) -> str:
        return super()._look() + (" (or so)" if self.odd and self._steps == 2 else "")


def test_replay_that_shows_something_else_is_refused() -> None:
    """The error names the decision point and both texts, survives pickling, and the instance is thrown away."""
    world = type("World", (Drifting,), {})
    with EnvPool(world, size=2) as pool:
        places = walk(pool, PIT, STEPS)
        for _ in range(3):
            with pytest.raises(ReplayDivergence, match="decision point 2") as found:
                pool.lease(places[3])
            error = pickle.loads(pickle.dumps(found.value))
            assert (error.turn, error.expected) == (2, places[2].observation)
            assert error.actual == places[2].observation + " (or so)"
            assert isinstance(error, EnvError)


def test_replay_that_begins_with_something_else_is_refused() -> None:
    """A start that differs is decision point 0."""
    with EnvPool(GridWorld) as pool:
        (place,) = walk(pool, PIT, [])
        with pytest.raises(ReplayDivergence) as found:
            pool.lease(replace(place, observation="you are lost"))
        assert (found.value.turn, found.value.expected) == (0, "you are lost")


def test_place_is_more_than_the_actions_that_led_there() -> None:
    """Another seed or options under the same task id, another observation, another owner: another place."""
    world = counting()
    a, b = grid_tasks(1, start=1)[0] | {"id": "same"}, grid_tasks(1, start=2)[0] | {"id": "same"}
    with EnvPool(world) as pool:
        (here,) = walk(pool, a, [], owner="0")  # type: ignore[arg-type]
        (there,) = walk(pool, b, [], owner="0")  # type: ignore[arg-type]
        first, second = world.kept
        assert pool.lease(there) is second
        assert pool.lease(here) is first
        pool.put_back(first, here)
        assert pool.lease(replace(here, owner="1")) is not first


def test_instance_that_nobody_goes_on_with_is_taken_first() -> None:
    """A finished or released episode's instance is used again before another is made or taken from a living episode."""
    world = counting()
    with EnvPool(world, size=3) as pool:
        one = walk(pool, PIT, STEPS[:1], owner="1")
        two = walk(pool, PIT, STEPS[:1], owner="2")
        pool.release(two[-1])
        walk(pool, PIT, STEPS[:1], owner="3")
        assert len(world.kept) == 2
        assert pool.lease(one[-1]) is world.kept[0]
        pool.release(one[-1])  # leased: nothing to release


def test_full_pool_takes_over_the_longest_idle_instance() -> None:
    """It never grows past its size, and the episode that lost its instance is brought back by a replay."""
    world = counting()
    with EnvPool(world, size=2) as pool:
        one, two, three = (walk(pool, task, ["up"]) for task in grid_tasks(3))
        assert len(world.kept) == 2
        assert pool.lease(two[-1]) is world.kept[1]
        assert pool.lease(three[-1]) is world.kept[0]
        pool.put_back(world.kept[0], three[-1])
        announced: list[int] = []
        assert pool.lease(one[-1], before_replay=announced.append) is world.kept[0]
        assert announced == [1]


def test_lease_is_exclusive_and_the_pool_bounded_under_threads() -> None:
    """Sixteen threads on four worlds: never more than four live, never two users of one, and none is lost."""
    world = counting()
    in_use: set[int] = set()
    most, shared, guard = 0, 0, threading.Lock()
    pool = EnvPool(world, size=4)

    def work(number: int) -> None:
        nonlocal most, shared
        for task in grid_tasks(10, start=number):
            env, observation, _ = pool.reset(task)
            with guard:
                shared += id(env) in in_use
                in_use.add(id(env))
                most = max(most, len(in_use))
            time.sleep(0.0005)
            with guard:
                in_use.discard(id(env))
            if number % 3 == 0:
                pool.discard(env)
            else:
                pool.put_back(env, Place(task=task, turns=[], observation=observation))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, shared) == (4, 0)
    assert sum(not env.closed for env in world.kept) <= 4
    pool.close()
    assert all(env.closed == 1 for env in world.kept)


def test_waiting_lease_gets_the_next_free_instance() -> None:
    """With all instances leased, a lease waits until one is put back, or thrown away."""
    for give_back in (EnvPool.put_back, EnvPool.discard):
        with EnvPool(GridWorld, size=1) as pool:
            env, _, _ = pool.reset(PIT)
            got: list[TextEnv] = []
            thread = threading.Thread(target=lambda pool=pool, got=got: got.append(pool.reset(PIT)[0]))
            thread.start()
            thread.join(0.05)
            assert not got
            give_back(pool, env)
            thread.join(5)
            assert len(got) == 1


def test_closed_pool_closes_its_instances() -> None:
    """Idle ones at once, leased ones when they come back; then nothing can be leased, waiting threads included."""
    world = counting()
    pool = EnvPool(world, size=2)
    walk(pool, PIT, [])
    leased, _, _ = pool.reset(PIT)
    pool.reset(PIT)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            pool.reset(PIT)
        except EnvError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    pool.close()
    thread.join(5)
    assert "closed" in str(errors[0])
    pool.put_back(leased)
    assert [env.closed for env in world.kept if env is leased] == [1]
    with pytest.raises(EnvError, match="closed"):
        pool.reset(PIT)
    pool.close()


class Broken(GridWorld):
    """A world that cannot be closed, nor reset twice."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        """Once."""
        self.resets += 1
        if self.resets > 1:
            raise OSError("the simulator died")
        return super().reset(**kwargs)

    def close(self) -> None:
        """Never."""
        raise OSError("already dead")


def test_broken_instance_is_replaced() -> None:
    """What raises is thrown away, even where closing raises too, and makes room for a new one."""
    with EnvPool(Broken, size=1) as pool:
        for _ in range(3):
            env, _, _ = pool.reset(PIT)
            pool.put_back(env)
            with pytest.raises(OSError, match="the simulator died"):
                pool.reset(PIT)


def test_factory_that_raises_leaves_room_for_the_next_try() -> None:
    """An instance that could not be made does not count."""
    tries = iter([OSError("no display"), GridWorld()])

    def make() -> Any:
        got = next(tries)
        if isinstance(got, Exception):
            raise got
        return got

    with EnvPool(make, size=1) as pool:
        with pytest.raises(OSError, match="no display"):
            pool.reset(PIT)
        assert pool.reset(PIT)[1].startswith("you are at 0,0")


def test_task_is_reset_with_its_seed_and_options() -> None:
    """What a task says is what `reset` gets; what it leaves out is None."""
    given: list[Any] = []

    class World(GridWorld):
        def reset(self, **kwargs: Any) -> Any:
            given.append(kwargs)
            return super().reset(**kwargs)

    with EnvPool(World) as pool:
        pool.reset({"id": "a", "instruction": "", "seed": 3, "options": {"size": 4}})
        pool.reset({"id": "b", "instruction": ""})
    assert given == [{"seed": 3, "options": {"size": 4}}, {"seed": None, "options": None}]
