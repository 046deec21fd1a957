"""``leafe demo``: one round of a packaged recipe, demo.yaml, with the embedded model and Sokoban."""

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
    "explore.tasks": 8,
    "explore.env_steps": 24,
    "train.epochs": 1,
    "eval.tasks": 6,
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
        console.print(f"{sum(seconds.values()):.0f} seconds in all. In {folder}:")
        for file, what in (
            ("branches.jsonl", "every branch of every tree"),
            ("examples/", "the training rows, with their card"),
            ("adapter/", "the adapter (PEFT), with its loss curve and metrics"),
            ("eval/", "all samples, Pass@k as JSON and as a plot"),
            ("report.html", "trees and tables to look at"),
        ):
            console.print(f"  {file:18} {what}", highlight=False)
