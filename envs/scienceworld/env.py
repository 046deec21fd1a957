"""ScienceWorld: thirty kinds of experiments of elementary school in a simulated house, in the authors' own simulator.

Equal actions bring equal answers, in any process and whatever other instances do in the same JVM: see
`leafe_graph.envs.scienceworld.simulator`. Rewinding is replaying.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from leafe_graph.env import Guide
from leafe_graph.env.common import Split, after_reset, check_max_steps, check_split, plain
from leafe_graph.errors import ConfigError, EnvError, EnvLost
from leafe_graph.text import utf8
from leafe_graph.types import Task

from .simulator import (
    HEAP_MB,
    checked,
    jvm_of,
    known,
    normal,
    resolve,
    running,
    simulators,
    task_names,
    variations,
)

GUIDE = Guide(
    role="You are in a house with a laboratory, and do an experiment of elementary school science. The task is told in "
    "the first observation. Where it wants you to focus on an object, focus on nothing else: a wrong focus fails it.",
    actions="""Answer with one action:
open OBJ, close OBJ: a container or a door
activate OBJ, deactivate OBJ: a device
connect OBJ to OBJ, disconnect OBJ: electrical parts
use OBJ, use OBJ on OBJ: a device or a tool
look around, look at OBJ, look in OBJ, read OBJ, inventory, task
move OBJ to OBJ, pick up OBJ, put down OBJ
pour OBJ into OBJ, dunk OBJ into OBJ, mix OBJ (the content of a container)
go to LOC (an adjacent room), teleport to LOC (any room, where the task allows it)
eat OBJ, flush OBJ
focus on OBJ: say that this is the object the task asks for
wait, wait1: let ten steps, or one, pass
Where a request is ambiguous, answer with the number of what you meant.""",
    example="""Example:
