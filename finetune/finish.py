"""What comes after the last step: the result, and what is made of what was saved."""

import logging
from collections import Counter

from leafe_graph.files import save_json
from leafe_graph.models.folders import save_merged

from .batches import steps_in_epoch
from .card import write_card
from .checkpoint import State
from .config import TrainConfig, TrainResult
from .gguf import save_gguf
from .hub import push
from .metrics import plot, read_metrics
from .prepare import Prepared
from .tokens import token_id_counts

log = logging.getLogger(__name__)


def finish(
    config: TrainConfig,
    prepared: Prepared,
    state: State,
    *,
    backend: str,
    resumed_from: int,
    processes: int,
    first: bool,
) -> TrainResult:
    """Say how it went; the first process also writes the model card, loss.png and all else that is asked for.

    Raises:
        LeafeError: the conversion or the upload failed; the weights and what was made before are there.
    """
    out, warnings = config.out, prepared.warnings
    if state.best and state.best["step"] == 0 != state.step:
        warnings = [
            *warnings,
            "held-out loss never fell below its value before training: what is kept are the untrained weights",
        ]
        log.warning(warnings[-1])
    losses = [m["loss"] for m in read_metrics(out / "metrics.jsonl") if "loss" in m]
    last = losses[-steps_in_epoch(len(prepared.rows), config.batch_size) :]
    result = TrainResult(
        adapter=out if config.tune == "lora" else None,
        model=out if config.tune == "full" else None,
        merged=out / "merged" if config.merge else None,
        gguf=out / f"model-{config.gguf.upper()}.gguf" if config.gguf else None,
        backend=backend,
        steps=state.step,
        resumed_from=resumed_from,
        rows=dict(Counter(row.kind for row in prepared.rows)),
        token_ids=token_id_counts(prepared.rows),
        loss=sum(last) / len(last) if last else None,
        eval_loss=state.best["loss"] if state.best else None,
        kept_step=state.best["step"] if state.best else state.step,
        tokens=state.tokens,
        target_tokens=state.target_tokens,
        seconds=state.seconds,
        processes=processes,
        warnings=warnings,
    )
    if not first:
        return result
    folder, tokenizer, dtype = prepared.folder, prepared.tokenizer, config.merged_dtype
    write_card(config, result, tasks=prepared.tasks)
    plot(out, prepared.objective.terms)
    if config.merge:
        log.info("merging the adapter into the base model")
        save_merged(out, folder=folder, tokenizer=tokenizer, dtype=dtype)
    if result.gguf and prepared.converter:
        save_gguf(result, prepared.converter, folder=folder, tokenizer=tokenizer, dtype=dtype)
    save_json(out / "result.json", result.summary())
    if config.push_to_hub:
        log.info("uploading to %s", config.push_to_hub)
        log.info("uploaded to %s", push(out, config.push_to_hub, model=config.model))
    return result
