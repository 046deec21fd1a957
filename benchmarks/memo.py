"""What the memo of next-token logits saves, where prompts show no history and samples meet in the same states.

Fresh samples of Sokoban levels by a local model, counted in lockstep: with the memo and without, in batches and each
answer by itself. Each is played with the same seeds in this process; figures are of its processor time.

    OMP_NUM_THREADS=1 python benchmarks/memo.py                                # the embedded SmolLM2-135M
    python examples/tiny_policy.py --out runs/tiny-base
    OMP_NUM_THREADS=1 python benchmarks/memo.py --policy runs/tiny-base --tasks 20 --samples 64
"""

import argparse
import time
from pathlib import Path
from typing import Any

from leafe_graph import load_model
from leafe_graph.envs.sokoban import SokobanEnv, coordinates, tasks, warm_start
from leafe_graph.evaluation.lockstep import lockstep
from leafe_graph.settings import Acting

ARMS: dict[str, dict[str, Any]] = {
    "in batches": {},
    "in batches, no memo": {"memo_bytes": 0},
    "each by itself": {"batch_invariant": True},
    "each by itself, no memo": {"batch_invariant": True, "memo_bytes": 0},
}


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a tiny language policy; SmolLM2-135M unless given")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    given = parser.parse_args()
    room: dict[str, Any] = {"size": 6, "boxes": 1, "min_moves": 5, "max_moves": 12}
    view: Any = "words"
    model, texts, turns = {"spec": "local:smollm2-135m", "adapter": str(warm_start.WARM_START)}, warm_start.PROMPTS, 15
    if given.policy:
        room, view, turns = {"size": 7, "boxes": 2, "min_moves": 6, "max_moves": 22}, "coordinates", 40
        model, texts = {"spec": f"local:{given.policy}"}, coordinates.PROMPTS
    levels = tasks("validation", given.tasks, **room, instruction="Sokoban.", start=100_000)
    print("| | CPU s | steps/CPU s | forwards | prompt tokens computed | tokens from the memo | solved |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in given.arms:
        with load_model(**model, max_tokens=1, **ARMS[name]) as policy:  # type: ignore[arg-type, attr-defined]
            policy.load()
            began = time.process_time()
            found = lockstep(
                policy,
                lambda: SokobanEnv(view=view, end_on_deadlock=True),
                levels,
                policy=name,
                n=given.samples,
                play=Acting(max_turns=turns, history=0, max_tokens=1, seed=0),
                prompts=texts,
            )
            took, steps, stats = time.process_time() - began, found.cost["env_steps"], policy.stats
        solved = sum(task.c for task in found.tasks)
        print(
            f"| {name} | {took:.1f} | {steps / took:,.0f} | {stats['forwards']:,} | {stats['prefill_tokens']:,} | "
            f"{stats['memo_hits']:,} of {stats['requests']:,} | {solved} of {given.tasks * given.samples} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