Your task is to find a(n) plant. First, focus on the thing. Then, move it to the orange box in the bathroom.
teleport to greenhouse
look around
focus on flower pot 2
pick up flower pot 2
teleport to bathroom
move flower pot 2 to orange box""",
)
"""What a policy is told about it, in pieces."""
INSTRUCTION = str(GUIDE)
"""The instruction of each task, unless another is asked for."""
HORIZON = 100
"""Turns of an episode: the step limit in the package and its paper (Wang et al. 2022, arXiv:2203.07540). Work with
language models gives 10 to 120 by the kind of task, such as 15 for find-plant and 100 for boil."""

_OPTIONS = ("task", "variation", "simplifications")
_NOT_UNDERSTOOD = ("No known action matches that input.", "Unknown action.")


class ScienceWorldEnv:
    """ScienceWorld behind the text environment's door.

    Description:
        Thirty kinds of tasks from the curriculum of elementary school: change the state of matter, measure
        temperatures, build circuits, test conductivity, find and sort living things, grow plants, mix chemicals and
        paints, tell life spans and life stages, slide blocks down planes, cross-breed peas. Each kind has 10 to 1,386
        variations. The simulator is the authors' own.
    Action space:
        Text, as `GUIDE` lists it; the simulator also knows "help" and "objects".
    Observation space:
        The simulator's answer, word for word.
    Starting state:
        ``options["task"]`` (such as "boil") and ``options["variation"]``, else one of the training tasks, by the seed.
        The first observation is the task's description and what "look around" shows.
    Reward:
        The rise of the simulator's score, divided by 100, so that the return of an episode is its score: 1 for a task
        done, 0 to 1 for a part of it, -1 for a mistake that fails it. What some tasks give for standing where the
        agent starts comes with the first step.
    Episode end:
        Terminated when the task is done or failed; truncated after ``max_steps``.
    Info:
        ``score`` (-100 to 100), ``valid`` (False: not understood), ``success`` at the end (score 100), ``admissible``
        with the option of that name.
    Version:
        The package scienceworld 1.2 (Wang et al. 2022, arXiv:2203.07540).

    All instances with the same ``heap_mb`` share one JVM and take turns in it. After it died, `reset` starts another.

    Args:
        simplifications: "easy" (as agents of language models are usually tested), "" for the full simulator, or some of
            `SIMPLIFICATIONS`, as a list or separated by commas. A task's option wins over this.
        admissible: list the possible actions in info; some hundred, and several times slower.
        max_steps: the step at which an episode is truncated; None for never.
        heap_mb: bound of the JVM's heap in MB; see docs/environments.md for what an instance takes.

    Raises:
        EnvLost: the JVM died.
    """

    def __init__(
        self,
        *,
        simplifications: str | Iterable[str] = "easy",
        admissible: bool = False,
        max_steps: int | None = None,
        heap_mb: int = HEAP_MB,
    ) -> None:
        check_max_steps(max_steps)
        self._defaults = normal(simplifications)
        self._admissible = admissible
        self._max_steps = max_steps
        self._jvm = jvm_of(heap_mb)
        self._server: Any = None
        self._started = 0
        self._release: Callable[[], object] = lambda: None
        self._playing = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a variation of a task; ``seed`` decides on what happens by chance in it.

        Raises:
            ConfigError: an option that is not known, or no such task, variation or simplification.
        """
        seed, options = plain(seed), plain(options or {})
        if unknown := options.keys() - set(_OPTIONS):
            raise ConfigError(f"unknown options {sorted(unknown)}: expected {', '.join(_OPTIONS)}")
        seed = seed or 0
        if "task" in options:
            name, variation = checked(options, self._jvm)
        else:
            train = by_turns(variations("train", self._jvm))
            name, variation = train[seed % len(train)]
        self._simplifications = resolve(normal(options.get("simplifications", self._defaults)), name)
        self._chance = f"{name} {variation} {seed}"
        self._steps = 0
        description, look, info = self._jvm.call(lambda: self._load(name, variation), "starting a task")
        self._score = 0
        return f"{description}\n\n{look}", info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act; what is not understood is answered by the simulator and takes no time in its world."""
        after_reset(self._server)
        if not self._playing:
            return "The episode is over.", 0.0, True, False, {"valid": False, "success": self._score == 100}
        self._steps += 1
        before = self._score
        answer, done, info = self._jvm.call(lambda: self._play(utf8(action)), "acting")
        truncated = not done and self._steps == self._max_steps
        return answer, (self._score - before) / 100, done, truncated, info

    def _load(self, name: str, variation: int) -> tuple[str, str, dict[str, Any]]:
        """Start a variation; its description, what is seen, and info."""
        simulator = running(self._jvm)
        if self._started != simulator.started:
            self._server, self._started = simulator.new(), simulator.started
            self._release = weakref.finalize(self, self._jvm.release, self._started, self._server)
        # What the simulator makes at the start depends on simplifications that it reads only later.
        simulator.prepare(self._simplifications, self._chance)
        if problem := self._server.load(name, variation, self._simplifications, False):
            raise EnvError(f"ScienceWorld cannot start {name} {variation}: {problem}")
        self._ids = simulator.ids
        description = self._server.getTaskDescription()
        look, _, info = self._play("look around")
        return description, look, info

    def _play(self, action: str) -> tuple[str, bool, dict[str, Any]]:
        """One step: the answer, whether the episode ended, and info."""
        simulator = simulators.get(self._jvm)
        if simulator is None or self._started != self._jvm.started:
            raise EnvLost("the JVM of ScienceWorld died since the last reset; reset to go on", exitcode=None)
        server, chance = self._server, f"{self._chance} {self._steps}"
        simulator.prepare(self._simplifications, chance)
        simulator.ids = self._ids
        answer = server.step(action)
        self._score = round(100 * server.getScore())
        done = server.getCompleted() or self._score < 0
        self._ids = simulator.ids
        if done and server.agentInterface().get().isInErrorState():
            raise EnvError(f"ScienceWorld's simulation failed: {server.agentInterface().get().getErrorStateMessage()}")
        self._playing = not done
        info: dict[str, Any] = {"score": self._score, "valid": not answer.startswith(_NOT_UNDERSTOOD)}
        if self._admissible:
            simulator.prepare(self._simplifications, chance)
            info["admissible"] = self._jvm.lines(server.getValidActionObjectCombinations())
        if done:
            info["success"] = self._score == 100
        return answer, done, info

    def close(self) -> None:
        """Leave the JVM to the other instances; `reset` may follow."""
        self._release()
        self._server, self._started, self._playing = None, 0, False


def tasks(
    split: Split,
    n: int,
    *,
    start: int = 0,
    task: str | Iterable[str] | None = None,
    simplifications: str | Iterable[str] = "easy",
    instruction: str = INSTRUCTION,
    heap_mb: int = HEAP_MB,
) -> list[Task]:
    """``n`` variations of a split, the kinds of tasks by turns; the same list every time.

    The splits are the package's: half of a task's variations to train, a quarter each to validate ("dev") and to test.

    Args:
        split: "train", "validation" or "test".
        n: how many.
        start: how many to skip.
        task: one of `task_names`, or several; None for all thirty.
        simplifications: as `ScienceWorldEnv` takes them.
        instruction: what the policy is told; what is to be done in a variation stands in the first observation.
        heap_mb: whose JVM is asked, as `ScienceWorldEnv` takes it.

    Raises:
        ConfigError: no such split, task or simplification, or fewer variations than asked for.
    """
    check_split(split)
    names = task_names() if task is None else [task] if isinstance(task, str) else list(task)
    for name in names:
        known(name)
    official = variations(split, jvm_of(heap_mb))
    found = by_turns({name: official[name] for name in names})
    if start < 0 or n < 0 or start + n > len(found):
        raise ConfigError(
            f"{split} has {len(found)} variations of the tasks asked for; cannot give {n} from start={start} on"
        )
    easier = normal(simplifications)
    suffix = "" if easier == "easy" else f"-{easier.replace(',', '+') or 'full'}"
    return [
        {
            "id": f"scienceworld-{name}-{variation:04d}{suffix}",
            "instruction": instruction,
            "seed": 0,
            "options": {"task": name, "variation": variation, "simplifications": easier},
        }
        for name, variation in found[start : start + n]
    ]


def expert(task: Task, *, heap_mb: int = HEAP_MB) -> list[str]:
    """The simulator's gold actions for a task, made in the JVM with that heap.

    They were made for one course of chance and are a path of this one only if chance has no say in it.

    Raises:
        ConfigError: the task's options are not understood.
    """
    options = task.get("options") or {}
    jvm = jvm_of(heap_mb)
    name, variation = checked(options, jvm)
    easier = resolve(normal(options.get("simplifications", "easy")), name)

    def ask() -> list[str]:
        simulator = running(jvm)
        server = simulator.new()
        simulator.forget_paths()
        simulator.prepare(easier, name)
        server.load(name, variation, easier, True)
        actions = jvm.lines(server.getGoldActionSequence())
        jvm.release(jvm.started, server)
        return actions

    return jvm.call(ask, "making the gold actions")


def by_turns(variations: dict[str, list[int]]) -> list[tuple[str, int]]:
    """The first variation of each task, then the second of each that has one, and so on."""
    longest = max(map(len, variations.values()), default=0)
    return [(name, found[i]) for i in range(longest) for name, found in variations.items() if i < len(found)]
