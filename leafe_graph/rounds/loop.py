"""``leafe run``: a method's rounds, each with the policy that the last one made, judged on the same held-out tasks.

A phase that was killed goes on by its own means, and ends as it would have undisturbed, so the whole run does too.
"""

import logging
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..evaluation.model_card import add_result
from ..evaluation.results import Result, powers_of_two
from ..files import lock_folder, refuse_other_settings, save_json
from ..finetune.hub import push
from ..methods import Method, Policy
from ..models.adapters import check_adapter
from ..models.folders import model_folder
from ..models.hub import check_hub
from ..models.identity import Digests, identity
from ..parsing import load_json, read_text
from ..phases.evaluate import run_eval
from ..redaction import without_passwords
from ..report.page import write_overview, write_report
from ..settings import Rows, defaults, part
from ..text import utf8_all
from ..types import FORMAT_VERSION
from .absent import absent, start_adapter
from .config import RunConfig, without_names
from .folder import mark, once, result_file, round_folder
from .learning import Learning, make_method
from .summary import why_stop, write_summary

log = logging.getLogger(__name__)


def run(config: RunConfig) -> dict[str, Any]:
    """Play the rounds that are missing; what ``rounds.json`` then says.

    Raises:
        ConfigError: something that the settings name is not there, the folder holds a run with other settings, or a
            phase found its own wrong.
        RunFolderError: another process writes to the folder.
        LeafeError: all is played, but the upload of what the best round trained failed; the same call tries it again.
    """
    hub = config.train.push_to_hub
    if hub:
        check_hub(hub)
    if lacking := list(absent(config)):
        raise ConfigError("\n".join(lacking))
    start = start_adapter(config.adapter)
    weights = _weights(config, start)
    with lock_folder(config.out):
        _claim(config, weights)
        method = make_method(config)
        try:
            told = _rounds(config, method, start)
            write_overview(config.out)
        finally:
            method.tools.access.close()
        if hub and told["trained"]:
            log.info("uploaded to %s", push(Path(told["trained"]), hub, model=config.model))
        elif hub:
            log.warning("no round was better than the start: nothing is uploaded")
    return told


def _rounds(config: RunConfig, method: Method, start: Path | None) -> dict[str, Any]:
    """All rounds; a finished phase costs no more than reading its mark."""
    learning = Learning(config, method, [Policy(model=config.model, adapter=start)])
    policies = learning.policies
    results = [_judge(config, method, policies[0], 0)]
    while True:
        if not mark(round_folder(config, learning.number), "eval").exists():
            stopped = why_stop(config, results) or learning.stopped()
            told = write_summary(config, method, policies, results, stopped)
            if stopped:
                return told
        if (nothing := learning.play()) is not None:
            return write_summary(config, method, policies, results, nothing)
        results.append(_judge(config, method, policies[-1], len(results)))


def _judge(config: RunConfig, method: Method, policy: Policy, number: int) -> Result:
    """The policy after round ``number`` on the held-out tasks."""
    folder = round_folder(config, number)

    def judged() -> dict[str, Any]:
        reached = method.tools.access.reach(policy)
        where = {"out": result_file(folder).with_suffix(""), "name": folder.name, **reached}
        result = run_eval(config.eval.model_copy(update=where))
        if number:
            write_report(folder, rows=part(config.export, Rows))
            if policy.trained is not None:
                ks = powers_of_two(result.n)
                add_result(policy.trained, result, ks, env=config.eval.env, split=config.eval.split)
        return {"cost": result.cost, "errors": result.errors}

    file = result_file(folder)
    if file.is_file() and Result.load(file).unplayed:  # as releases wrote that took it for a score: play it anew
        mark(folder, "eval").unlink(missing_ok=True)
    once(folder, "eval", judged)
    return Result.load(file)


def _claim(config: RunConfig, weights: Digests) -> None:
    """Write ``run.json``, or see that it says the same; weights decide, not where they lie or what they are called."""
    file = config.out / "run.json"
    now = without_passwords(utf8_all({"version": FORMAT_VERSION, **config.kept_settings(), "weights": weights}))
    if not file.exists():
        save_json(file, now)
        return
    known = without_passwords(load_json(read_text(file), str(file)))
    if "weights" in known:
        known, now = without_names(known), without_names(now)
    else:
        log.warning("%s does not tell the weights it started from: made by an earlier release", config.out)
        del now["weights"]
    refuse_other_settings(config.out, known, now, defaults(RunConfig))


def _weights(config: RunConfig, start: Path | None) -> Digests:
    """Digests of what the rounds start from.

    Raises:
        ConfigError: there is no such model, or the adapter does not fit it.
    """
    folder = model_folder(config.model)
    if start is not None:
        check_adapter(start, folder)
    return identity(folder, [] if start is None else [str(start)])
