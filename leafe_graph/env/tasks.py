"""What a task is, at every way in."""

from collections.abc import Iterable, Mapping
from typing import cast

from ..errors import ConfigError
from ..text import utf8_all
from ..types import Task
from .common import plain

_KINDS = {
    "id": (str, "a text"),
    "instruction": (str, "a text"),
    "seed": (int | None, "a whole number"),
    "options": (dict | None, "a mapping of names to values"),
}
"""What a task's fields are."""


def as_task(task: object) -> Task:
    """A task record of texts that can be saved; a plain text is its own id and instruction.

    Raises:
        ConfigError: it is no task.
    """
    task = utf8_all(plain(task))
    if isinstance(task, str):
        return Task(id=task, instruction=task)
    if not isinstance(task, Mapping):
        seen = "no task was given" if task is None else f"the task is {task!r:.80}"
        raise ConfigError(
            f"{seen}: an agent is invoked with {{'task': …}}, and a task is a text or {{'id': text, 'instruction': "
            "text}, with 'seed': number and 'options': {…} where the environment takes them"
        )
    if missing := {"id", "instruction"} - set(task):
        raise ConfigError(f"a task needs id and instruction; {sorted(missing)} not in {sorted(task)}")
    for name, (kind, expected) in _KINDS.items():
        if not isinstance(task.get(name), kind) and name in task:
            raise ConfigError(f"the task's {name} is {task[name]!r:.80}; expected {expected}")
    return cast(Task, task)


def as_tasks(tasks: Iterable[object]) -> list[Task]:
    """Each as `as_task` gives it.

    Raises:
        ConfigError: one is no task, or they are no list of tasks.
    """
    if isinstance(tasks, str | Mapping):
        raise ConfigError(f"tasks is {tasks!r:.80}; expected a list of tasks")
    return [as_task(task) for task in tasks]
