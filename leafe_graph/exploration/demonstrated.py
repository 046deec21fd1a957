"""An expert's play as a run: one branch a task, of which rows are made and states are probed as of a policy's."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ..budget import no_cost
from ..dataset.demonstrate import Episode
from ..env.protocol import TextEnv
from ..errors import ConfigError, MissingDependency
from ..terminal.bar import track
from ..tree.run_folder import RunFolder
from ..tree.run_settings import RunSettings
from ..types import FORMAT_VERSION, Branch, EndReason, Task

log = logging.getLogger(__name__)


def demonstrated(
    make: Callable[[], TextEnv],
    tasks: Sequence[Task],
    expert: Callable[[Task], Sequence[str]],
    *,
    out: str | Path,
    settings: RunSettings,
) -> RunFolder:
    """Have the expert play each task once, in order, while the run's total budget of steps has room for its plan.

    The same call goes on after a kill. Tasks that the expert cannot plan are left out, and told.

    Args:
        make: makes the environment.
        tasks: with unique ids.
        expert: the actions that win a task from its start.
        out: the run folder.
        settings: what the run is started with.

    Raises:
        ConfigError: the folder holds a run with other settings, or the environment breaks its contract.
        RunFolderError: the folder cannot be written.
    """
    env = make()
    try:
        with RunFolder(out).open(settings.saved()) as run:
            left = settings.total_budget.env_steps
            for task in track(tasks, "the expert's play"):
                try:
                    plan = expert(task)
                except (ConfigError, MissingDependency):
                    raise
                except Exception as error:
                    log.warning("%s is left out: %r", task["id"], error)
                    continue
                if left is not None and len(plan) > left:
                    break
                left = None if left is None else left - len(plan)
                if task["id"] not in run.trees:
                    run.append(_branch(env, task, plan, settings.horizon))
            return run
    finally:
        env.close()


def _branch(env: TextEnv, task: Task, plan: Sequence[str], horizon: int) -> Branch:
    episode = Episode(env, task)
    episode.play(plan[:horizon])
    turns = episode.turns
    end: EndReason = "success" if episode.success else "failure" if episode.ended else "max_turns"
    return Branch(
        version=FORMAT_VERSION,
        id="0",
        task=task,
        parent=None,
        depth=0,
        decision_point=0,
        experience=None,
        turns=turns,
        reflection=None,
        reflections=[],
        end=end,
        error=None,
        return_=sum(turn["reward"] for turn in turns),
        cost=no_cost() | {"env_steps": len(turns)},
        thread_id=None,
    )
