"""The commands that are one phase each: explore, demonstrate, export, train, eval."""

from ..finetune.config import TrainConfig
from ..phases.config import DemonstrateConfig, EvalConfig, ExploreConfig, ExportConfig


class Explore(ExploreConfig):
    """Play tasks, reflect, rewind, branch: grow an experience tree for every task."""

    def cli_cmd(self) -> None:
        """``leafe explore``."""
        from ..phases.explore import run_explore

        run_explore(self)


class Demonstrate(DemonstrateConfig):
    """Let an environment's expert play, and write what it does as training rows for a warm start."""

    def cli_cmd(self) -> None:
        """``leafe demonstrate``."""
        from ..phases.learn import run_demonstrate

        run_demonstrate(self)


class Export(ExportConfig):
    """Turn a run's trees into training rows: JSONL, Parquet and a dataset card."""

    def cli_cmd(self) -> None:
        """``leafe export``."""
        from ..phases.learn import run_export

        run_export(self)


class Train(TrainConfig):
    """Train a LoRA adapter on exported rows: L = L_cf + beta * L_reh, loss on the action's tokens only."""

    def cli_cmd(self) -> None:
        """``leafe train``."""
        from ..phases.learn import run_train

        run_train(self)


class Eval(EvalConfig):
    """Judge a policy: fresh samples without reflection or rewind; Pass@k with intervals to OUT.json and OUT.png."""

    def cli_cmd(self) -> None:
        """``leafe eval``."""
        from ..phases.evaluate import run_eval

        run_eval(self)
