"""What test_resume_after_kill.py kills; begun anew for each line ``OUT WORLD DELAY CHECKPOINTER DURABILITY``."""

from lives import serve
from worlds import wandering_reply

from leafe_graph.budget import Budget
from leafe_graph.exploration.explore import explore
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Durability

TASKS = 24


class World(GridWorld):
    """Large enough that most walks are lost."""

    def __init__(self) -> None:
        super().__init__(size=6, pits=6)


class SnapshotWorld(SnapshotGridWorld):
    """The same, with snapshots."""

    def __init__(self) -> None:
        super().__init__(size=6, pits=6)


def run(
    out: str, world: str, delay: float | str, checkpointer: str = "memory", durability: Durability = "async"
) -> RunFolder:
    """Grow the trees, each within its budget."""
    return explore(
        ScriptedModel(reply=wandering_reply, delay=float(delay)),
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
        durability=durability,
    )


if __name__ == "__main__":
    import langgraph.checkpoint.postgres.aio
    import langgraph.checkpoint.sqlite.aio  # noqa: F401  imported once for all lives

    serve(lambda line: run(*line.split()))  # type: ignore[arg-type]
