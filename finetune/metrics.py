"""What a run leaves to look at: metrics.jsonl, loss.png."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leafe_graph.errors import install
from leafe_graph.files import replace_file, writing

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics.jsonl."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # a torn last line
    return records


class Metrics:
    """metrics.jsonl: a line a step, and one an evaluation; the trackers get the same.

    Lines of steps that are done again are dropped first. Of several processes the first one writes.
    """

    def __init__(self, path: Path, *, upto: int, accelerator: "Accelerator") -> None:
        self.path, self._accelerator = path, accelerator
        if accelerator.is_main_process:
            kept = [m for m in read_metrics(path) if upto and m["step"] <= upto]
            text = "".join(json.dumps(m) + "\n" for m in kept)
            replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))

    def write(self, record: dict[str, Any]) -> None:
        """Append a line."""
        if self._accelerator.is_main_process:
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self._accelerator.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])


def plot(out: Path, terms: Mapping[str, str]) -> Path | None:
    """Draw ``out/loss.png`` from ``out/metrics.jsonl``, with the terms of the objective, `Objective.terms`.

    None (and a note) without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("no loss curve drawn: matplotlib is not installed (%s)", install("train"))
        return None

    records = read_metrics(out / "metrics.jsonl")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    labels = {"loss": "L (step)", **{key: kind for kind, key in terms.items()}, "eval_loss": "L (held out)"}
    for key, label in labels.items():
        if points := [(r["step"], r[key]) for r in records if key in r]:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if key == "eval_loss" else None)
    axes.set(xlabel="step", ylabel="negative log-likelihood of an action")
    axes.legend()
    figure.savefig(out / "loss.png", dpi=120)
    return out / "loss.png"
