"""Pass@k in a model card."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from leafe_graph.files import save_text

if TYPE_CHECKING:
    from leafe_graph.evaluation.results import Result
from leafe_graph.text import markdown_table

from .statistics import ALIKE

_TOLD = "\n## Held-out tasks\n"


def add_result(adapter: Path, result: "Result", ks: Iterable[int], *, env: str, split: str) -> None:
    """Put Pass@k on held-out tasks into the card, for people and as the hub's model-index; replaces what was there."""
    from huggingface_hub import EvalResult, ModelCard

    file = adapter / "README.md"
    if not file.is_file():  # made by a release that wrote none
        return
    card = ModelCard.load(file)
    curve = result.curve(ks)
    of = {"task_type": "text-generation", "dataset_type": env, "dataset_name": env, "dataset_split": split}
    card.data.model_name = result.policy
    card.data.eval_results = [
        EvalResult(**of, metric_type="pass@k", metric_name=f"Pass@{e.k}", metric_value=round(e.mean, 4)) for e in curve
    ]
    card.text = card.text.partition(_TOLD)[0].rstrip() + "\n" + _TOLD + "\n"
    card.text += f"{len(result.tasks)} tasks of {env} ({split}), {result.n} samples each, no reflection, no rewind.\n\n"
    card.text += f"**{result.warning}**\n\n" if result.warning else ""
    card.text += (
        markdown_table(("Pass@k", "% [95% interval over tasks]"), [(f"Pass@{e.k}", str(e)) for e in curve]) + "\n"
    )
    card.text += f"\n\\{ALIKE}.\n" if any(e.alike for e in curve) else ""
    save_text(file, str(card))
