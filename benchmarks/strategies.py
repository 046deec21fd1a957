"""The strategies of stage 1 with the same budget on the same levels: solved levels and what they cost.

python benchmarks/strategies.py --out runs/strategies
"""

import argparse
from pathlib import Path

from leafe_graph import Budget, Limits, explore, load_model
from leafe_graph.envs import sokoban
from leafe_graph.envs.sokoban.warm_start import LEVELS, PROMPTS, WARM_START, environment
from leafe_graph.strategies import STRATEGIES

COSTS = ("env_steps", "model_calls", "reflections", "prompt_tokens", "completion_tokens")


def main() -> None:
    """Run them one after the other and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--levels", type=int, default=50)
    parser.add_argument("--env-steps", type=int, default=40, help="budget of each level, in moves")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = load_model("local:smollm2-135m", adapter=str(WARM_START))
    tasks = sokoban.tasks("validation", arguments.levels, **LEVELS)
    print(f"| strategy | solved of {len(tasks)} | branches |", *(f"{cost.replace('_', ' ')} |" for cost in COSTS))
    print("|---|" + "---:|" * (2 + len(COSTS)))
    for strategy in STRATEGIES:
        run = explore(
            model,
            environment,
            tasks,
            out=arguments.out / strategy,
            strategy=strategy,
            prompts=PROMPTS,
            max_turns=9,
            history=0,
            max_tokens=1,
            reflect_max_tokens=40,
            limits=Limits(max_branches=40, max_depth=8),
            budget=Budget(env_steps=arguments.env_steps),
            experience_turns=None if strategy in ("refine", "restart") else 1,
            seed=arguments.seed,
            progress=True,
            label=strategy,
        )
        solved = {branch["task"]["id"] for branch in run.branches if branch["end"] == "success"}
        costs = (f"{run.cost[cost]:,} |" for cost in COSTS)  # type: ignore[literal-required]
        print(f"| {strategy} | {len(solved)} | {len(run.branches)} |", *costs, flush=True)


if __name__ == "__main__":
    main()
