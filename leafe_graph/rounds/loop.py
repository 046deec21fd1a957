"""``leafe run``: explore, export, train, eval, round after round, each with the policy that the last one made.

::

    run.json                 what the run was started with
    rounds.json, curve.svg   held-out Pass@k over the rounds, with what each cost
    round-0/eval/            how the policy that the run starts from does
    round-1/                 a run folder: branches.jsonl, examples/, adapter/, eval/, report.html
    round-1/done/PHASE.json  a finished phase; it is never played again

Nothing else is kept: which phase comes next follows from the marks that are there. A phase that was killed goes on by
its own means, and ends as it would have undisturbed, so the whole run does too.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..evaluation.model_card import add_result
from ..evaluation.results import Result, powers_of_two
from ..files import lock_folder, refuse_other_settings, save_json
from ..finetune.hub import check_hub, push
from ..importing import attribute
from ..phases.console import console
from ..phases.evaluate import run_eval
from ..phases.explore import run_explore
from ..phases.learn import run_export
from ..report.page import write_report
from ..types import FORMAT_VERSION
from .config import RunConfig
from .folder import _adapter, _folder, _mark, _result
from .policies import LocalPolicy, Policy, ServedPolicy
from .summary import _stop, _table, _write
from .training import _train

_PACE = {"concurrency", "timeout", "tries", "env_timeout"}
_MAY_CHANGE: Any = {
    **dict.fromkeys(("out", "rounds", "k", "min_gain", "patience", "serve", "accelerate", "estimate"), True),
    "explore": _PACE,
    "train": {"micro_batch_size", "gradient_checkpointing", "save_steps", "backend", "report_to", "project"}
    | {"push_to_hub", "gguf", "merge", "merged_dtype"},
    "eval": _PACE,
}
"""What the next call may have otherwise: how many rounds there are, how the policy is reached, memory and speed,
where the best adapter is uploaded."""


log = logging.getLogger(__name__)


def run(config: RunConfig) -> dict[str, Any]:
    """Play the rounds that are missing; what ``rounds.json`` then says.

    Raises:
        ConfigError: the folder holds a run with other settings, or a phase found its own wrong.
        RunFolderError: another process writes to the folder.
        LeafeError: all is played, but the upload of the best adapter failed; the same call tries it again.
    """
    hub = config.train.push_to_hub
    if hub:
        check_hub(hub)
    with lock_folder(config.out):
        _claim(config)
        start = _start_adapter(config.adapter)
        policy: Policy = LocalPolicy(config.model)
        if config.serve is not None:
            policy = ServedPolicy(config.model, config.serve, config.out / "serve")
        try:
            told = _rounds(config, policy, start)
        finally:
            policy.close()
        console.print(_table(told))
        console.print(f"{told['stopped']}. Best: round {told['best']}, {told['adapter'] or config.model}", markup=False)
        if hub and not told["best"]:
            console.print("No round was better than the start: nothing is uploaded")
        elif hub:
            url = push(_adapter(config, told["best"]), hub, model=config.model)
            console.print(f"Uploaded to {url}", markup=False)
    return told


def _rounds(config: RunConfig, policy: Policy, start: Path | None) -> dict[str, Any]:
    """All rounds; a finished phase costs no more than reading its mark."""
    results = [_judge(config, policy, 0, start)]
    while True:
        number = len(results)
        if not _mark(_folder(config, number), "eval").exists():
            told = _write(config, results, stopped := _stop(config, results))
            if stopped:
                return told
        if not _play_round(config, policy, number, start):
            why = f"Round {number} found nothing to learn from: no path that it explored ended in success"
            return _write(config, results, why)
        results.append(_judge(config, policy, number, _adapter(config, number)))


def _play_round(config: RunConfig, policy: Policy, number: int, start: Path | None) -> bool:
    """Explore, export and train; False if there are no new rows to train on."""
    folder = _folder(config, number)
    before = start if number == 1 else _adapter(config, number - 1)

    def explored() -> dict[str, Any]:
        where = {"start": config.start(number), "tasks": config.tasks, "seed": config.explore.seed + number}
        run = run_explore(config.explore.model_copy(update={"out": folder, **where, **policy.reach(before)}))
        solved = {branch["task"]["id"] for branch in run.branches if branch["end"] == "success"}
        tasks = len(run.config["settings"]["tasks"])
        return {"tasks": tasks, "solved": len(solved), "branches": len(run.branches), "cost": run.cost}

    def exported() -> dict[str, Any]:
        summary = run_export(config.export.model_copy(update={"run": folder}))
        return {"counterfactual": summary.counterfactual, "rehearsal": summary.rehearsal}

    def trained() -> dict[str, Any]:
        policy.pause()
        went_on = before if config.train_from == "last" else start
        rows = [_folder(config, n) / "examples" / "examples.jsonl" for n in config.kept(number)]
        where = {"data": rows, "adapter": went_on, "out": _adapter(config, number), "push_to_hub": None}
        result = _train(config.train.model_copy(update=where), config.accelerate)
        weights = (result.adapter / "adapter_model.safetensors").read_bytes()
        facts = ("backend", "steps", "rows", "loss", "eval_loss", "kept_step", "tokens", "warnings")
        return {name: getattr(result, name) for name in facts} | {"sha256": hashlib.sha256(weights).hexdigest()}

    _phase(folder, "explore", explored)
    rows = _phase(folder, "export", exported)
    if not rows["counterfactual"] + rows["rehearsal"]:
        return False
    _phase(folder, "train", trained)
    return True


def _judge(config: RunConfig, policy: Policy, number: int, adapter: Path | None) -> Result:
    """The policy after round ``number`` on the held-out tasks."""
    folder = _folder(config, number)

    def judged() -> dict[str, Any]:
        where = {"out": _result(folder).with_suffix(""), "name": folder.name}
        result = run_eval(config.eval.model_copy(update=where | policy.reach(adapter)))
        if number:
            write_report(folder)
            ks = powers_of_two(result.n)
            add_result(_adapter(config, number), result, ks, env=config.eval.env, split=config.eval.split)
        return {"cost": result.cost, "errors": result.errors}

    _phase(folder, "eval", judged)
    return Result.load(_result(folder))


def _phase(folder: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a phase came to; it is played unless its mark is there.

    ``seconds`` are those of the call that finished it.
    """
    mark = _mark(folder, name)
    if not mark.exists():
        log.info("%s: %s", folder.name, name)
        started = time.monotonic()
        facts = work()
        save_json(mark, {"seconds": round(time.monotonic() - started, 1), **facts})
    done: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8"))
    return done


def _claim(config: RunConfig) -> None:
    """Write ``run.json``, or see that it says the same."""
    file = config.out / "run.json"
    now = {"version": FORMAT_VERSION, **config.model_dump(mode="json", exclude=_MAY_CHANGE)}
    if not file.exists():
        save_json(file, now)
    else:
        refuse_other_settings(config.out, json.loads(file.read_text(encoding="utf-8")), now)


def _start_adapter(adapter: str | None) -> Path | None:
    if adapter is None or ":" not in adapter:
        return None if adapter is None else Path(adapter)
    found = attribute(adapter, "adapter")
    if not isinstance(found, str | Path):
        raise ConfigError(f"adapter {adapter!r} is {found!r}; expected the path of a PEFT folder")
    return Path(found)
