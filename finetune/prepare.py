"""What a training starts from: rows read, split and tokenised, each with its coefficient, before any model is loaded.

All that can be found wrong without the model's weights is found here.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError
from leafe_graph.files import check_file
from leafe_graph.models.adapters import check_adapter
from leafe_graph.models.folders import load_tokenizer, model_folder, stop_ids
from leafe_graph.models.hub import check_hub

from .config import TrainConfig
from .gguf import converter_for
from .objectives import Objective, objective
from .outputs import check_kind
from .rows import Problem, SourceRow, of_nodes, raise_problems, read_examples, refuse_shared_tasks, split_tasks
from .tokens import TokenRow, doubts, tokenize

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a training needs beside its settings and the model."""

    folder: str
    """What `from_pretrained` takes for the base model: a folder or a name on the hub."""
    tokenizer: Any
    """The base model's."""
    objective: Objective
    rows: list[TokenRow]
    """To train on."""
    coefficients: list[float]
    """Of each of these rows in the objective's mean, its weight left out."""
    eval_rows: list[TokenRow]
    """Held out; none unless asked for."""
    tasks: int
    """How many tasks the rows to train on come from."""
    converter: Path | None
    """llama.cpp's script, where a GGUF file is asked for."""
    warnings: list[str]
    """What was worth a warning so far, each logged already."""


def prepare(config: TrainConfig) -> Prepared:
    """Read, split and tokenise the rows, and see that all that will be asked for can be had, and `out` written.

    Raises:
        ConfigError: settings that cannot be, or nothing to train on.
        ExampleError: rows that would train wrongly.
        MissingDependency: an extra or llama.cpp's converter is not there.
        RunFolderError: `out` cannot be written.
    """
    for name in ("README.md", "checkpoints/step"):
        check_file(config.out / name)
    folder = model_folder(config.model)
    check_kind(config.out, tune=config.tune, folder=folder)
    tokenizer = load_tokenizer(folder)
    stops = stop_ids(folder, tokenizer)
    trained_for = objective(config.objective, config)
    doubtful = [] if config.adapter is None else check_adapter(config.adapter, folder)

    warnings: list[str] = []

    def tokenized(read: Sequence[SourceRow], use: str) -> list[TokenRow]:
        refused: list[Problem] = []
        rows = tokenize(
            read,
            tokenizer,
            stop_ids=stops,
            max_length=config.max_length,
            use_token_ids=config.use_token_ids,
            refused=refused,
        )
        if refused and not rows:
            raise_problems(refused)
        if refused:
            first = refused[0]
            warnings.append(
                f"{len(refused)} of {len(read)} rows to {use} are left out, since the model cannot be asked them: "
                f"{first.source}, {first.place}: {first.text}"
            )
        rows = [row for row in rows if not trained_for.drops(row.kind)]
        if not any(row.weight for row in rows):
            there = Counter(row.example["kind"] for row in read)
            told = " and ".join(f"{n} {kind}" for kind, n in there.items())
            dropped = " and ".join(kind for kind in there if trained_for.drops(kind))
            raise ConfigError(
                f"nothing to {use}: of {told} rows none is left with a weight above 0"
                + (f"; as it is set, the {trained_for.name} objective leaves out {dropped} rows" if dropped else "")
            )
        return rows

    read, held_out = of_nodes(read_examples(config.data), config.nodes), []
    if config.eval_data:
        held_out = of_nodes(read_examples(config.eval_data), config.nodes)
        refuse_shared_tasks(read, held_out)
    elif config.eval_share:
        read, held_out = split_tasks(read, config.eval_share)
    log.info("%d rows to train on, %d held out; tokenising them", len(read), len(held_out))
    rows, eval_rows = tokenized(read, "train on"), tokenized(held_out, "hold out") if held_out else []
    kinds = {row.kind for row in rows}
    coefficients, doubted = trained_for.coefficients(rows)
    if eval_rows:
        trained_for.coefficients(eval_rows)
    warnings += [*doubted, *doubts(rows)]
    for warning in warnings:
        log.warning(warning)
    warnings += doubtful
    if config.push_to_hub:
        check_hub(config.push_to_hub)
    return Prepared(
        folder=folder,
        tokenizer=tokenizer,
        objective=trained_for,
        rows=rows,
        coefficients=coefficients,
        eval_rows=eval_rows,
        tasks=len({row.example["task_id"] for row in read if row.example["kind"] in kinds}),
        converter=converter_for(folder, tokenizer) if config.gguf else None,
        warnings=warnings,
    )
