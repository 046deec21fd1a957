"""Stage 1 of several runs on the same tasks: levels solved over the budget, and by how late the first mistake was.

python benchmarks/stage1.py runs/independent runs/refine runs/leafe --out runs/stage1

Prints the tables and writes stage1.md, stage1.json and stage1.png. A run is called by its folder. In Sokoban a solver
tells the first decision after which the level was lost, deadlocked or too far from solved for the moves that were left;
elsewhere the decision point that the first reflection named stands for it.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from leafe_graph import RunFolder
from leafe_graph.envs.sokoban import SokobanEnv
from leafe_graph.envs.sokoban.solver import distance
from leafe_graph.evaluation.stage1 import first_attempts, stage1
from leafe_graph.files import save_json, save_text
from leafe_graph.settings import MAX_TURNS
from leafe_graph.types import Branch


def lost_at(branch: Branch, env: SokobanEnv, horizon: int) -> int | None:
    """The first decision of a first attempt after which its level could not be solved any more; None if none is."""
    env.reset(seed=branch["task"].get("seed"), options=branch["task"].get("options"))
    for t, turn in enumerate(branch["turns"]):
        env.step(turn["action"])
        left = distance(env.state)
        if left is None or left > horizon - t - 1:
            return t
    return None


def solved_by_solver(runs: Iterable[RunFolder]) -> dict[str, int | None]:
    """For each Sokoban level whose first attempt failed, where it was lost."""
    runs = list(runs)
    settings = runs[0].settings
    env = SokobanEnv(**(settings.model_extra or {}).get("env_options", {}) | {"end_on_deadlock": False})
    horizon = settings.max_turns or MAX_TURNS
    return {
        task: lost_at(branch, env, horizon)
        for task, branch in first_attempts(runs).items()
        if branch["end"] != "success"
    }


def main() -> None:
    """Print the tables; write them and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, help="folder for stage1.md, stage1.json and stage1.png")
    arguments = parser.parse_args()
    runs = {folder.name: RunFolder(folder) for folder in arguments.runs}
    sokoban = all((run.settings.model_extra or {}).get("env") == "sokoban" for run in runs.values())
    result = stage1(runs, solved_by_solver(runs.values()) if sokoban else None)
    print(result.markdown())
    if arguments.out is not None:
        save_text(arguments.out / "stage1.md", result.markdown())
        save_json(arguments.out / "stage1.json", result.model_dump(mode="json"))
        result.plot(arguments.out / "stage1.png")


if __name__ == "__main__":
    main()
