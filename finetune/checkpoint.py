"""Checkpoints of a training run: one file each, written aside and moved into place, refused by another run."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError
from leafe_graph.files import writing
from leafe_graph.settings import Output, Pace, Place, defaults, marked

from .config import TrainConfig, Unlearned
from .tokens import TokenRow

log = logging.getLogger(__name__)

_MAY_CHANGE = marked(TrainConfig, Pace, Output, Place, Unlearned)
"""Settings that a resumed run may have otherwise; model and files count by what they hold."""
_KEPT = 2  # the last, and one before it in case the last is torn


class State:
    """What a resumed run needs besides its settings: counters, the best weights so far, and files to keep it in."""

    def __init__(self, *, fingerprint: dict[str, Any]) -> None:
        self.fingerprint = fingerprint
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.best: dict[str, Any] | None = None
        self.stale = 0
        """Evaluations in a row without a new lowest held-out loss."""

    def judge(self, loss: float, weights: dict[str, Any]) -> None:
        """Keep these weights if their held-out loss is the lowest so far."""
        if self.best is None or loss < self.best["loss"]:
            adapter = {name: p.detach().cpu().clone() for name, p in weights.items()}
            self.best, self.stale = {"loss": loss, "step": self.step, "adapter": adapter}, 0
        else:
            self.stale += 1

    def put_back_best(self, weights: dict[str, Any]) -> None:
        """Give the weights the values that had the lowest held-out loss, where any was computed."""
        import torch

        if self.best and self.best["step"] != self.step:
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.copy_(self.best["adapter"][name])

    def save(self, folder: Path, weights: dict[str, Any], optimizer: Any) -> None:
        """Write ``folder/step-N.pt`` and remove all but the newest checkpoints."""
        import torch

        held = {
            **self.__dict__,
            "adapter": {name: p.detach() for name, p in weights.items()},
            "optimizer": optimizer.state_dict(),
        }
        aside = folder / "writing.tmp"
        with writing(folder), aside.open("wb") as file:
            torch.save(held, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, folder / f"step-{self.step:07d}.pt")
        for old in sorted(folder.glob("step-*.pt"))[:-_KEPT]:
            old.unlink()

    def resume(self, folder: Path, weights: dict[str, Any], optimizer: Any) -> int:
        """Load the newest whole checkpoint, if there is one; the step at which it was taken, else 0."""
        import torch

        for path in sorted(folder.glob("step-*.pt"), reverse=True):
            try:
                held = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                log.warning("%s cannot be read (%s): taking the one before it", path, type(error).__name__)
                continue
            theirs, added = held["fingerprint"], defaults(TrainConfig)  # what was added since had its default then
            if changed := sorted(
                k for k in theirs.keys() | self.fingerprint if theirs.get(k, added.get(k)) != self.fingerprint.get(k)
            ):
                raise ConfigError(
                    f"{folder} holds checkpoints of a run with other settings or rows ({', '.join(changed)}): "
                    "choose another out, or start anew with resume=False (--no-resume)"
                )
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.copy_(held["adapter"][name])
            optimizer.load_state_dict(held["optimizer"])
            for name in self.__dict__:
                setattr(self, name, held[name])
            return self.step
        return 0


def fingerprint(
    config: TrainConfig, folder: str, rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]
) -> dict[str, Any]:
    """What must be unchanged for checkpoints to be gone on from."""
    compared = [each.name for each in fields(TokenRow) if each.compare]

    def digest(rows: Sequence[TokenRow]) -> str:
        held = hashlib.sha256()
        for row in rows:
            held.update(json.dumps([getattr(row, name) for name in compared]).encode())
        return held.hexdigest()

    settings = config.model_dump(mode="json", exclude=_MAY_CHANGE)
    return {**settings, "model": folder, "data": digest(rows), "eval_data": digest(eval_rows)}
