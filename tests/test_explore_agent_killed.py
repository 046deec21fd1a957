"""`explore_agent` killed at random moments and resumed in new processes has in the end what an undisturbed run has."""

import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import killed_whole
from lives import Lives, kill
from processes import runs
from worlds import forest

from leafe_graph.tree.run_folder import RunFolder

KILLS = 8


def test_killed_at_random_moments_its_trees_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Inside tools that are not safe to be called twice, replays, forks, judges and restores of worlds."""
    calm = killed_whole.run(tmp_path / "calm", 0)
    assert {branch["decision_point"] for branch in calm.branches} == {0, 2, 3}
    place, draw, kills = tmp_path / "killed", random.Random(0), 0
    command = [sys.executable, str(Path(killed_whole.__file__)), str(place)]
    logged = [0]
    with Lives(command) as lives:
        while True:
            life = lives.start(f"{0.01 if kills < KILLS else 0} {'fork' if kills % 2 else 'replay'}")
            if kills < KILLS:
                until = time.monotonic() + 60
                while kills % 4 and branches(place) == logged[-1] and runs(life) and time.monotonic() < until:
                    time.sleep(0.005)  # in the middle of its work, with something done
                time.sleep(draw.uniform(0, 0.06))
                kill(life)
            ended = lives.end()
            assert ended in (0, -signal.SIGKILL)
            if ended == 0:
                break
            kills += 1
            logged.append(branches(place))
    assert kills >= KILLS // 2 and logged == sorted(logged) and len(set(logged)) > kills // 2
    run = RunFolder(place / "run")
    assert set(Counter((branch["task"]["id"], branch["id"]) for branch in run.branches).values()) == {1}
    assert forest(run.branches) == forest(calm.branches)
    assert {**run.cost, "seconds": 0} == {**calm.cost, "seconds": 0}
    assert run.cost["replayed_steps"] > 0


def branches(place: Path) -> int:
    """How many have been logged."""
    log = place / "run" / "branches.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0
