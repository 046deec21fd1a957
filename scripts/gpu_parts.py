"""What `gpu_check.py` measures, a generator a part: it yields a line of results as soon as that is there.

On a CPU in the dry run the same functions run at other sizes.
"""

import contextlib
import gc
import json
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_shapes import Line, Sizes, flops, model, since, wait

TOLERANCE = 1e-2
"""How far losses of the same rows may be apart, a target token's or as a share."""


def plain(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """A plain PEFT loop, the losses that the others are held against."""
    from training_arms import plain as arm

    for checkpointing in (False, True):
        yield _trained(folder, sizes, "plain", arm, gradient_checkpointing=checkpointing)


def ours(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """`leafe train`, by micro-batch size; with gradient checkpointing, and in 4 bits."""
    import torch
    from training_arms import ours as arm

    def trained(**other: Any) -> Line:
        return _trained(folder, sizes, "ours", lambda setting: arm(setting, "peft"), **other)

    for size in sizes.micro_batches:
        yield trained(micro_batch_size=size)
    for size in sizes.micro_batches[2:]:
        yield trained(micro_batch_size=size, gradient_checkpointing=True)
    if find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        yield {"what": "ours, 4 bits", "skipped": "needs a GPU and the package bitsandbytes"}
    else:
        yield trained(load_in_4bit=True)


def trl(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """TRL's SFTTrainer: rows packed, with gradient checkpointing too, and padded."""
    if find_spec("trl") is None:
        yield {"what": "TRL", "skipped": "trl is not installed"}
        return
    from training_arms import trl as arm

    def packed(setting: Any) -> Any:
        return arm(setting, packing=True)

    by = "FlashAttention" if find_spec("flash_attn") else "PyTorch's attention"
    # A pack is as long as the longest row may be: fewer of them make a pass as long as one of rows.
    yield _trained(folder, sizes, f"TRL, packed, {by}", packed, micro_batch_size=1)
    yield _trained(folder, sizes, f"TRL, packed, {by}", packed, micro_batch_size=2, gradient_checkpointing=True)
    yield _trained(folder, sizes, "TRL, padded", arm)


def _trained(folder: Path, sizes: Sizes, name: str, arm: Callable[[Any], Any], **other: Any) -> Line:
    """Train by an arm, and tell how fast and in how much memory; or why that failed."""
    import torch
    from training_arms import memory

    setting = replace(setting_of(folder, sizes), **other)
    shutil.rmtree(setting.out, ignore_errors=True)
    line: Line = {
        "what": name,
        "4 bits": setting.load_in_4bit,
        "micro-batch": setting.micro_batch_size,
        "checkpointing": setting.gradient_checkpointing,
    }
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        done = arm(setting)
    except Exception as error:  # memory that does not suffice is a result of a sweep; the next one may fit
        traceback.print_exc()
        line["failed"] = in_a_line(error)
        error.__traceback__ = None  # which holds the tensors
        return line
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    work = flops(sizes.shape, sizes.lora_r, [length for lengths in done.passes for length in lengths], done.targets)
    return line | {
        "target tokens/s": done.rate(done.targets),
        "tokens/s": done.rate(done.tokens_run),
        "tokens run a target token": done.tokens_run / done.targets,
        "peak memory, GiB": memory() / 2**10,
        "model TFLOP/s": done.rate(work) / 1e12,
        "loss": done.loss,
    }


def setting_of(folder: Path, sizes: Sizes) -> Any:
    """What all arms share.

    Raises:
        FileNotFoundError: the model was not made.
    """
    from training_arms import Setting

    if not (folder / "model" / "tokenizer_config.json").exists():
        raise FileNotFoundError("there is no model: the part `model` has to make it")
    return Setting(
        model=str(folder / "model"),
        data=folder / "rows.jsonl",
        out=folder / "trained",
        steps=sizes.steps,
        lora_r=sizes.lora_r,
        micro_batch_size=sizes.micro_batch,
    )


def numerics(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """The objective's value of the same rows: in float32 and bfloat16, the adapter beside the weights or merged."""
    import torch
    from training_arms import config_of, device, rows_of
    from transformers import AutoModelForCausalLM

    from leafe_graph.finetune import backends
    from leafe_graph.finetune.loss import objective_value
    from leafe_graph.finetune.objectives import objective
    from leafe_graph.finetune.outputs import save_adapter
    from leafe_graph.models.adapters import merged

    setting = setting_of(folder, sizes)
    rows, path, adapter = rows_of(setting)[1], setting.model, folder / "adapter"
    config = config_of(setting, "peft", setting.data)
    leafe = objective("leafe", config.model_copy(update={"objective": "leafe"}))
    known: dict[str, float] = {}
    for dtype in ("float32", "bfloat16"):
        for where in ("beside the weights", "merged"):
            started = time.perf_counter()
            if where == "merged":
                base = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).to(device())
                tuned = merged(base, adapter, path)
            else:
                start = adapter if known else None  # the first is a new one, to which something is added
                tuned, _ = backends.load(config.model_copy(update={"dtype": dtype, "adapter": start}), path, device())
                if start is None:
                    torch.manual_seed(1)
                    with torch.no_grad():
                        for name, weight in backends.trainable(tuned).items():
                            if "lora_B" in name:
                                weight.normal_(std=0.02)
                    save_adapter(tuned, adapter, folder=path, dtype="float32")
            value = objective_value(tuned, rows, leafe, micro_batch_size=sizes.micro_batch)
            del tuned
            gc.collect()
            known[f"{dtype}, {where}"] = value
            first = next(iter(known.values()))
            line = {
                "what": f"{dtype}, adapter {where}",
                "objective": value,
                "off float32's by, share": value / first - 1,
            }
            if not abs(value / first - 1) <= TOLERANCE:
                line["failed"] = f"off by more than {TOLERANCE:g}"
            yield line | {"seconds": since(started)}


def tree(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """What the trainer gains by running once what rows along a path share, and what is left to gain across branches."""
    import torch
    from training_arms import load, padded, rows_of, targets

    from leafe_graph.finetune import backends
    from leafe_graph.finetune.batches import chains, micro_batches
    from leafe_graph.finetune.loss import weighted
    from leafe_graph.finetune.said import ask

    setting = setting_of(folder, sizes)
    rows, tuned = rows_of(setting)[1], load(setting)
    n, weights, first = targets(rows), backends.trainable(tuned).values(), None
    shared = chains(rows, longest=len(rows))
    for what, units in (("sharing along a path", shared), ("each row by itself", [[i] for i in range(len(rows))])):
        batches = micro_batches(rows, units, sizes.micro_batch)
        for _ in range(2):  # the first is not timed
            wait()
            started, loss = time.perf_counter(), 0.0
            for batch in batches:
                these = [rows[i] for chain in batch for i in chain]
                said = ask(tuned, [[rows[i] for i in chain] for chain in batch])
                part = weighted(said.nll_N, these, [1 / n] * len(these))
                part.backward()
                loss += part.item()
            norm = torch.nn.utils.clip_grad_norm_(weights, 1e9).item()
            tuned.zero_grad()
            seconds = since(started)
        tokens = padded([[len(rows[chain[-1]]) for chain in batch] for batch in batches])
        line: Line = {
            "what": what,
            "target tokens/s": n / seconds,
            "tokens run": tokens,
            "loss": loss,
            "gradient": norm,
        }
        first = first or line
        if abs(loss - first["loss"]) > TOLERANCE or abs(norm / first["gradient"] - 1) > 5 * TOLERANCE:
            line["failed"] = f"loss or gradient are others than those of {first['what']}"
        yield line
    run, least = sum(len(rows[chain[-1]]) for chain in shared), distinct_prefixes(rows)
    left = {"what": "sharing across branches too", "tokens run": least, "would gain at most, times": run / least}
    yield left | ({} if run == least else {"skipped": "the trainer shares along one path, not across branches"})


def distinct_prefixes(rows: Sequence[Any]) -> int:
    """Tokens of all rows, each prefix that some share counted once."""
    found, before = 0, list[int]()
    for ids in sorted(row.prompt_ids + row.completion_ids for row in rows):
        pairs = zip(ids, before, strict=False)
        found += len(ids) - next(
            (t for t, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(before))
        )
        before = ids
    return found


def policy(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """Make the tiny language policy, larger than it comes with the package, and teach it by the solver's play."""
    import tiny_policy
    from training_arms import device

    started = time.perf_counter()
    room = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.room.items()]
    tiny_policy.main([f"--out={folder / 'policy'}", f"--device={device()}", *room, *sizes.policy])
    yield {"what": "taught by the solver's play", "seconds": since(started)}


def loop(folder: Path, sizes: Sizes, until: float) -> Iterator[Line]:
    """`leafe bench` with that policy, in many processes; what is judged when time is up is what it came to."""
    from leafe_graph.bench import bench, read_bench
    from leafe_graph.bench.tables import saved

    if not (folder / "policy" / "config.json").exists():
        raise FileNotFoundError("there is no policy: the part `policy` has to make it, or --policy to name one")
    file = folder / "bench.yaml"
    file.write_text(json.dumps(bench_file(folder, sizes), indent=1), encoding="utf-8")  # JSON is YAML
    config, started = read_bench(file), time.perf_counter()
    with contextlib.suppress(TimeIsUp), alarm(until):
        bench(config, at_once=sizes.jobs)
    seconds, judged = since(started), saved(config)
    if judged is None:
        raise TimeIsUp("no policy was judged")
    print((config.out / "table.md").read_text(encoding="utf-8"))
    cells = sum(1 + (sizes.seeds - 1) * entry.learns for entry in config.entries.values())
    for row in judged.rows:
        passed = {f"Pass@{k}": str(row.pass_at[k]) for k in judged.ks}
        yield {"what": row.method, "policies": len(row.seeds), "samples a level": row.n, **passed}
    there = len([*config.out.glob("cells/*/*/*/test.json")])
    episodes = there * sizes.levels * sizes.samples
    yield {"what": "all", "policies": there, "of": cells, "seconds": seconds, "judged episodes/s": episodes / seconds}


def bench_file(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """The bench: methods as in examples/recipes/bench-sokoban.yaml, with settings of LEAFE's that did well there."""
    return {
        "model": f"local:{folder / 'policy'}",
        "out": str(folder / "bench"),
        "env": "sokoban",
        "env_options": {**sizes.room, "view": "coordinates", "end_on_deadlock": True},
        "prompts": "leafe_graph.envs.sokoban.coordinates:PROMPTS",
        "max_turns": 40,
        "max_tokens": 1,
        "history": 0,
        "seeds": [*range(sizes.seeds)],
        "env_steps": sizes.env_steps,
        "explore": {
            "tasks": sizes.played,
            "env_steps": min(120, sizes.env_steps),
            "stop_on_success": False,
            "max_branches": 64,
            "max_depth": 12,
            "experience_turns": 1,
            "reflect_max_tokens": 8,
            "concurrency": sizes.concurrency,
            "checkpointer": "memory",
        },
        "export": {"skip_invalid": True, "balance": "root"},
        "train": {
            "tune": "full",
            "epochs": 3,
            "batch_size": 128,
            "micro_batch_size": 128,
            "save_steps": 1000,
            "learning_rate": 2e-3,
            "beta": 10,
        },
        "eval": {"tasks": sizes.levels, "samples": sizes.samples, "concurrency": sizes.concurrency},
        "methods": {"base": {"method": "none"}, **{name: {} for name in sizes.methods}},
    }


def in_a_line(error: BaseException) -> str:
    """What an error says, as far as a table has room for it."""
    return " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())[:300]


class TimeIsUp(Exception):
    """A part's share of the time is spent."""


@contextlib.contextmanager
def alarm(until: float) -> Iterator[None]:
    """Raise `TimeIsUp` inside when it is that time (of `time.time`)."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, until - time.time()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


PARTS: dict[str, tuple[Callable[[Path, Sizes, float], Iterator[Line]], float]] = {
    "model": (model, 50),
    "plain": (plain, 70),
    "ours": (ours, 110),
    "trl": (trl, 80),
    "numerics": (numerics, 80),
    "tree": (tree, 35),
    "policy": (policy, 75),
    "loop": (loop, 100),
}
"""What is measured, in this order, and which share of the time that is left each gets: that of its number in the sum of
those that are still to come."""
