"""The code is broken in the obvious ways, one at a time, and each time one of these checks fails."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from savers import MEMORY, opener
from test_explore import test_lost_rollout_is_forked_and_won as lost_and_won
from test_rewind_property import TASK, Lives

from leafe_graph.agent import nodes, state
from leafe_graph.env import pool as env
from leafe_graph.errors import LeafeError
from leafe_graph.exploration import players
from leafe_graph.testing import GridWorld, SnapshotGridWorld, check_saver

TREE: list[Any] = [
    (0, 1, [("left", None), ("up", 0), ("right", 1), ("right", None)]),
    (1, 0, [("down", None), ("down", 1), ("right", None)]),
    (0, 2, [("up", None)]),
    (0, 1, [("down", None), ("left", 2), ("right", None)]),  # into a pit, and back
]
"""Forks of leaves at decision points, with the moves that follow: actions, and turns to rewind to in place."""


def forks(world: type[GridWorld], folder: Path) -> None:
    """Forks as the explorer makes them."""
    check_saver(opener(MEMORY, ""), env=world, at_once=2)


def rewinds(world: type[GridWorld], folder: Path) -> None:
    """Rewinds in place and forks, with an end of the process after each."""
    lives = Lives(world, folder / "checkpoints.sqlite")
    try:
        lives.play({"task": TASK}, lives.config, [], [("down", None), ("left", None), ("right", None)])
        for leaf, t, moves in TREE:
            lives.connection.close()
            lives.start()
            lives.fork(*lives.leaves[leaf], t, moves)
        for config, path in lives.leaves:
            lives.check(config, path)
    finally:
        lives.connection.close()


CHECKS: dict[str, Callable[[type[GridWorld], Path], None]] = {
    "forks": forks,
    "rewinds": rewinds,
    "explore": lost_and_won,
}
REPLAY, SNAPSHOT = GridWorld, SnapshotGridWorld
MUTATIONS: dict[str, tuple[Any, str, str, str, type[GridWorld]]] = {
    "one replayed action is skipped": (env.EnvPool, "_bring", "enumerate(turns)", "enumerate(turns[:-1])", REPLAY),
    "nothing is replayed": (env.EnvPool, "_bring", "enumerate(turns)", "enumerate([])", REPLAY),
    "the snapshot is not restored": (env.EnvPool, "_bring", "env.restore(place.env_state)", "pass", SNAPSHOT),
    "the snapshot is of the moment after": (
        nodes,
        "step",
        'env_state=state["env_state"]',
        "env_state=env_state",
        SNAPSHOT,
    ),
    "an instance is taken wherever it stands": (env.EnvPool, "lease", "if stands_there:", "if True:", REPLAY),
    "the write of a turn is dropped": (nodes, "step", '"turns": [turn]', '"turns": [turn] * (len(turns) != 2)', REPLAY),
    "the write of an observation is dropped": (
        nodes,
        "step",
        '"observation": answer.observation, "env',
        '"env',
        REPLAY,
    ),
    "a turn remembers the checkpoint before": (
        nodes,
        "step",
        'checkpoint_id=state["decision_checkpoint"]',
        'checkpoint_id=turns[-1]["checkpoint_id"] if turns else state["decision_checkpoint"]',
        REPLAY,
    ),
    "the fork starts from the wrong checkpoint": (
        players.Saved,
        "play",
        "[request.decision_point]",
        "[request.decision_point - 1]",
        REPLAY,
    ),
    "the abandoned turns are kept in place": (
        state,
        "rewound",
        'if decision_point < len(state["turns"])',
        "if False",
        REPLAY,
    ),
    "one abandoned turn is kept": (state, "rewound", "keep=decision_point", "keep=decision_point + 1", REPLAY),
    "truncating is forgotten by the reducer": (state, "append", 'del values[write["keep"] :]', "pass", REPLAY),
    "the snapshot of the abandoned leaf is kept": (
        state,
        "rewound",
        '"env_state": turn["env_state"]',
        '"env_state": state["env_state"]',
        SNAPSHOT,
    ),
    "the experience is not told": (state, "rewound", '"experience": experience', '"experience": None', REPLAY),
    "the fork bears its parent's name": (state, "rewound", '"branch": branch', '"branch": state["branch"]', REPLAY),
    "the parent's account goes on": (state, "forked", "no_cost()", 'state["cost"]', REPLAY),
    "the parent's reflections are kept": (state, "forked", '"reflections": Keep(keep=0), ', "", REPLAY),
    "the end of the parent stays": (state, "rewound", '"end": None', '"end": state["end"]', REPLAY),
}
CAUGHT_BY = {
    "the snapshot is of the moment after": "rewinds",
    "the fork starts from the wrong checkpoint": "explore",
    "the abandoned turns are kept in place": "rewinds",
    "one abandoned turn is kept": "rewinds",
    "truncating is forgotten by the reducer": "rewinds",
    "the snapshot of the abandoned leaf is kept": "rewinds",
    "the end of the parent stays": "rewinds",
}
"""By the forks, if nothing else is said."""


def break_it(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, old: str, new: str) -> None:
    """Change the text of a function, wherever it is already bound."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} does not hold {old!r} once: it was rewritten, write this mutation anew"
    source = source.replace(old, new)
    made: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {name}>", "exec"), function.__globals__, made)
    monkeypatch.setattr(function, "__code__", made[name].__code__)


@pytest.mark.parametrize("world", [REPLAY, SNAPSHOT])
@pytest.mark.parametrize("check", CHECKS)
def test_checks_pass_on_the_code_as_it_is(check: str, world: type[GridWorld], tmp_path: Path) -> None:
    """Else they would prove nothing."""
    CHECKS[check](world, tmp_path)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_code_is_noticed(mutation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each mutation is a way in which a rewind could be wrong without any error."""
    *where, world = MUTATIONS[mutation]
    break_it(monkeypatch, *where)
    with pytest.raises((AssertionError, LeafeError)) as caught:
        CHECKS[CAUGHT_BY.get(mutation, "forks")](world, tmp_path)
    print(f"{type(caught.value).__name__}: {str(caught.value)[:150]}")
