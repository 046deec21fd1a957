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
from leafe_graph.files import differences, writing
from leafe_graph.models.identity import file_digest, identity
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
        self.step, self.tokens, self.target_tokens, self.seconds = 0, 0, 0, 0.0
        self.best: dict[str, Any] | None = None
        self.stale = 0
        """Evaluations in a row without a new lowest held-out loss."""

    def judge(self, loss: float, weights: dict[str, Any]) -> None:
        """Keep these weights if their held-out loss is the lowest so far."""
        if self.best is None or loss < self.best["loss"]:
            held = {name: p.detach().cpu().clone() for name, p in weights.items()}
            self.best, self.stale = {"loss": loss, "step": self.step, "adapter": held}, 0
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
            if changed := ", ".join(self._changes(held["fingerprint"])):
                raise ConfigError(
                    f"{folder} holds checkpoints of a run with other settings or rows ({changed}): "
                    "choose another out, or start anew with resume=False (--no-resume)"
                )
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.copy_(held["adapter"][name])
            optimizer.load_state_dict(held["optimizer"])
            for name, new in self.__dict__.items():
                setattr(self, name, held.get(name, new))  # what was added since was not counted then
            return self.step
        return 0

    def _changes(self, theirs: dict[str, Any]) -> list[str]:
        """What a checkpoint was made with that is otherwise now, and weights with old and new digest."""
        ours, added = dict(self.fingerprint), defaults(TrainConfig)  # what was added since had its default then
        weights = ours.pop("weights")
        if (known := theirs.get("weights")) is None:
            log.warning("a checkpoint of an earlier release does not tell which weights it was trained from")
            known = weights
        else:  # where they lie decides nothing
            theirs = {name: value for name, value in theirs.items() if name not in ("weights", "model", "adapter")}
            del ours["model"], ours["adapter"]
        found = sorted(k for k in theirs.keys() | ours if theirs.get(k, added.get(k)) != ours.get(k))
        return [*found, *differences({"weights": known}, {"weights": weights}, {})]


def take_over(out: Path, weights: dict[str, Any], optimizer: Any) -> str:
    """Give the optimiser the moments that the training in ``out`` ended with; the digest of the file they are from.

    Raises:
        ConfigError: there is no checkpoint there, or it is of other weights.
    """
    import torch

    files = sorted((out / "checkpoints").glob("step-*.pt"))
    if not files:
        raise ConfigError(f"optimizer={out} has no checkpoints/step-N.pt: give the out of a finished training")
    held = torch.load(files[-1], map_location="cpu", weights_only=True)
    theirs, ours = ({name: tuple(p.shape) for name, p in each.items()} for each in (held["adapter"], weights))
    if [*theirs.items()] != [*ours.items()]:
        other = next((name for name in [*ours, *theirs] if theirs.get(name) != ours.get(name)), "their order")
        raise ConfigError(
            f"optimizer={out} is of a training of other weights: {other} is {theirs.get(other, 'absent')} there and "
            f"{ours.get(other, 'absent')} here; give a training of the same model with the same tune and LoRA settings"
        )
    now = optimizer.state_dict()
    optimizer.load_state_dict({**now, "state": held["optimizer"]["state"]})  # rates and the like are this training's
    return file_digest(files[-1])


def fingerprint(
    config: TrainConfig, folder: str, rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]
) -> dict[str, Any]:
    """What must be unchanged for checkpoints to be gone on from."""
    compared = [each.name for each in fields(TokenRow) if each.compare]
    always, some = compared[:4], compared[4:]  # an earlier release's rows had the first four

    def digest(rows: Sequence[TokenRow]) -> str:
        held = hashlib.sha256()
        for row in rows:
            more = {name: value for name in some if (value := getattr(row, name)) is not None}
            held.update(json.dumps([*(getattr(row, name) for name in always), *([more] if more else [])]).encode())
        return held.hexdigest()

    settings = config.model_dump(mode="json", exclude=_MAY_CHANGE)
    weights = identity(folder, [] if config.adapter is None else [str(config.adapter)])
    return {**settings, "model": folder, "weights": weights, "data": digest(rows), "eval_data": digest(eval_rows)}
