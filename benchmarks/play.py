"""Steps of an environment a second of processor time, judging and exploring: this checkout beside an earlier one.

Two-box Sokoban, and two policies: one that answers at once, so that what is measured is the way to it, and a small
language policy. Every measurement is a process of its own; the arms take turns, since the machine may be doing other
things; medians are printed. A run is measured from its second start on: the first one loads and imports.

    python examples/tiny_policy.py --steps 100 --out runs/tiny-policy
    git worktree add ../before COMMIT
    python benchmarks/play.py --policy runs/tiny-policy --before ../before
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LEVELS: dict[str, Any] = {"size": 7, "boxes": 2, "min_moves": 6, "max_moves": 22}
MOVES = ("up", "down", "left", "right")


def blame(messages: Any, seed: int | None) -> str:
    """A reflection at random, of a model that answers at once."""
    draw = random.Random(seed)
    return json.dumps({"step": draw.randrange(4), "experience": f"go {draw.choice(MOVES)}"})


def measure(asked: dict[str, Any]) -> dict[str, float]:
    """Play what is asked for, twice; the second time's figures."""
    from leafe_graph import Limits, explore, load_model
    from leafe_graph.envs.sokoban import SokobanEnv, tasks
    from leafe_graph.exploration import explore as exploring
    from leafe_graph.settings import Acting
    from leafe_graph.testing import ScriptedModel

    view = coordinates()

    def room() -> Any:
        env = SokobanEnv(end_on_deadlock=True, **LEVELS)
        env._render = view.coordinates  # what the language policy knows, also in a checkout without that view
        return env

    policy: Any = ScriptedModel(reply=lambda messages, seed: MOVES[(seed or 0) % 4])
    if asked["policy"]:
        policy = load_model(f"local:{asked['policy']}")
    forks = asked["strategy"] != "independent"
    given: dict[str, Any] = {"reflector": ScriptedModel(reply=blame)} if forks else {}
    if asked["memory"]:
        given["checkpointer"] = "memory"
    elif forks:
        given["checkpointer"] = getattr(exploring, "SQLITE", None)  # what a checkout that lacks it does anyway
    levels, figures = tasks("test", asked["tasks"], **LEVELS), {}
    for seed in range(2):
        with tempfile.TemporaryDirectory() as folder:
            clock, cpu = time.perf_counter(), time.process_time()
            if asked["counted"]:
                from leafe_graph.evaluation.lockstep import lockstep

                play = Acting(max_turns=40, history=0, max_tokens=1, seed=seed)
                n, texts = asked["branches"], view.PROMPTS
                run = lockstep(policy, room, levels, policy="p", n=n, play=play, prompts=texts)
            else:
                run = explore(
                    policy,
                    room,
                    levels,
                    prompts=view.PROMPTS,
                    max_tokens=1,
                    experience_turns=1,
                    reflect_max_tokens=8,
                    out=Path(folder) / "run",
                    strategy=asked["strategy"],
                    limits=Limits(max_branches=asked["branches"], stop_on_success=False),
                    max_turns=40,
                    history=0,
                    concurrency=asked["tasks"],
                    seed=seed,
                    **given,
                )
            clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
            steps = run.cost["env_steps"]
            figures = {"steps/CPU s": steps / cpu, "steps/s": steps / clock, "steps": steps}
    return figures


def coordinates() -> Any:
    """This checkout's view and texts for the language policy, as a module of whichever package is imported."""
    name = "leafe_graph.envs.sokoban.coordinates"
    spec = importlib.util.spec_from_file_location(name, HERE / "envs" / "sokoban" / "coordinates.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def child(checkout: Path, asked: dict[str, Any]) -> dict[str, float]:
    """`measure` in a process that imports the package of a checkout."""
    with tempfile.TemporaryDirectory() as name:
        package = Path(name) / "leafe_graph"
        package.mkdir()
        for part in [*(checkout / "leafe_graph").iterdir(), checkout / "envs", checkout / "finetune"]:
            (package / part.name).symlink_to(part)
        alone = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": name}
        said = subprocess.run(
            [sys.executable, __file__, "--measure", json.dumps(asked)],
            env=os.environ | alone,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a small language policy")
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--branches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(json.loads(arguments.measure))))
        return
    checkouts = {"before": arguments.before, "now": HERE} if arguments.before else {"now": HERE}
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for policy in [None, *([arguments.policy] if arguments.policy else [])]:
            for what, strategy, way in (
                ("judging", "independent", ""),
                ("judging, counted", "independent", "counted"),
                ("exploring, in SQLite", "leafe", ""),
                ("exploring, in memory", "leafe", "memory"),
            ):
                for when, checkout in checkouts.items():
                    if (way and when == "before") or (way == "counted" and policy is None):
                        continue
                    asked = {
                        "policy": policy and str(policy.resolve()),
                        "strategy": strategy,
                        "memory": way == "memory",
                        "counted": way == "counted",
                        "tasks": arguments.tasks,
                        "branches": arguments.branches,
                    }
                    key = ("language policy" if policy else "instant policy", what, when)
                    found.setdefault(key, []).append(child(checkout.resolve(), asked))
                    print(*key, found[key][-1], file=sys.stderr, flush=True)
    print(f"{arguments.tasks} levels at once, {arguments.branches} branches each, medians of {arguments.rounds}:\n")
    print("| | steps/CPU s | steps/s | of before |\n|---|---:|---:|---:|")
    medians = {
        key: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for key, runs in found.items()
    }
    for (policy, what, when), figures in medians.items():
        before = medians.get((policy, what.partition(",")[0], "before"))
        ratio = f"{figures['steps/CPU s'] / before['steps/CPU s']:.1f}" if before else "–"
        print(f"| {policy}, {what}, {when} | {figures['steps/CPU s']:,.0f} | {figures['steps/s']:,.0f} | {ratio} |")


if __name__ == "__main__":
    main()
