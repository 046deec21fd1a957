"""Tree search by what states came to (LATS, Zhou et al., arXiv 2310.04406)."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..settings import Limits
from ..types import Branch
from .reflexion import remembered
from .strategy import Request, Strategy, new_root

State = tuple[str, int]
"""The branch that came there first, and the number of decisions before it; all roots start at the same one."""
START: State = ("", 0)
WIDTH = 5
"""Branches that leave a state before one of the next states is chosen: the published number."""
WEIGHT = 1.0
"""Of what is uncertain against what is known, w of the paper's UCT."""


class Lats(Strategy):
    """From the state that upper confidence bounds lead to, told the last three reflections; what follows is a rollout.

    A state is worth the mean of the returns of all branches through it, cut to [0, 1], a success 1. The authors add
    what the model says that a state is worth; here nobody is asked. Their rollouts expand each state that they come
    to; here only the state that is chosen, whose branches are rollouts, so that one is paid for at a time.
    """

    name = "lats"
    anywhere = True

    def next(self, branches: Sequence[Branch], limits: Limits) -> Request | None:
        """From the first state on the way of greatest bounds that fewer than `WIDTH` branches leave."""
        named = {branch["id"]: branch for branch in branches}
        visits, left, worth = Counter[State](), Counter[State](), defaultdict[State, float](float)
        following = defaultdict[State, list[State]](list)

        def state(branch: Branch, t: int) -> State:
            while branch["parent"] is not None and t <= branch["decision_point"]:
                branch = named[branch["parent"]]
            return (branch["id"], t) if t else START

        for branch in branches:
            end = branch["decision_point"] + len(branch["turns"])
            came_to = 1.0 if branch["end"] == "success" else min(1.0, max(0.0, branch["return_"]))
            states = [state(branch, t) for t in range(end + 1)]
            left[states[branch["decision_point"]]] += 1
            for at in states:
                visits[at] += 1
                worth[at] += came_to
            for t in range(branch["decision_point"], end):
                following[states[t]].append(states[t + 1])
                left[states[t + 1]] += t + 1 < end

        experience = remembered(branches)
        root = next((branch for branch in branches if branch["parent"] is None and branch["turns"]), None)
        anew = new_root(branches, limits) if experience is None or root is None else Request(root["id"], 0, experience)

        def expandable(at: State) -> bool:
            if at == START:
                return left[at] < WIDTH and anew is not None
            return 0 < left[at] < WIDTH and named[at[0]]["depth"] < limits.max_depth

        open_states = set[State]()  # which something can still be tried at or behind; the latest are known first
        for at in sorted({START, *visits}, key=lambda at: -at[1]):
            if expandable(at) or any(each in open_states for each in following[at]):
                open_states.add(at)
        at = START
        while at in open_states and not expandable(at):
            bounds = {
                each: worth[each] / visits[each] + WEIGHT * math.sqrt(math.log(visits[at]) / visits[each])
                for each in following[at]
                if each in open_states
            }
            at = max(bounds, key=bounds.__getitem__)
        if at not in open_states:
            return None
        return anew if at == START else Request(*at, experience)
