"""The commands that are one phase each: explore, demonstrate, export, train, eval."""

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from ..finetune.config import TrainConfig
from ..parsing import key_values
from ..phases.config import DemonstrateConfig, EvalConfig, ExploreConfig, ExportConfig, Recorded


class Explore(ExploreConfig):
    """Play tasks, reflect, rewind, branch: grow an experience tree for every task.

    Example: leafe explore --model local:smollm2-135m --tasks 8 --out runs/first
    """

    agent: Annotated[str | None, Recorded] = None
    """Play a whole agent of yours instead of an environment: MODULE:ATTRIBUTE of build(model, world). The module also
    has tasks(split, n, start=…) and judge(result, world, task), and may have world(task), inputs(task) and
    answer(interrupt), as explore_agent takes them."""
    estimate: Annotated[dict[str, Any], NoDecode, BeforeValidator(key_values)] = Field(default_factory=dict)
    """What --dry-run assumes, as a section of that name in a file of rounds: turn_tokens=80,prompt_price=0.25,…"""
    dry_run: bool = False
    """Only print what it would come to at most: steps, calls, tokens, time and price. Nothing is loaded or asked."""

    def cli_cmd(self) -> None:
        """``leafe explore``."""
        if self.dry_run:
            from ..phases.console import console
            from ..rounds.config import Estimate
            from ..rounds.dry_run import plan_of_trees

            for told in plan_of_trees(self, Estimate(**self.estimate), agent=self.agent):
                console.print(told)
            return
        from ..phases.explore import run_explore

        run_explore(self, agent=self.agent)


class Demonstrate(DemonstrateConfig):
    """Let an environment's expert play, and write what it does as training rows for a warm start.

    Example: leafe demonstrate --env sokoban --tasks 100 --out runs/expert.jsonl
    """

    def cli_cmd(self) -> None:
        """``leafe demonstrate``."""
        from ..phases.learn import run_demonstrate

        run_demonstrate(self)


class Export(ExportConfig):
    """Turn a run's trees into training rows: JSONL, Parquet and a dataset card.

    Example: leafe export runs/first --keep improved
    """

    flag_groups: ClassVar[dict[str, str]] = {
        "kinds": "what is made, and of which branchings",
        "skip_invalid": "what is left out or let in",
        "rehearsal_share": "how many, and how much they weigh",
        "teacher": "soft labels",
        "advantage_std": "rollouts",
        "seed": "what is drawn",
        "test_tasks": "tasks to judge by",
        "other_prompts": "texts and files",
    }
    """The first field of each group of flags in ``--help``, with the group's title."""

    def cli_cmd(self) -> None:
        """``leafe export``."""
        from ..phases.learn import run_export

        run_export(self)


class Train(TrainConfig):
    """Train a LoRA adapter on exported rows: L = L_cf + beta * L_reh, loss on the action's tokens only.

    Example: leafe train --model local:smollm2-135m --data runs/first --out runs/first/adapter
    """

    flag_groups: ClassVar[dict[str, str]] = {
        "config": "what it starts from, and what for",
        "lora_r": "LoRA",
        "learning_rate": "the optimiser",
        "epochs": "how long, and how much at once",
        "eval_data": "rows that are held out",
        "save_steps": "checkpoints",
        "merge": "what is saved",
        "backend": "machine and memory",
        "report_to": "tracking, and the seed",
    }
    """The first field of each group of flags in ``--help``, with the group's title."""

    def cli_cmd(self) -> None:
        """``leafe train``."""
        from ..phases.learn import run_train

        run_train(self)


class Eval(EvalConfig):
    """Judge a policy: fresh samples without reflection or rewind; Pass@k with intervals to OUT.json and OUT.png.

    Example: leafe eval --model local:smollm2-135m --adapter runs/first/adapter --out runs/first/eval/adapted
    """

    def cli_cmd(self) -> None:
        """``leafe eval``."""
        from ..phases.evaluate import run_eval

        run_eval(self)
