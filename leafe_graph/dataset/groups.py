"""Group-relative advantages (GRPO, arXiv 2402.03300): how much better an attempt ended than others at the same task.

A task's group are its independent attempts: the root branches that were played to an end. Each counts once in mean and
deviation, however many turns it has.
"""

from collections.abc import Mapping
from statistics import fmean, stdev

from ..errors import ConfigError
from ..tree.branches import UNFINISHED
from ..types import Branch, Turn

EPSILON = 1e-4
"""Added to the standard deviation that an advantage is divided by: TRL's."""


def advantages(tree: Mapping[str, Branch], *, std: bool) -> dict[str, float]:
    """The advantage of each finished root branch of one task, by its id; all 0 where their returns are alike.

    Left out are attempts that a budget, an error or a reflection ended early: their return says little of the policy.

    Args:
        tree: the task's branches.
        std: divide by the sample standard deviation, as TRL and verl do.

    Raises:
        ConfigError: a turn of theirs has no token ids with a probability each.
    """
    group = {
        name: branch
        for name, branch in tree.items()
        if branch["parent"] is None and branch["end"] not in (*UNFINISHED, "rewound")
    }
    for branch in group.values():
        _refuse_untold(branch)
    returns = [branch["return_"] for branch in group.values()]
    if not returns or min(returns) == max(returns):
        return dict.fromkeys(group, 0.0)
    mean, scale = fmean(returns), stdev(returns) + EPSILON if std else 1.0
    return {name: (branch["return_"] - mean) / scale for name, branch in group.items()}


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
