"""What is done in a cell: play, learn, be judged. Each is done once, and marked, in a process of its own.

::

    played/KEY/                           what a policy played in a first round; cells that would play the same share it
    cells/METHOD/setting-I/seed-S/        the rounds of a cell, as `leafe run` has them, but for the judging
    cells/…/tune.json, test.json          how its policy does on the tasks to choose by, and on those to compare by
"""

import hashlib
import json
from pathlib import Path

from ..budget import add_costs, no_cost
from ..errors import ConfigError
from ..evaluation.random_policy import NAME as RANDOM
from ..files import refuse_other_settings, save_json
from ..methods import Policy, Reached, Tasks
from ..models.folders import model_folder
from ..models.identity import Digests, identity
from ..models.spec import ModelSpec
from ..parsing import load_json, read_text
from ..phases.config import ExploreConfig
from ..phases.evaluate import run_eval
from ..redaction import without_passwords
from ..rounds.absent import start_adapter
from ..rounds.config import DECIDED, RunConfig, without_names
from ..rounds.folder import done, mark, round_folder
from ..rounds.learning import Learning, make_method
from ..settings import Pace, defaults, marked
from ..types import FORMAT_VERSION, Cost
from .choice import chosen, has_learned
from .config import BenchConfig, Cell


def learning(bench: BenchConfig, cell: Cell) -> Learning:
    """The rounds of a cell from their start; with those behind them that another entry's policy brings."""
    config = bench.rounds(cell)

    def place(number: int, policy: Policy, tasks: Tasks) -> Path | None:
        return bench.out / "played" / _key(config, policy, tasks) if number == 1 else None

    return Learning(config, make_method(config), [start_of(bench, cell)], place)


def start_of(bench: BenchConfig, cell: Cell) -> Policy:
    """What a cell starts from.

    Raises:
        ConfigError: the entry that it starts from has not been learned.
    """
    before = bench.entries[cell.entry].start
    if before is None:
        config = bench.rounds(cell)
        return Policy(model=config.model, adapter=start_adapter(config.adapter))
    setting = chosen(bench, before)
    if setting is None:
        raise ConfigError(f"{cell} starts from {before}, whose setting is not chosen yet")
    return learned(bench, Cell(before, setting, cell.seed))


def learned(bench: BenchConfig, cell: Cell) -> Policy:
    """The policy that a cell came to; what it starts from where it learns nothing.

    Raises:
        ConfigError: it has not been learned.
    """
    if not bench.entries[cell.entry].learns:
        return start_of(bench, cell)
    if not has_learned(bench, cell):
        raise ConfigError(f"{cell} has not been learned")
    told = done(bench.folder(cell), "learn")
    folder = None if told["trained"] is None else Path(told["trained"])
    adapter, playbook = (told.get(name) and Path(told[name]) for name in ("adapter", "playbook"))
    return Policy(model=told["model"], adapter=adapter, playbook=playbook, trained=folder)


def play_cell(bench: BenchConfig, cell: Cell) -> None:
    """Play a cell's first round."""
    rounds = learning(bench, cell)
    try:
        rounds.collect()
    finally:
        rounds.method.tools.access.close()


def learn_cell(bench: BenchConfig, cell: Cell) -> None:
    """Play and learn a cell's rounds, and write down what they came to."""
    rounds, config = learning(bench, cell), bench.rounds(cell)
    claim(bench, cell)
    stopped: str | None = None
    try:
        while stopped is None and rounds.number <= config.rounds:
            stopped = rounds.stopped() or rounds.play()
    finally:
        rounds.method.tools.access.close()
    policy, (playing, *phases) = rounds.policies[-1], rounds.method.phases
    # The round that found nothing to learn from was paid for, too; one of which nothing was trained has fewer phases.
    numbers = range(1, rounds.number + 1)
    marks = [(rounds.played(n), playing) for n in numbers]
    marks += [(round_folder(config, n), phase) for n in numbers for phase in phases]
    phases_done = [done(*each) for each in marks if mark(*each).exists()]
    facts = {
        "model": policy.model,
        "adapter": policy.adapter and str(policy.adapter),
        "trained": policy.trained and str(policy.trained),
        "playbook": policy.playbook and str(policy.playbook),
        "stopped": stopped,
        "rounds": len(rounds.policies) - 1,
        "cost": add_costs(*(each.get("cost", no_cost()) for each in phases_done)),
        "targets": sum(each.get("target_tokens", 0) for each in phases_done),
        "seconds": sum(each["seconds"] for each in phases_done),
    }
    save_json(mark(bench.folder(cell), "learn"), facts)


