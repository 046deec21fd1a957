"""The shortest known ways to success in a task's tree, all its branches together.

States are the same by their anchor or, in a world that tells none, by what is seen. So what one branch played joins
what another did: a failure that came through a state of a success knows a way from there, and a success that went
round in circles a shorter one.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping

from ..tree.branches import path
from ..types import Branch

_GOAL = ("",)


def shortest(
    tree: Mapping[str, Branch], goals: Collection[str], left_out: Collection[str] = ()
) -> Iterator[tuple[str, int]]:
    """A turn for each state from which a goal is known to be reached: a branch's id, and the turn's number in its path.

    Its action is the first on a shortest way; of several turns the one that stands first in the order of ids.

    Args:
        tree: the task's branches.
        goals: ids of those whose ends are to be reached.
        left_out: ids of those that may not be learned from.
    """
    steps: dict[str, dict[object, tuple[str, int]]] = defaultdict(dict)  # from a state to the next: where it was played
    before: dict[object, list[str]] = defaultdict(list)
    for name in sorted(set(tree).difference(left_out), key=lambda name: (len(name), name)):
        turns = path(tree, name)
        states = [turn.get("anchor", turn["observation"]) for turn in turns]
        after = [*states[1:], _GOAL if name in goals else None]
        for t in range(tree[name]["decision_point"], len(turns)):
            here, there = states[t], after[t]
            if there is not None and there not in steps[here]:
                steps[here][there] = (name, t)
                before[there].append(here)
    far: dict[object, int] = {_GOAL: 0}
    nearest = deque[object](far)
    while nearest:
        there = nearest.popleft()
        for here in before[there]:
            if here not in far:
                far[here] = far[there] + 1
                nearest.append(here)
                yield steps[here][there]
