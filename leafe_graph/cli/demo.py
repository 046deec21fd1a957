"""``leafe demo``: one round of a packaged recipe, demo.yaml, with the embedded model and Sokoban."""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..errors import ConfigError, LeafeError
from ..files import UserPath
from ..settings import Settings
from .runs import show_rounds

RECIPE = Path(__file__).with_name("demo.yaml")
SMALL: dict[str, Any] = {
    "explore.tasks": 24,
    "explore.env_steps": 60,  # few levels, so more tries at each: it takes some until a reflection helps
    "explore.max_branches": 8,
    "explore.max_depth": 3,
    "train.epochs": 1,
    "eval.tasks": 12,
    "eval.samples": 2,
}
"""What "small" has otherwise than the recipe."""


class Demo(Settings):
    """The whole loop on this machine: explore, export, train, evaluate, compare.

    Example: leafe demo --size small
    """

    out: UserPath | None = None
    """Where everything goes; runs/demo-SIZE-SEED unless given."""
    seed: int = 0
    """Root of all random numbers."""
    size: Literal["small", "full"] = Field(default=os.environ.get("LEAFE_DEMO", "full"), validate_default=True)
    """"small" takes a few minutes; "full" unless given here or in the variable LEAFE_DEMO."""

    def cli_cmd(self) -> None:
        """``leafe demo``."""
        from ..evaluation.compare import compare
        from ..evaluation.results import Result
        from ..files import save_json
        from ..phases.console import console
        from ..rounds.folder import result_file, round_folder
        from ..rounds.loop import run
        from ..rounds.yaml_file import read_config

        size = {} if self.size == "full" else SMALL
        places = {
            "out": self.out or Path(f"runs/demo-{self.size}-{self.seed}"),
            "seed": self.seed,
            "explore.seed": self.seed - 1,  # a round adds its number
            "explore.start": read_config(RECIPE, size).tasks * 10 * self.seed,  # each seed has levels of its own
            "eval.seed": 1000 + self.seed,
        }
        config = read_config(RECIPE, size | places)
        folder, link = round_folder(config, 1), config.out / "run"  # where earlier releases had the run folder
        if link.exists() and not link.is_symlink():
            raise ConfigError(f"{config.out} holds a demo of an earlier release: remove it, or choose another --out")
        told = run(config)
        show_rounds(told, config.model)
        rounds = told["rounds"]
        if len(rounds) < 2:
            raise LeafeError(f"{told['stopped']}: there is nothing to compare")
        results = [Result.load(result_file(round_folder(config, number))) for number in range(len(rounds))]
        comparison = compare(results[0], results[-1])
        seconds = {f"{entry['round']} {name}": spent for entry in rounds for name, spent in entry["seconds"].items()}
        save_json(
            config.out / "demo.json",
            {
                "seed": self.seed,
                "size": self.size,
                "seconds": seconds,
                "rows": rounds[-1].get("export", {}),
                "comparison": comparison.model_dump(),
            },
        )
        if not link.exists():
            link.symlink_to(folder.name)
        console.rule("held-out levels, no reflection, no rewind", align="left")
        console.print(comparison.table())
        if self.size == "small":
            console.print(
                f"{comparison.tasks} levels cannot tell what so few rows teach from chance; the full demo has 50."
            )
        console.rule("a mistake that was corrected", align="left")
        console.print(_correction(folder), highlight=False, soft_wrap=True)
        console.print(f"{sum(seconds.values()):.0f} seconds in all. In {folder}:")
        for file, what in (
            ("branches.jsonl", "every branch of every tree"),
            ("examples/", "the training rows, with their card"),
            ("adapter/", "the adapter (PEFT), with its loss curve and metrics"),
            ("eval/", "all samples, Pass@k as JSON and as a plot"),
            ("report.html", "trees and tables to look at"),
        ):
            console.print(f"  {file:18} {what}", highlight=False)


def _correction(folder: Path) -> str:
    """In words, a mistake that became a training row: what was done, what was learned of it, what was done then."""
    from ..tree.branches import path
    from ..tree.run_folder import RunFolder

    trees = RunFolder(folder).trees
    with (folder / "examples" / "examples.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["kind"] == "counterfactual"]
    if not rows:
        return "None: all rows are of the policy's own wins. More levels help: --size full, or another --seed."
    tree, t = trees[rows[0]["task_id"]], rows[0]["decision_point"]
    branch = tree[rows[0]["branch_id"]]
    failed = path(tree, branch["parent"] or "")
    return (
        f"On level {branch['task']['id']}, at step {t}, the policy did {failed[t]['action']!r}, and did not win.\n"
        f"Asked what went wrong, it said: {branch['experience']}\n"
        f"Told so, back at step {t}, it did {branch['turns'][0]['action']!r}, and won. The row is that step's prompt "
        f"without the advice, and {rows[0]['completion'][0]['content']!r}; there are {len(rows)} such rows.\n"
        f"The whole tree: leafe show {folder} --task {branch['task']['id']}"
    )
