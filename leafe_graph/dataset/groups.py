"""How much better an action was than others: the advantages of rollouts, a turn each.

A task's group are its independent attempts: the root branches that were played to an end. Left out are those that a
budget, an error or a reflection ended early: their return says little of the policy.

- *episode* (GRPO, arXiv 2402.03300): an attempt's return above the group's mean. Each attempt counts once in mean and
  deviation, however many turns it has.
- *steps* (GiGPO, arXiv 2505.10978): that, and ``step_weight`` times the turn's discounted return above the mean of all
  turns of the group in the same state.
- *pivot* (R3L, arXiv 2601.03715): attempts and the branches off them are one group, and only what is behind the point
  where a branch left its parent counts. A return of 1 or more is the advantage 1; others above the mean are amplified.
- *values* (VinePPO, arXiv 2410.01679): what a turn gained, ``r + V(s') - V(s)``, where V is the mean of what branches
  from there came to; at the start that of the attempts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev

from ..errors import ConfigError
from ..settings import Rows
from ..tree.branches import UNFINISHED
from ..types import Branch, Turn

EPSILON = 1e-4
"""Added to the standard deviation that an advantage is divided by: TRL's."""
NO_END = (*UNFINISHED, "rewound")
"""Ends of what was not played to an end."""


def advantages(tree: Mapping[str, Branch], rows: Rows) -> dict[str, list[float | None]]:
    """The advantage of each turn of each attempt's path, by its id; all 0 where nothing is better than anything.

    None: the turn is not trained on.

    Args:
        tree: the task's branches.
        rows: which advantages, and their settings.

    Raises:
        ConfigError: a turn of theirs has no token ids with a probability each.
    """
    pivot = rows.credit == "pivot"
    group = {
        name: each
        for name, each in tree.items()
        if (pivot or each["parent"] is None) and each["turns"] and each["end"] not in NO_END
    }
    for branch in group.values():
        _refuse_untold(branch)
    if pivot:
        return _pivotal(group, tree, rows)
    if rows.credit == "values":
        return {name: _gains(branch, *_values(branch, group, tree)) for name, branch in group.items()}
    better = _above([branch["return_"] for branch in group.values()], std=rows.advantage_std)
    found: dict[str, list[float | None]] = {
        name: [own] * len(group[name]["turns"]) for name, own in zip(group, better, strict=True)
    }
    if rows.credit == "steps":
        for name, steps in _steps(group, rows).items():
            found[name] = [(own or 0.0) + rows.step_weight * step for own, step in zip(found[name], steps, strict=True)]
    return found


def _pivotal(group: Mapping[str, Branch], tree: Mapping[str, Branch], rows: Rows) -> dict[str, list[float | None]]:
    """Of each path, its advantage from where it parts ways on: from its own start, and from the first fork off it."""
    returns = [branch["return_"] for branch in group.values()]
    mean = fmean(returns) if len(returns) > 1 else 0.0
    found: dict[str, list[float | None]] = {}
    for name, branch in group.items():
        above = branch["return_"] - mean
        own = 1.0 if branch["return_"] >= 1 else above * (rows.amplify if above >= 0 else 1.0)
        length = branch["decision_point"] + len(branch["turns"])
        forks = (each["decision_point"] for each in group.values() if each["parent"] == name)
        pivot = max(branch["decision_point"], min(forks, default=0))
        found[name] = [None] * pivot + [own] * (length - pivot)
    return found


def _above(returns: Sequence[float], *, std: bool) -> list[float]:
    """Each above the mean of all, divided by the sample's standard deviation if asked to; 0 where all are alike."""
    if not returns or min(returns) == max(returns):
        return [0.0] * len(returns)
    mean, scale = fmean(returns), stdev(returns) + EPSILON if std else 1.0
    return [(each - mean) / scale for each in returns]


def _steps(group: Mapping[str, Branch], rows: Rows) -> dict[str, list[float]]:
    """Of each turn, its discounted return above that of all turns in the same state.

    A state is known by its anchor or, in a world that tells none, by what is seen.
    """
    found = {name: [0.0] * len(branch["turns"]) for name, branch in group.items()}
    states: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
    for name, branch in group.items():
        later = 0.0
        for t, turn in reversed([*enumerate(branch["turns"])]):
            later = turn["reward"] + rows.discount * later
            states[turn.get("anchor", turn["observation"])].append((name, t, later))
    for same in states.values():
        better = _above([later for _, _, later in same], std=rows.advantage_std)
        for (name, t, _), own in zip(same, better, strict=True):
            found[name][t] = own
    return found


def _values(
    branch: Branch, group: Mapping[str, Branch], tree: Mapping[str, Branch]
) -> tuple[list[int], dict[int, float]]:
    """The turns of an attempt before which its state's value is known, in order, and those values."""
    came: dict[int, list[float]] = defaultdict(list, {0: [each["return_"] for each in group.values()]})
    for fork in tree.values():
        if fork["parent"] == branch["id"] and fork["experience"] is None and fork["end"] not in NO_END:
            came[fork["decision_point"]].append(fork["return_"] - _rewards(branch["turns"][: fork["decision_point"]]))
    return sorted(came), {t: fmean(each) for t, each in came.items()}


def _gains(branch: Branch, points: Sequence[int], values: Mapping[int, float]) -> list[float | None]:
    """Of each turn, what was gained from the last point before it to the next; after the end nothing is to be had."""
    turns = branch["turns"]
    found: list[float | None] = []
    for start, end in pairwise([*points, len(turns)]):
        gain = _rewards(turns[start:end]) + values.get(end, 0.0) - values[start]
        found += [gain] * (end - start)
    return found


def _rewards(turns: Sequence[Turn]) -> float:
    return sum(turn["reward"] for turn in turns)


def _refuse_untold(branch: Branch) -> None:
    """See that the probabilities with which the branch's actions were sampled are known."""

    def told(turn: Turn) -> bool:
        ids, logprobs = turn["message"].get("token_ids"), turn["message"].get("logprobs")
        return bool(ids) and logprobs is not None and len(ids or ()) == len(logprobs)

    if (t := next((t for t, turn in enumerate(branch["turns"]) if not told(turn)), None)) is not None:
        lacks = [name for name in ("token_ids", "logprobs") if not branch["turns"][t]["message"].get(name)]
        raise ConfigError(
            f"rows of the kind rollout need the sampled tokens and their probabilities, but turn {t} of branch "
            f"{branch['id']} of task {branch['task']['id']!r} has "
            f"{'no ' + ' and no '.join(lacks) if lacks else 'other numbers of token_ids than of logprobs'}: explore "
            "with a model that tells them, as LocalChatModel(path, logprobs=True) does"
        )
