"""``leafe demo``: the whole loop as a packaged bench, with what plain sampling brings beside what LEAFE does."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..errors import ConfigError
from ..files import UserPath
from ..settings import Settings

if TYPE_CHECKING:
    from ..bench import BenchConfig
    from ..evaluation import Panel

Policy = Literal["tiny", "smollm2-135m"]
SMALL: dict[Policy, dict[str, Any]] = {
    "tiny": {"env_steps": 10_000, "train.epochs": 2, "eval.tasks": 20, "eval.samples": 16},
    "smollm2-135m": {
        "explore.tasks": 24,
        "explore.env_steps": 60,  # few levels, so more tries at each: it takes some until a reflection helps
        "explore.max_branches": 8,
        "explore.max_depth": 3,
        "train.epochs": 1,
        "eval.tasks": 12,
        "eval.samples": 2,
    },
}
"""What "small" has otherwise than the recipe."""


class Demo(Settings):
    """The whole loop on this machine: a policy, what it learns of its wins alone, and what it learns by LEAFE.

    Example: leafe demo --size small
    """

    out: UserPath | None = None
    """Where everything goes; runs/demo-POLICY-SIZE-SEED unless given."""
    policy: Policy = "tiny"
    """"tiny": a language model of 160,000 parameters that was made for this game; "smollm2-135m": the embedded
    model, after a warm start."""
    seed: int = 0
    """Root of all random numbers."""
    size: Literal["small", "full"] = Field(default=os.environ.get("LEAFE_DEMO", "full"), validate_default=True)
    """"small" takes a few minutes; "full" unless given here or in the variable LEAFE_DEMO."""
    jobs: int = Field(default=2, ge=1)
    """How much is done at once, each in a process of its own."""

    def cli_cmd(self) -> None:
        """``leafe demo``."""
        from ..bench import bench, read_bench
        from ..bench.tables import saved
        from ..phases.console import console

        recipe = Path(__file__).with_name(f"demo-{self.policy.removesuffix('-135m')}.yaml")
        out = self.out or Path(f"runs/demo-{self.policy}-{self.size}-{self.seed}")
        if (out / "run.json").exists():
            raise ConfigError(f"{out} holds a demo of an earlier release: remove it, or choose another --out")
        changes = {} if self.size == "full" else SMALL[self.policy]
        if self.policy == "tiny":
            from ..envs.sokoban.tiny import TINY_POLICY

            changes = changes | {"model": f"local:{TINY_POLICY}"}
        config = read_bench(recipe, changes | {"out": out, "seeds": [self.seed]})
        started = time.monotonic()
        bench(config, at_once=self.jobs)
        judged = saved(config)
        assert judged is not None
        console.rule("held-out levels, no reflection, no rewind", align="left")
        for table in judged.tables()[: 1 + len(judged.baselines)]:  # the others are in the file
            console.print(table)
        console.print(_told(judged), highlight=False, soft_wrap=True)
        if self.size == "small":
            console.print(
                f"{judged.tasks} levels cannot tell what so few rows teach from chance; the full demo has more."
            )
        console.rule("a mistake that was corrected", align="left")
        console.print(_correction(config, self.seed), highlight=False, soft_wrap=True)
        console.print(f"{time.monotonic() - started:.0f} seconds in all; all tables: {config.out}/table.md")


def _told(judged: "Panel") -> str:
    """In words, whether LEAFE did otherwise than its controls, as far as this can show."""
    lines = []
    for name in judged.baselines:
        beside = judged.beside("leafe", name).differences
        for k in judged.ks:
            seen = "a difference" if beside[k].told else "no difference that this shows"
            lines.append(f"LEAFE beside {name}, Pass@{k}: {beside[k]} points, {seen}")
    return "\n".join(lines)


def _correction(config: "BenchConfig", seed: int) -> str:
    """In words, a mistake that became a training row: what was done, what was learned of it, what was done then."""
    from ..bench.cells import learning
    from ..bench.choice import cells
    from ..rounds.folder import round_folder
    from ..tree.branches import path
    from ..tree.run_folder import RunFolder

    (cell,) = cells(config, "leafe")
    run = learning(config, cell).played(1)
    with (round_folder(config.rounds(cell), 1) / "examples" / "examples.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["kind"] == "counterfactual"]
    if not rows:
        return "None: all rows are of the policy's own wins. More levels help: --size full, or another --seed."
    trees, t = RunFolder(run).trees[rows[0]["task_id"]], rows[0]["decision_point"]
    branch = trees[rows[0]["branch_id"]]
    failed = path(trees, branch["parent"] or "")
    return (
        f"On level {branch['task']['id']}, at step {t}, the policy did {failed[t]['action']!r}, and did not win.\n"
        f"Asked what went wrong, it said: {branch['experience']}\n"
        f"Told so, back at step {t}, it did {branch['turns'][0]['action']!r}, and won. The row is that step's prompt "
        f"without the advice, and {rows[0]['completion'][0]['content']!r}; there are {len(rows)} such rows.\n"
        f"The whole tree: leafe show {run} --task {branch['task']['id']}\n"
        f"All trees to look at: leafe report {run}"
    )
