"""How fast and how exact the environments are: the table of docs/environments.md.

    python benchmarks/environments.py                    # all that are installed
    python benchmarks/environments.py --worlds sokoban,alfworld --tasks 20

Every environment is measured in a process of its own, one after the other, with its defaults, on a path of each task:
the expert's actions, stretched to 30 turns by actions that do not end the episode.

- reset: the first one of a process, with the listing of the tasks (together they load what the environment needs), and
  the median of the others. ALFWorld's first one depends on what its cache on disk holds already.
- steps/s: along all paths, resets not counted.
- memory: of the process and its children after the first reset, and what each of eight further instances adds.
- rewind: `EnvPool.lease` of a place 10 or 30 turns deep, by an instance that stands elsewhere (its reset included).
- exact: paths played again, each in this process and in another one / of them with every answer the same.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leafe_graph.dataset.demonstrate import Episode
from leafe_graph.env import EnvPool, Place, SnapshotEnv, SubprocessEnv, TextEnv, snapshot
from leafe_graph.envs.catalog import ENVS
from leafe_graph.types import Task

DEPTHS = (10, 30)
FURTHER = 8
"""Instances beyond the first, for the memory of one."""
IDLE = {"codecontests": "```python\nprint(input())\n```"}
"""An action that ends no episode, where neither the expert's nor the admissible ones will do."""


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(name for name, env in ENVS.items() if not env.missing()))
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.tasks)))
        return
    columns = ["environment", "steps/s", "reset first / later", "memory first / each", "rewind", "10 deep", "30 deep"]
    print("| " + " | ".join([*columns, "exact"]) + " |\n|" + "---|" * (len(columns) + 1))
    for name in arguments.worlds.split(","):
        command = [sys.executable, __file__, "--one", name, "--tasks", str(arguments.tasks)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        m = json.loads(done.stdout.splitlines()[-1])
        cells = [
            name,
            f"{m['steps_per_second']:,.0f}",
            f"{_seconds(m['first_reset'])} / {_seconds(m['reset'])}",
            f"{m['first_mb']:,.0f} / {m['further_mb']:,.1f} MB",
            m["kind"],
            *(_seconds(m["rewind"][str(depth)]) if str(depth) in m["rewind"] else "–" for depth in DEPTHS),
            f"{m['identical']} / {m['replays']}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def measure(name: str, n: int) -> dict[str, Any]:
    """The figures of one environment; seconds and MB."""
    info = ENVS[name]
    make, expert = info.make, info.expert
    assert expert is not None
    before, started = _memory(_self_and_children()), time.perf_counter()
    tasks: list[Task] = info.tasks("train", n)  # this starts ScienceWorld's JVM
    env = make()
    _reset(env, tasks[0])
    resets = [time.perf_counter() - started]
    first_mb = _memory(_self_and_children()) - before
    paths = [path(env, task, [*expert(task)], IDLE.get(name)) for task in tasks]
    spent, steps = 0.0, 0
    stories = []
    for task, actions in zip(tasks, paths, strict=True):
        started = time.perf_counter()
        shown = _reset(env, task)
        resets.append(time.perf_counter() - started)
        started = time.perf_counter()
        stories.append((shown, [env.step(action) for action in actions]))
        spent, steps = spent + time.perf_counter() - started, steps + len(actions)
    rewinds = {}
    for depth in DEPTHS:
        deep = [(task, actions) for task, actions in zip(tasks, paths, strict=True) if len(actions) >= depth]
        rewinds.update({depth: rewind(make, *deep[0], depth)} if deep else {})
    other = SubprocessEnv(make, timeout=600)
    identical = 0
    for task, actions, story in zip(tasks, paths, stories, strict=True):
        for instance in (env, other):
            identical += (_reset(instance, task), [instance.step(action) for action in actions]) == story
    other.close()
    with_one = _memory(_self_and_children())
    more = [make() for _ in range(FURTHER)]
    for i, instance in enumerate(more):
        _reset(instance, tasks[i % n])
        for action in paths[i % n][:5]:
            instance.step(action)
    further_mb = (_memory(_self_and_children()) - with_one) / FURTHER
    for instance in [env, *more]:
        instance.close()
    return {
        "steps_per_second": steps / spent,
        "first_reset": resets[0],
        "reset": statistics.median(resets[1:]),
        "first_mb": first_mb,
        "further_mb": further_mb,
        "kind": "snapshot" if isinstance(env, SnapshotEnv) else "replay",
        "rewind": rewinds,
        "replays": 2 * n,
        "identical": identical,
    }


def path(env: TextEnv, task: Task, plan: Sequence[str], idle: str | None) -> list[str]:
    """At most 30 actions that do not end the task's episode: the expert's but the last, over and over, or ``idle``."""
    _reset(env, task)
    actions: list[str] = []
    candidates = [idle] if idle else list(plan[:-1]) or list(plan)
    for tried in range(4 * max(DEPTHS)):
        if len(actions) == max(DEPTHS):
            break
        action = candidates[tried % len(candidates)]
        _, _, terminated, truncated, _ = env.step(action)
        if truncated:
            break
        if not terminated:
            actions.append(action)
            continue
        _reset(env, task)
        for kept in actions:
            env.step(kept)
    return actions


def rewind(make: Callable[[], TextEnv], task: Task, actions: Sequence[str], depth: int) -> float:
    """Seconds of a lease of the place ``depth`` turns deep, the median of three."""
    with EnvPool(make, size=1) as pool:
        env, _, _ = pool.reset(task)
        played = Episode(env, task)
        played.play(actions[:depth])
        state = snapshot(env)
        pool.put_back(env)
        place = Place(task=task, turns=played.turns, observation=played.observation, env_state=state)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            env = pool.lease(place)
            times.append(time.perf_counter() - started)
            pool.put_back(env)
        return statistics.median(times)


def _reset(env: TextEnv, task: Task) -> tuple[str, dict[str, Any]]:
    return env.reset(seed=task.get("seed"), options=task.get("options"))


def _self_and_children() -> list[str]:
    """Process ids, children's children included."""
    parents: dict[str, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(fields[1], []).append(stat.parent.name)
    found = [str(Path("/proc/self").resolve().name)]
    for pid in found:  # the list grows while it is read
        found += parents.get(pid, [])
    return found


def _memory(pids: Sequence[str]) -> float:
    """Resident MB, pages that processes share counted in parts (Pss)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _seconds(value: float) -> str:
    return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.1f} s"


if __name__ == "__main__":
    main()
