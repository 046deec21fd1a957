"""LEAFE (arXiv 2603.16843): grow trees with reflections and rewinds, distil their corrections into a LoRA adapter."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..models.identity import file_digest
from ..phases.explore import run_explore
from ..phases.learn import run_export, run_train_apart
from .method import Method, Policy, Tasks


class Leafe(Method):
    """Stage 1 is exploring, stage 2 exporting and training.

    Left out: a filter of rehearsal rows (the paper takes a random fifth of the successful rollouts) and a fixed number
    of counterfactual rows a task; all clean rows are trained on.
    """

    phases = ("explore", "export", "train")

    def collect(self, policy: Policy, tasks: Tasks, *, out: Path) -> Path:
        """Grow an experience tree for every task."""

        def explored() -> dict[str, Any]:
            reached = self.tools.access.reach(policy.adapter)
            where = {"out": out, "start": tasks.start, "tasks": tasks.n, "seed": tasks.seed, **reached}
            run = run_explore(self.tools.explore.model_copy(update=where))
            facts = {"tasks": len(run.settings.tasks), "solved": len(run.solved), "branches": len(run.branches)}
            return {**facts, "cost": run.cost}

        self.tools.once(out, "explore", explored)
        return out

    def learn(self, policy: Policy, runs: Sequence[Path]) -> Policy | None:
        """Export the newest run's rows, and train the policy's adapter on those of all runs."""
        newest = runs[-1]
        adapter = newest / "adapter"
        weights = adapter / "adapter_model.safetensors"

        def exported() -> dict[str, Any]:
            summary = run_export(self.tools.export.model_copy(update={"run": newest}))
            return {"counterfactual": summary.counterfactual, "rehearsal": summary.rehearsal}

        def trained() -> dict[str, Any]:
            self.tools.access.pause()
            rows = [run / "examples" / "examples.jsonl" for run in runs]
            where = {"data": rows, "adapter": policy.adapter, "out": adapter, "push_to_hub": None}
            result = run_train_apart(self.tools.train.model_copy(update=where), self.tools.accelerate)
            facts = ("backend", "steps", "rows", "loss", "eval_loss", "kept_step", "tokens", "warnings")
            return {name: getattr(result, name) for name in facts} | {"sha256": file_digest(weights)}

        rows = self.tools.once(newest, "export", exported)
        if not rows["counterfactual"] + rows["rehearsal"]:
            return None
        told = self.tools.once(newest, "train", trained)
        if weights.is_file() and (now := file_digest(weights)) != told.get("sha256", now):
            raise ConfigError(
                f"{adapter} has other weights than the training of this round left ({told['sha256'][:16]} then, "
                f"{now[:16]} now): put those back, or start another folder"
            )
        return replace(policy, adapter=adapter)
