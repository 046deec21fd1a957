"""The simulation of a cluster obeys the laws of queues."""

import itertools
from dataclasses import replace

import pytest

pytest.importorskip("langchain_openai", reason='it chooses servers as models do: pip install ".[openai]"')

from benchmarks.simulate_cluster import BUILT, CHANGES, NAMES, OLD, Costs, Design, needs, simulate

COSTS = Costs(slots=8, turns=6)
DESIGNS = [OLD, BUILT, *(replace(BUILT, **{name: False}) for name in CHANGES), replace(OLD, actors=True)]


def test_one_task_alone_waits_for_nobody() -> None:
    """It takes the sum of what its branches need."""
    costs = replace(COSTS, slots=1)
    for design in (OLD, BUILT):
        result = simulate(design, 1, costs, tasks=1, trees=[[6] * 100])
        each = sum(needs(design, 1, costs).values()) + (costs.sync if design.group_commit else 0.0)
        assert result.seconds == pytest.approx(100 * each, rel=0.05)
        assert result.branches == pytest.approx(1 / each, rel=0.05)


@pytest.mark.parametrize("design", [OLD, BUILT])
def test_littles_law_holds_at_every_station(design: Design) -> None:
    """Tasks there in the mean are the rate at which they come times how long each stays; each visit is served once."""
    trees = [[3, 6, 2]] * 100
    result = simulate(design, 2, COSTS, trees=trees)
    for station in itertools.chain(*result.stations.values()):
        assert station.means()[1] * result.seconds == pytest.approx(station.stayed)
    served = {kind: sum(station.served for station in each) for kind, each in result.stations.items()}
    assert served["GPUs"] == 1100 and served["disk"] == 300
    assert served["driver"] == (300 if design.actors else 1100)


@pytest.mark.parametrize("design", DESIGNS)
def test_nothing_is_used_more_than_wholly_nor_is_more_done_than_the_bottleneck_can(design: Design) -> None:
    """And what a station was seen to be busy is what the branches that were logged needed of it."""
    result = simulate(design, 4, COSTS, workers=2, seconds=60)
    needed = needs(design, 4, COSTS)
    bound = min(len(result.stations[kind]) / each for kind, each in needed.items())
    assert 0.85 * bound < result.branches <= 1.02 * bound  # a window's edges
    for kind, measured in result.measured.items():
        assert measured <= 1 + 1e-9
        assert measured == pytest.approx(result.load[kind], abs=0.04)


def test_more_gpus_do_more_until_something_else_is_saturated() -> None:
    """The core of the one worker, at last; then nothing more is gained, and nothing lost."""
    slow = replace(COSTS, call=30e-3)
    results = [simulate(BUILT, gpus, slow, workers=1, seconds=60) for gpus in (1, 2, 4, 8)]
    speeds = [result.branches for result in results]
    assert speeds[0] < speeds[1]
    assert all(later > 0.97 * earlier for earlier, later in itertools.pairwise(speeds))
    assert [result.first for result in results] == ["GPUs", "workers", "workers", "workers"]
    assert speeds[-1] == pytest.approx(1 / needs(BUILT, 8, slow)["workers"], rel=0.03)


def test_each_limit_is_there_without_its_change() -> None:
    """A disk that syncs for each branch, a driver that takes dicts, a choice among all: where they cost more."""
    dear = replace(COSTS, call=0.01, sync=0.3, dict_a_branch=0.4, superstep_a_turn=0.05, choice_a_server=0.02)
    built = simulate(BUILT, 4, dear, workers=4, seconds=60)
    assert built.first == "GPUs"
    for name, first in {
        "one_superstep": "workers",
        "actors": "driver",
        "batches": "driver",
        "group_commit": "disk",
        "constant_choice": "workers",
    }.items():
        result = simulate(replace(BUILT, **{name: False}), 4, dear, workers=4 - 3 * (first == "workers"), seconds=60)
        assert result.first == first and result.branches < built.branches, NAMES[name]
    assert simulate(replace(BUILT, outlines=False), 4, dear, workers=4, seconds=60).memory > 50 * built.memory
