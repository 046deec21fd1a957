"""Warm starts for ALFWorld and ScienceWorld: a LoRA adapter with which the embedded model can begin to play them.

SmolLM2-135M plays neither untrained, so there would be nothing to learn from. The experts' play, mistakes and
reflections (`leafe_graph.dataset.demonstrate`) on some training tasks become rows, and the adapter is trained on them.
ALFWorld's planner knows where things are; here it looks into other places first: so the policy learns to search.

    python examples/world_warm_start.py --env alfworld --out runs/alfworld-warm-start
    leafe explore --env alfworld --env-options task_types='["look_at_obj_in_light"]',instruction= --start 300 ...
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import track

from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.dataset.export import write_jsonl
from leafe_graph.prompts import BRIEF
from leafe_graph.terminal.console import errors
from leafe_graph.types import Example, Task


def main() -> None:
    """Write the rows, then train unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=WORLDS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the adapter")
    parser.add_argument("--tasks", type=int, default=40, help="tasks of each kind")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows-only", action="store_true", help="do not train")
    arguments = parser.parse_args()
    rows = WORLDS[arguments.env](arguments.tasks, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.out / "demonstrations.jsonl"
    write_jsonl(rows, data)
    print(f"{len(rows)} rows in {data}")
    if not arguments.rows_only:
        from leafe_graph.finetune import TrainConfig
        from leafe_graph.finetune.train import train

        config = TrainConfig(
            objective="demonstrations",
            model="local:smollm2-135m",
            data=[data],
            out=arguments.out,
            epochs=arguments.epochs,
            learning_rate=1e-3,
            layers_to_transform=[*range(8, 30)],  # the upper ones: less work in the backward pass
            batch_size=24,
            micro_batch_size=4,
            save_steps=10,
            adapter_dtype="bfloat16",
            backend="peft",
        )
        print(train(config).summary())


def scienceworld(n: int, seed: int) -> list[Example]:
    """Find a thing, focus on it, and bring it to a box."""
    from leafe_graph.envs import scienceworld as world

    rows = []
    for kind in ("find-living-thing", "find-non-living-thing"):
        tasks = world.tasks("train", n, task=kind, instruction="")
        rows += demonstrate(world.ScienceWorldEnv, tasks, world.expert, prompts=BRIEF, seed=seed, progress=True)
    return rows


def alfworld(n: int, seed: int) -> list[Example]:
    """Find a thing and look at it under a lamp, or put it somewhere."""
    from leafe_graph.envs import alfworld as world

    rows = []
    plans: dict[str, list[str]] = {}
    for kind in ("look_at_obj_in_light", "pick_and_place_simple"):
        tasks = world.tasks("train", n, task_types=[kind], instruction="")
        env, rng, shown = world.AlfworldEnv(), random.Random(seed), track(tasks, kind, console=errors)
        plans.update({task["id"]: searching(env, task, world.expert(task), rng) for task in shown})
        env.close()
        rows += demonstrate(
            world.AlfworldEnv, tasks, lambda task: plans[task["id"]], prompts=BRIEF, seed=seed, progress=True
        )
    return rows


def searching(env: Any, task: Task, plan: list[str], rng: random.Random) -> list[str]:
    """The plan, with up to two other places looked into before each place where a thing is found."""
    _, info = env.reset(seed=task.get("seed"), options=task["options"])
    played: list[str] = []

    def step(action: str) -> str:
        nonlocal info
        observation, *_, info = env.step(action)
        played.append(action)
        return str(observation)

    for number, action in enumerate(plan):
        finds = action.startswith("go to ") and any(a.startswith("take ") for a in plan[number + 1 : number + 3])
        for _ in range(rng.choice([0, 1, 2]) if finds else 0):
            others = [a for a in info["admissible"] if a.startswith("go to ") and a not in (action, *played)]
            if others and "is closed" in step(rng.choice(others)):
                step(played[-1].replace("go to ", "open "))
        step(action)
    return played


WORLDS: dict[str, Callable[[int, int], list[Example]]] = {"alfworld": alfworld, "scienceworld": scienceworld}

if __name__ == "__main__":
    main()