def judge_cell(bench: BenchConfig, cell: Cell, panel: str) -> None:
    """Judge a cell's policy, and keep what came of each task."""
    claim(bench, cell)
    config, policy, folder = bench.rounds(cell), learned(bench, cell), bench.folder(cell)
    method = make_method(config)
    out = folder / panel
    try:
        if bench.entries[cell.entry].method == RANDOM:
            reached = Reached(model=RANDOM, adapter=None, playbook=None)
        else:
            reached = method.tools.access.reach(policy)
        where = {"out": out, "name": cell.entry}
        where |= {**reached, **bench.judged(panel)}
        run_eval(config.eval.model_copy(update=where))
    finally:
        method.tools.access.close()


def spent(bench: BenchConfig, cell: Cell) -> tuple[Cost, int]:
    """What a cell's policy cost, and how many target tokens it was trained on; those of what it starts from too."""
    entry = bench.entries[cell.entry]
    cost, targets = no_cost(), 0
    if entry.learns:
        told = done(bench.folder(cell), "learn")
        cost, targets = add_costs(told["cost"]), told["targets"]
        cost["seconds"] = told["seconds"]
    if entry.start is not None and (setting := chosen(bench, entry.start)) is not None:
        before, learned_before = spent(bench, Cell(entry.start, setting, cell.seed))
        cost, targets = add_costs(cost, before), targets + learned_before
    return cost, targets


SINCE = ("expert", "anchors", "fork_every", "max_successes")
"""Settings that are newer than the names of the folders of what was played: at their defaults they change no name."""


def _key(config: RunConfig, policy: Policy, tasks: Tasks) -> str:
    """Of what is played: the same whatever is made of it afterwards."""
    leave_out = {*marked(ExploreConfig, Pace), *DECIDED["explore"], "model", "start", "tasks", "seed"}
    said = config.explore.model_dump(mode="json", exclude=leave_out)
    for name in SINCE:
        if said[name] == ExploreConfig.model_fields[name].default:
            del said[name]
    told = [] if policy.playbook is None else [read_text(policy.playbook)]
    held = json.dumps([said, vars(tasks), _weights(policy, config.explore.reflector), *told], sort_keys=True)
    return hashlib.sha256(held.encode()).hexdigest()[:12]


def _weights(policy: Policy, reflector: str | None) -> Digests:
    own = identity(model_folder(policy.model), [] if policy.adapter is None else [str(policy.adapter)])
    if reflector is None or ModelSpec.parse(reflector).folder is None:
        return own
    return {**own, "reflector": identity(model_folder(reflector))}


def claim(bench: BenchConfig, cell: Cell, *, new: bool = True) -> None:
    """See that a cell that is there has these settings; ``new``: write them down where it is not.

    Raises:
        ConfigError: it has others.
    """
    config = bench.rounds(cell)
    file = config.out / "run.json"
    if not (new or file.exists()):
        return
    tune = None if bench.tune is None else bench.tune.model_dump(mode="json", exclude={"grid", "k"})
    own = without_names(config.kept_settings())  # weights decide, not where they lie
    own["rounds"] = config.rounds  # a cell that has learned plays no more of them
    weights = _weights(start_of(bench, cell), config.explore.reflector)
    now = without_passwords({"version": FORMAT_VERSION, **own, "tune": tune, "weights": weights})
    if file.exists():
        known = without_passwords(without_names(load_json(read_text(file), str(file))))
        refuse_other_settings(config.out, known, now, defaults(RunConfig))
    else:
        save_json(file, now)
