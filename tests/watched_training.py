"""Training that leaves a record of what reached the model, whichever back end built it: for test_unsloth.py.

``python watched_training.py STEP CONFIG…`` trains by the JSON of each TrainConfig in turn; where STEP is not 0, the
process is killed at that step of the last.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune import train as trainer
from leafe_graph.finetune.checkpoint import State
from leafe_graph.finetune.tokens import TokenRow


def watched(config: TrainConfig, killed_at: int = 0) -> dict[str, Any]:
    """Train; the record, which is also written to ``out/watched.pt``.

    ``backend``; ``packages``: whose code the model's modules run; ``start``: the trainable parameters before the first
    step; ``called``: the ids of every forward pass, padding included; ``rows``: (kind, ids, labels, weight) of the rows
    of every forward pass; ``log_probs``: (ids, labels, log pi(completion | prompt)) of each row, after the training.
    """
    import torch

    load, ask, save = trainer.backends.load, trainer.ask, State.save
    seen: dict[str, Any] = {"called": [], "rows": []}
    models: list[Any] = []
    passes: list[list[TokenRow]] = []

    def load_watched(*arguments: Any) -> tuple[Any, str]:
        model, seen["backend"] = load(*arguments)
        seen["packages"] = {module.forward.__module__.partition(".")[0] for module in model.modules()}
        seen["start"] = {name: p.detach().clone() for name, p in trainer.backends.trainable(model).items()}
        models.append(model)
        return model, seen["backend"]

    def ask_watched(model: Any, chains: Any) -> Any:
        passes.append([row for chain in chains for row in chain])
        seen["rows"].append([(r.kind, r.prompt_ids + r.completion_ids, r.labels, r.weight) for r in passes[-1]])
        hook = model.register_forward_pre_hook(
            lambda _, args, kwargs: seen["called"].append(kwargs["input_ids"].tolist()), with_kwargs=True
        )
        said = ask(model, chains)
        hook.remove()
        return said

    def save_then_die(self: State, *arguments: Any) -> None:
        save(self, *arguments)
        if self.step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.backends.load, trainer.ask, State.save = load_watched, ask_watched, save_then_die  # type: ignore
    try:
        trainer.train(config)
    finally:
        trainer.backends.load, trainer.ask, State.save = load, ask, save  # type: ignore
    with torch.no_grad():
        seen["log_probs"] = [
            (row.prompt_ids + row.completion_ids, row.labels, -ask(models[0], [[row]]).nll_N.item())
            for row in {id(row): row for rows in passes for row in rows}.values()
        ]
    torch.save(seen, config.out / "watched.pt")
    return seen


if __name__ == "__main__":
    last = sys.argv[-1]
    for path in sys.argv[2:]:
        watched(TrainConfig.model_validate_json(Path(path).read_text()), int(sys.argv[1]) if path == last else 0)
