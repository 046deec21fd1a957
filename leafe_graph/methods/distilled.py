"""What most methods have in common: explore, export the run's rows, train on those of all rounds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from ..errors import ConfigError
from ..models.identity import digest_of_weights
from ..phases.explore import run_explore
from ..phases.learn import run_export, run_train_apart
from ..types import ExampleKind
from .method import Method, Policy, Round, Tasks


def rows_of(examples: Path) -> Path:
    """What an export left: its one file of rows, or the folder where there are several."""
    return examples if any(examples.glob("examples-*.jsonl")) else examples / "examples.jsonl"


KINDS = [kind for kind in get_args(ExampleKind) if kind != "demonstration"]
"""The rows that an export may make."""
FACTS = ("backend", "steps", "rows", "loss", "eval_loss", "kept_step", "tokens", "target_tokens", "warnings")
"""What is kept of a `TrainResult`."""


class Distilled(Method):
    """Explore, export, train: what a method of this kind has of its own are the settings of these three."""

    phases: ClassVar[tuple[str, ...]] = ("explore", "export", "train")

    def collect(self, policy: Policy, tasks: Tasks, *, out: Path) -> Path:
        """Explore."""

        def explored() -> dict[str, Any]:
            reached = self.tools.access.reach(policy)
            where = {"out": out, "start": tasks.start, "tasks": tasks.n, "seed": tasks.seed, **reached}
            if tasks.env_steps is not None:
                where["total_env_steps"] = tasks.env_steps
            run = run_explore(self.tools.explore.model_copy(update=where))
            facts = {"tasks": len(run.trees), "solved": len(run.solved), "branches": len(run.outlines)}
            return {**facts, "cost": run.cost}

        self.tools.once(out, "explore", explored)
        return out

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """Export the newest run's rows, and train the policy on those of all rounds."""
        rows = self.exported(rounds[-1])
        return self.trained(policy, rounds) if any(rows.get(kind) for kind in KINDS) else None

    def exported(self, of: Round, **changes: Any) -> dict[str, Any]:
        """How many rows of each kind a round's run gives; ``changes`` are settings of the export."""

        def exported() -> dict[str, Any]:
            where = {"run": of.played, "out": of.folder / "examples"}
            summary = run_export(self.tools.export.model_copy(update=where | changes))
            told = {kind: getattr(summary, kind) for kind in KINDS}
            return {kind: n for kind, n in told.items() if n or kind in ("counterfactual", "rehearsal")}

        return self.tools.once(of.folder, "export", exported)

    def trained(self, policy: Policy, rounds: Sequence[Round], phase: str = "train", **changes: Any) -> Policy:
        """The policy trained on the rounds' rows, once; ``changes`` are settings of the training.

        Raises:
            ConfigError: the weights that it left are there no more.
        """
        newest = rounds[-1]
        whole = self.tools.train.tune == "full"
        trained_to = newest.folder / (phase if phase != "train" else "model" if whole else "adapter")

        def trained() -> dict[str, Any]:
            self.tools.access.pause()
            rows = [rows_of(each.folder / "examples") for each in rounds]
            where = {"data": rows, "model": policy.model, "adapter": policy.adapter, "out": trained_to}
            settings = self.tools.train.model_copy(
                update=where | {"optimizer": policy.state, "push_to_hub": None} | changes
            )
            result = run_train_apart(settings, self.tools.accelerate)
            return {name: getattr(result, name) for name in FACTS} | {"sha256": digest_of_weights(trained_to)}

        told = self.tools.once(newest.folder, phase, trained)
        if (now := digest_of_weights(trained_to)) not in (None, told.get("sha256", now)):
            raise ConfigError(
                f"{trained_to} has other weights than the training of this round left ({told['sha256'][:16]} then, "
                f"{now[:16]} now): put those back, or start another folder"
            )
        if whole:
            return replace(policy, model=f"local:{trained_to}", adapter=None, trained=trained_to)
        return replace(policy, adapter=trained_to, trained=trained_to)
