"""The command that test_resume_after_kill.py kills: ``python killed_explore.py OUT WORLD DELAY [CHECKPOINTER]``.

With ``--serve`` as well it starts the command anew for every line that it reads (`lives.serve`).
"""

import sys

from lives import serve
from worlds import wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.exploration.explore import explore
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

TASKS = 24


class World(GridWorld):
    """Large enough that most walks are lost."""

    def __init__(self) -> None:
        super().__init__(size=6, pits=6)


class SnapshotWorld(SnapshotGridWorld):
    """The same, with snapshots."""

    def __init__(self) -> None:
        super().__init__(size=6, pits=6)


def run(out: str, world: str, delay: float, checkpointer: str | None = None) -> RunFolder:
    """Grow the trees, each within its budget."""
    return explore(
        ScriptedModel(reply=wandering_reply, delay=delay),
        {"GridWorld": World, "SnapshotGridWorld": SnapshotWorld}[world],
        grid_tasks(TASKS),
        out=out,
        limits=Limits(max_branches=5, max_depth=3, branches_per_reflection=2, max_roots=2),
        budget=Budget(env_steps=22, reflections=5),
        max_turns=6,
        reflect_every=3,
        concurrency=6,
        seed=7,
        checkpointer=checkpointer,
    )


if __name__ == "__main__":
    given = [arg for arg in sys.argv[1:] if arg != "--serve"]

    def live(line: str = "") -> None:
        """From what is on disk to the end."""
        run(given[0], given[1], float(given[2]), *given[3:])

    if "--serve" in sys.argv:
        import langgraph.checkpoint.postgres.aio
        import langgraph.checkpoint.sqlite.aio  # noqa: F401  imported once for all lives

        serve(live)
    else:
        live()
