"""What the rounds came to: when to stop, rounds.json, a table, a curve."""

import logging
from pathlib import Path
from typing import Any

from ..errors import MissingDependency
from ..evaluation.compare import compare
from ..evaluation.results import Result, powers_of_two
from ..files import save_json
from ..methods import Method, Policy
from ..redaction import without_passwords
from ..types import FORMAT_VERSION
from .config import RunConfig
from .folder import done, mark, round_folder

log = logging.getLogger(__name__)


def why_stop(config: RunConfig, results: list[Result]) -> str | None:
    """Why to begin no other round; None to go on."""
    if len(results) > config.rounds:
        return f"All {len(results) - 1} rounds are played" if len(results) > 2 else "The one round is played"
    best, gains = _gains(config, results)
    since = len(results) - 1 - best
    if config.patience is None or since < config.patience:
        return None
    shown = ", ".join(f"{100 * gain['difference']:+.1f}" for gain in gains[best:])
    return (
        f"Stopped after {since} round(s) without help: Pass@{config.k} against round {best} {shown} points, "
        f"expected more than {100 * config.min_gain:+g}"
    )


def _gains(config: RunConfig, results: list[Result]) -> tuple[int, list[dict[str, Any]]]:
    """The best round, and how each round after round 0 compares with the best one before it."""
    best, gains = 0, []
    for number in range(1, len(results)):
        gain = compare(results[best], results[number], [config.k]).differences[0]
        gains.append({"against": best, **gain.model_dump()})
        if gain.difference > config.min_gain:
            best = number
    return best, gains


def write_summary(
    config: RunConfig, method: Method, policies: list[Policy], results: list[Result], stopped: str | None
) -> dict[str, Any]:
    """``rounds.json`` and ``curve.svg``, from the marks and results that are there."""
    best, gains = _gains(config, results)
    rounds = []
    for number in range(len(results)):
        folder = round_folder(config, number)
        facts = {phase: done(folder, phase) for phase in (*method.phases, "eval") if mark(folder, phase).exists()}
        result = results[number]
        rounds.append(
            {
                "round": number,
                "pass_at_k": [estimate._asdict() for estimate in result.curve(powers_of_two(result.n))],
                "warning": result.warning,
                "gain": gains[number - 1] if number else None,
                "seconds": {phase: told.pop("seconds") for phase, told in facts.items()},
                "spent": {phase: told.pop("cost") for phase, told in facts.items() if "cost" in told},
                **{phase: told for phase, told in facts.items() if told},
            }
        )
    policy = policies[best]
    told = {
        "version": FORMAT_VERSION,
        "stopped": stopped,
        "best": best,
        "model": policy.model,
        "adapter": config.adapter if not best else policy.adapter and str(policy.adapter),
        "trained": policy.trained and str(policy.trained),
        "playbook": policy.playbook and str(policy.playbook),
        "k": config.k,
        "rounds": rounds,
    }
    save_json(config.out / "rounds.json", without_passwords(told))
    try:
        _plot(rounds, config.out / "curve.svg")
    except MissingDependency as error:
        log.info("no curve drawn: %s", error)
    return told


def _plot(rounds: list[dict[str, Any]], file: Path) -> None:
    """Pass@k over the rounds, a line for each k."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingDependency(extra="report", needed_for="Plotting Pass@k") from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    numbers = [entry["round"] for entry in rounds]
    for curve in zip(*(entry["pass_at_k"] for entry in rounds), strict=True):
        means, lows, highs = ([100 * e[name] for e in curve] for name in ("mean", "low", "high"))
        (line,) = axes.plot(numbers, means, marker="o", label=f"Pass@{curve[0]['k']}")
        axes.fill_between(numbers, lows, highs, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="round", ylabel="held-out Pass@k, %", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
