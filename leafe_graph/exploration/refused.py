"""What a run is refused for: another task of the same id before it goes on, and a policy of which nothing is known."""

import json
import logging
from collections.abc import Sequence

from ..errors import ConfigError
from ..text import utf8_all
from ..tree.branches import FAILED, causes, refuse_unplayed, told_causes
from ..tree.run_folder import RunFolder
from ..types import Task

log = logging.getLogger(__name__)


def tell_failures(run: RunFolder, before: int) -> None:
    """Refuse a run in which every branch failed, and warn where all that was played now did.

    Raises:
        NothingPlayed: no branch of the run says anything about the policy.
    """
    known = run.outlines
    refuse_unplayed(known, run.folder)
    now = run.all_outlines[before:]
    if now and all(branch.end in FAILED for branch in now):
        log.warning("all %d branches that were played now failed%s", len(now), told_causes(causes(now)))
    if not any(branch.reflections for branch in known):
        unreflected = [branch for branch in known if branch.error and branch.end not in FAILED]
        if unreflected:
            log.warning("no reflection was made: %d failed%s", len(unreflected), told_causes(causes(unreflected)))


def same_tasks(run: RunFolder, work: Sequence[Task]) -> None:
    """Refuse to go on with a tree of another task of the same id."""
    now = {task["id"]: json.loads(json.dumps(task)) for task in work}
    for known in {id(branch.task): branch.task for branch in run.outlines}.values():
        task = utf8_all(known)  # as `as_task` gives it
        if task != now[task["id"]]:
            raise ConfigError(
                f"{run.folder} holds a run whose task {task['id']!r} is {task}, now it is {now[task['id']]}; give the "
                "same tasks to resume it, or choose another folder"
            )
