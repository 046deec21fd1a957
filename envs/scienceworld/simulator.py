"""The simulator of ScienceWorld in its JVM, what its instances share there, and the names of what there is.

It keeps one stream of chance, one counter of objects and one set of simplifications for a whole JVM. So that equal
actions always bring equal answers, whatever other instances do, each step begins with putting these back: chance is
seeded from the task and the number of the step, counter and simplifications are as the instance left them. Some sets
are ordered by identity hash: the JVM is told to give all objects the same one.
"""

import json
import random
import weakref
from collections.abc import Iterable
from typing import Any

from leafe_graph.env.common import Split
from leafe_graph.errors import ConfigError

from .. import java
from ..catalog import ENVS

SIMPLIFICATIONS = ("noElectricalAction", "openContainers", "openDoors", "selfWateringFlowerPots", "teleportAction")
"""What can be made easier. "easy" stands for all but openContainers, and leaves electrical tasks their actions."""

VARIATIONS: dict[Split, str] = {
    "train": "getVariationsTrain",
    "validation": "getVariationsDev",
    "test": "getVariationsTest",
}
"""The splits, and the simulator's method that lists each."""
_HASH = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
HEAP_MB = 1024
"""Bound of the heap of a JVM, unless another is asked for."""


class Simulator:
    """What is used of a JVM that runs."""

    def __init__(self, jvm: java.Jvm) -> None:
        self.started = jvm.started
        self.new = jvm.classes.scienceworld.runtime.pythonapi.PythonInterface
        self._chance = jvm.scala("scala.util", "Random")
        self._ids = jvm.scala("util", "UniqueIdentifier")
        self._simplifier = jvm.scala("main.scala.scienceworld.runtime", "SimplifierProcessor")
        self._paths = jvm.scala("scienceworld.goldagent", "PathFinder")
        self._simplified: str | None = None

    def prepare(self, simplifications: str, chance: str) -> None:
        """Put back what instances share."""
        if simplifications != self._simplified:
            self._simplifier.parseSimplificationStr(simplifications)
            self._simplified = simplifications
        # Seeds that are close together begin alike in Java, hence the text.
        self._chance.setSeed(random.Random(chance).getrandbits(48))

    @property
    def ids(self) -> int:
        """The number of the last object that was made."""
        count: int = self._ids.count()
        return count

    @ids.setter
    def ids(self, count: int) -> None:
        getattr(self._ids, "count_$eq")(count)

    def forget_paths(self) -> None:
        """Clear what the gold agent keeps from one task to the next."""
        self._paths.precomputedExhaustivePaths().clear()


simulators: weakref.WeakKeyDictionary[java.Jvm, Simulator] = weakref.WeakKeyDictionary()


def running(jvm: java.Jvm) -> Simulator:
    """The simulator, in a JVM that runs; to be called with its lock held."""
    started = jvm.ensure()
    simulator = simulators.get(jvm)
    if simulator is None or simulator.started != started:
        simulator = simulators[jvm] = Simulator(jvm)
    return simulator


def jvm_of(heap_mb: int = HEAP_MB) -> java.Jvm:
    """The JVM with that heap, in MB.

    Raises:
        MissingDependency: the simulator is not installed.
        ConfigError: not a number that a JVM could live with.
    """
    ENVS["scienceworld"].require()
    from scienceworld.constants import JAR_PATH

    return java.shared("ScienceWorld", JAR_PATH, java.heap_option(heap_mb), *_HASH)


def task_names() -> list[str]:
    """The thirty kinds of tasks, in the order of the paper.

    Raises:
        MissingDependency: the simulator is not installed.
    """
    ENVS["scienceworld"].require()
    from scienceworld.constants import ID2TASK

    return list(ID2TASK.values())


_official: dict[Split, dict[str, list[int]]] = {}


def variations(split: Split, jvm: java.Jvm | None = None) -> dict[str, list[int]]:
    """The official variations of each task in a split."""
    jvm = jvm or jvm_of()

    def ask() -> None:
        server = running(jvm).new()
        for each, method in VARIATIONS.items():
            found = {}
            for name in task_names():
                getattr(server, "taskStr_$eq")(name)
                found[name] = json.loads(getattr(server, method)().toString())
            _official[each] = found
        jvm.release(jvm.started, server)

    if split not in _official:
        jvm.call(ask, "listing the variations")
    return _official[split]


def known(name: Any) -> str:
    """A task's name, if there is such a task."""
    names = task_names()
    if name not in names:
        raise ConfigError(f"unknown task {name!r}: expected one of {', '.join(names)}")
    return str(name)


def checked(options: dict[str, Any], jvm: java.Jvm) -> tuple[str, int]:
    """A task's name and variation, if there is such a one."""
    name, variation = known(options.get("task")), options.get("variation", 0)
    end = 1 + max(variations(split, jvm)[name][-1] for split in VARIATIONS)
    if not isinstance(variation, int) or not 0 <= variation < end:
        raise ConfigError(f"variation={variation!r}: the task {name!r} has variations 0 to {end - 1}")
    return name, variation


def normal(given: str | Iterable[str]) -> str:
    """Simplifications in one form: "easy", or names separated by commas and sorted."""
    names = sorted({name.strip() for name in (given.split(",") if isinstance(given, str) else given)} - {""})
    if names == ["easy"]:
        return "easy"
    if unknown := set(names) - set(SIMPLIFICATIONS):
        raise ConfigError(
            f"unknown simplifications {sorted(unknown)}: expected easy alone, or {', '.join(SIMPLIFICATIONS)}"
        )
    return ",".join(names)


def resolve(simplifications: str, name: str) -> str:
    """What "easy" means for a task."""
    electrical = "power-component" in name or "conductivity" in name
    if simplifications == "easy":
        left_out = {"openContainers", "noElectricalAction"} if electrical else {"openContainers"}
        return ",".join(s for s in SIMPLIFICATIONS if s not in left_out)
    if electrical and "noElectricalAction" in simplifications:
        raise ConfigError(f"the task {name!r} cannot be done with the simplification noElectricalAction: leave it out")
    return simplifications
