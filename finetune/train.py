"""The trainer: one flat loop over steps, LoRA or all weights by AdamW, resumable to the bit.

    leafe train --model local:smollm2-135m --data RUN --out RUN/adapter

A checkpoint is one file (what trains, optimizer, random state, step), written aside and moved into place; the order of
rows and the learning rate are functions of (seed, step). So a run that was killed and started again ends with the same
weights as one that was not. The loop reads like those of thinking-machines-lab/tinker-cookbook.
"""

import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from leafe_graph.errors import ConfigError
from leafe_graph.files import save_json
from leafe_graph.models.folders import needs_train_extra
from leafe_graph.terminal.bar import Bar

from . import backends, outputs, parallel
from .batches import chains, epoch_steps, micro_batches, steps_in_epoch
from .checkpoint import State, fingerprint, take_over
from .config import TrainConfig, TrainResult
from .finish import finish
from .loss import objective_value, references, remembering, weighted
from .metrics import Metrics
from .prepare import prepare
from .said import ask

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> TrainResult:
    """Train, save the adapter or the model to ``config.out``, and say where everything lies.

    Raises `ConfigError` for settings that cannot be, `ExampleError` for rows that would train wrongly (before the model
    is loaded), `MissingDependency` where an extra or, for ``gguf``, llama.cpp's converter is missing (before it is
    trained), and `LeafeError` if, after the training, the conversion or the upload fails: the same call does that anew.
    """
    backends.start_unsloth_first(config)
    with needs_train_extra():
        import torch

    prepared = prepare(config)
    objective, rows, eval_rows, c = prepared.objective, prepared.rows, prepared.eval_rows, prepared.coefficients
    kinds = [row.kind for row in rows]
    steps_per_epoch = steps_in_epoch(len(rows), config.batch_size)
    units = chains(rows, longest=len(rows) // steps_per_epoch)
    total = config.max_steps or math.ceil(config.epochs * steps_per_epoch)

    accelerator = parallel.accelerator(config)
    rank, processes, first = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    model, backend = backends.load(config, prepared.folder, accelerator.device)

    checkpoints = config.out / "checkpoints"
    with accelerator.main_process_first():
        if first and not config.resume:
            shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True, exist_ok=True)

    passes: dict[str, Any] = {"micro_batch_size": config.micro_batch_size, "rank": rank, "processes": processes}
    # By the weights from which training starts, so before a checkpoint's are loaded.
    rows, eval_rows = (
        remembering(each, parallel.joined(accelerator, references(model, each, objective, **passes)))
        for each in (rows, eval_rows)
    )
    weights = backends.trainable(model)
    optimizer = torch.optim.AdamW(
        weights.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=config.tune == "full" or None,  # one pass over the weights; LoRA's few are as they were
    )
    made_of = parallel.of_first(accelerator, lambda: fingerprint(config, prepared.folder, rows, eval_rows))
    if config.optimizer is not None:
        made_of["optimizer"] = take_over(config.optimizer, weights, optimizer)
    state = State(fingerprint=made_of)
    resumed_from = state.resume(checkpoints, weights, optimizer)
    if first:
        save_json(config.out / "train_config.json", config.model_dump(mode="json", exclude={"resume"}))
    metrics = Metrics(config.out / "metrics.jsonl", upto=resumed_from, accelerator=accelerator)
    log.info(
        "%s rows, %d steps, backend %s%s",
        " + ".join(f"{count} {kind}" for kind, count in Counter(kinds).items()),
        total,
        backend,
        f", going on from step {resumed_from}" if resumed_from else "",
    )

    def evaluate() -> None:
        [value] = parallel.add_up(accelerator, [objective_value(model, eval_rows, objective, **passes)])
        metrics.write({"step": state.step, "eval_loss": value})
        state.judge(value, weights)

    if eval_rows and resumed_from == 0:
        evaluate()
    plan: tuple[int, list[list[Sequence[int]]]] = (-1, [])
    with Bar("training", total, resumed_from, shown=first) as progress:
        while state.step < total and not (config.patience and state.stale >= config.patience):
            started = time.perf_counter()
            epoch, place = divmod(state.step, steps_per_epoch)
            if plan[0] != epoch:
                plan = epoch, epoch_steps(units, kinds, config.batch_size, seed=config.seed, epoch=epoch)
            step_chains = plan[1][place]
            # Divided by the epoch's mean step size, not this step's: the mean over an epoch is then exactly L.
            share = steps_per_epoch / len(rows)
            counts = Counter(kinds[i] for chain in step_chains for i in chain)
            loss, by_kind, told = 0.0, dict.fromkeys(sorted(counts), 0.0), dict.fromkeys(objective.measures, 0.0)
            torch.manual_seed(Random(f"{config.seed}/{state.step}/{rank}").getrandbits(63))  # of dropout
            at_once = min(config.micro_batch_size, -(-len(step_chains) // processes))
            for batch in micro_batches(rows, step_chains, at_once)[rank::processes]:
                members = [i for chain in batch for i in chain]
                these = [rows[i] for i in members]
                losses_N, measured = objective.losses(ask(model, [[rows[i] for i in chain] for chain in batch]), these)
                part = weighted(losses_N, these, [share * c[i] for i in members])
                part.backward()
                loss += part.item()
                for row, value in zip(these, losses_N.tolist(), strict=True):
                    by_kind[row.kind] += row.weight * value
                for name, values_N in measured.items():
                    told[name] += values_N.sum().item()
            loss, *sums = parallel.add_up(accelerator, [loss, *by_kind.values(), *told.values()])
            parallel.add_up_gradients(accelerator, weights.values())
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise ConfigError(
                    f"the loss is {loss} and its gradient's norm {norm} at step {state.step + 1}: lower learning_rate, "
                    "or use float32"
                )
            rate = learning_rate(config, state.step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            seconds, tokens = time.perf_counter() - started, sum(len(rows[chain[-1]]) for chain in step_chains)
            state.step, state.tokens, state.seconds = state.step + 1, state.tokens + tokens, state.seconds + seconds
            state.target_tokens += sum(len(rows[i].completion_ids) for chain in step_chains for i in chain)
            metrics.write(
                {
                    "step": state.step,
                    "epoch": round(state.step / steps_per_epoch, 4),
                    "loss": loss,
                    **{objective.terms[kind]: value / counts[kind] for kind, value in zip(by_kind, sums, strict=False)},
                    **{
                        name: value / counts[objective.measures[name]]
                        for name, value in zip(told, sums[len(by_kind) :], strict=True)
                        if counts[objective.measures[name]]
                    },
                    "lr": rate,
                    "grad_norm": norm,
                    "tokens": tokens,
                    "tokens_per_second": round(tokens / seconds, 1),
                    "seconds": round(seconds, 4),
                }
            )
            progress.update(state.step, [f"loss {loss:.4f}", f"{tokens / seconds:.0f} tokens/s"])
            if eval_rows and (state.step % config.eval_steps == 0 or state.step == total):
                evaluate()
            if first and state.step % config.save_steps == 0:
                state.save(checkpoints, weights, optimizer)
    if first:
        state.save(checkpoints, weights, optimizer)
    state.put_back_best(weights)
    if first:
        if config.tune == "full":
            outputs.save_model(model, config.out, tokenizer=prepared.tokenizer)
        else:
            outputs.save_adapter(model, config.out, folder=prepared.folder, dtype=config.adapter_dtype)
    accelerator.end_training()
    return finish(
        config,
        prepared,
        state,
        backend=backend,
        resumed_from=resumed_from,
        processes=processes,
        first=first,
    )


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of 0-based ``step`` out of ``total``."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    shape = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
    return config.learning_rate * shape[config.lr_schedule]
