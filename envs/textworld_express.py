"""TextWorldExpress: cooking, tidying up, coin collecting and other small text games, thousands of steps a second.

The games are deterministic: a seed and the actions decide on everything. Rewinding is replaying.
"""

import json
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from leafe_graph.env import Guide
from leafe_graph.env.common import Split, after_reset, check_max_steps, check_split, plain
from leafe_graph.errors import ConfigError, EnvLost
from leafe_graph.text import utf8
from leafe_graph.types import Task

from . import java
from .catalog import ENVS

__all__ = ["GAMES", "GUIDE", "HORIZON", "INSTRUCTION", "TextWorldExpressEnv", "expert", "tasks"]

GUIDE = Guide(
    role="You play a text game. The task is told in the first observation.",
    actions="""Answer with one action:
look around, inventory, examine OBJ
move north, move east, move south, move west
open OBJ, open door to north (or another direction), close OBJ
take OBJ, take OBJ from OBJ, put OBJ in OBJ
In a kitchen also: read cookbook, slice OBJ, dice OBJ, chop OBJ, cook OBJ in OBJ, prepare meal, eat OBJ""",
    example="""Example:
Your task is to search the environment and find the coin. Once you find the coin, take it.
open door to east
move east
take coin""",
)
"""What a policy is told about it, in pieces."""
INSTRUCTION = str(GUIDE)
"""The instruction of each task, unless another is asked for."""
HORIZON = 100
"""Turns of an episode: the package's own step limit (Jansen and Côté 2022, arXiv:2208.01174)."""

GAMES = ("cookingworld", "twc", "coin", "mapreader", "arithmetic", "sorting", "simonsays", "peckingorder")
"""The games. Tasks are of the first three, TextWorld's well-known ones, unless others are asked for."""

_FOLDS = {"train": "train", "validation": "dev", "test": "test"}
_SEEDS = {"train": range(1000), "validation": range(10_000, 11_000), "test": range(20_000, 21_000)}
"""The package's seeds; CookingWorld and TextWorld Commonsense also have their own objects in each split."""
_OPTIONS = ("game", "split", "params")
_NOT_UNDERSTOOD = "Unknown action"
_HEAP_MB = 512


def _jvm(heap_mb: int = _HEAP_MB) -> java.Jvm:
    ENVS["textworld-express"].require()
    from textworld_express.constants import JAR_PATH

    return java.shared("TextWorldExpress", JAR_PATH, java.heap_option(heap_mb))


class TextWorldExpressEnv:
    """TextWorldExpress behind the text environment's door.

    Description:
        Small text games in rooms. CookingWorld: read a recipe, gather and prepare the ingredients, cook, eat.
        TextWorld Commonsense (twc): put things away where they belong. CoinCollector: find a coin. Also map reading,
        arithmetic, sorting, Simon says and pecking order. The simulator is the authors' own.
    Action space:
        Text, one of ``info["admissible"]``.
    Observation space:
        The simulator's answer, word for word.
    Starting state:
        ``options["game"]``, generated from the seed for ``options["split"]`` with ``options["params"]``.
        The first observation is the task's description and what is seen.
    Reward:
        The rise of the simulator's score, which is 0 at the start and 1 when the task is done.
    Episode end:
        Terminated when the task is done or failed, as by destroying an ingredient; truncated after ``max_steps``.
    Info:
        ``admissible``, ``valid`` (False: not understood), ``look`` and ``inventory`` (what these actions would answer),
        ``score``, ``success`` at the end.
    Version:
        The package textworld-express 1.1 (Jansen and Côté 2022, arXiv:2208.01174).

    All instances with the same ``heap_mb`` share one JVM and take turns in it. After it died, `reset` starts another.

    Args:
        game: one of `GAMES`. A task's options win over this and the next two.
        split: whose objects and recipes the game is made of.
        params: the game's parameters, as whole numbers, such as ``{"numLocations": 5, "includeDoors": 0}``. The
            package's README lists them; CookingWorld has numLocations (1 to 11), numIngredients (1 to 5),
            numDistractorItems (0 to 10), includeDoors and limitInventorySize (0 or 1).
        max_steps: the step at which an episode is truncated; None for never.
        heap_mb: bound of the JVM's heap in MB.

    Raises:
        EnvLost: the JVM died.
    """

    def __init__(
        self,
        *,
        game: str = "cookingworld",
        split: Split = "train",
        params: Mapping[str, int] | None = None,
        max_steps: int | None = None,
        heap_mb: int = _HEAP_MB,
    ) -> None:
        check_max_steps(max_steps)
        self._defaults = {"game": game, "split": split, "params": params}
        _checked(self._defaults)
        self._max_steps = max_steps
        self._jvm = _jvm(heap_mb)
        self._server: Any = None
        self._started = 0
        self._loaded: tuple[str, str] | None = None
        self._release: Callable[[], object] = lambda: None
        self._last: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Generate a game; no seed is seed 0.

        Raises:
            ConfigError: an option that is not known, or a game that cannot be made like this.
        """
        seed = plain(seed)
        game, split, params = _checked(self._defaults | (options or {}))
        description, answer = self._jvm.call(lambda: self._generate(game, split, params, seed or 0), "making a game")
        self._steps, self._score = 0, answer["score"]
        return f"{description}\n\n{answer['observation']}", self._info(answer)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act; what is not among the admissible actions is answered by the simulator and changes nothing."""
        after_reset(self._server)
        action = utf8(action)
        if self._over:
            info = self._info(self._last) | {"valid": False}
            return "The episode is over.", 0.0, True, False, info
        answer = self._jvm.call(lambda: self._act(action), "acting")
        self._steps += 1
        reward, self._score = answer["score"] - self._score, answer["score"]
        info = self._info(answer) | {"valid": not answer["observation"].startswith(_NOT_UNDERSTOOD)}
        return answer["observation"], reward, self._over, not self._over and self._steps == self._max_steps, info

    def close(self) -> None:
        """Leave the JVM to the other instances; `reset` may follow."""
        self._release()
        self._server, self._started = None, 0

    @property
    def _over(self) -> bool:
        return bool(self._last["tasksuccess"] or self._last["taskfailure"])

    def _generate(
        self, game: str, split: str, params: str, seed: int, *, gold: bool = False
    ) -> tuple[str, dict[str, Any]]:
        """Make a game; the task's description and the first answer."""
        started = self._jvm.ensure()
        if self._started != started:
            self._server = self._jvm.classes.textworldexpress.runtime.PythonInterface()
            self._started, self._loaded = started, None
            self._release = weakref.finalize(self, self._jvm.release, started, self._server)
        if self._loaded != (game, params):
            self._loaded = None
            if problem := self._server.load(game, params):
                raise ConfigError(f"TextWorldExpress cannot make {game} with {params or 'its defaults'}: {problem}")
            self._loaded = (game, params)
        self._last = json.loads(self._server.generateNewGameJSON(seed, _FOLDS[split], gold), strict=False)
        return self._server.getTaskDescription(), self._last

    def _act(self, action: str) -> dict[str, Any]:
        if self._started != self._jvm.started:
            raise EnvLost("the JVM of TextWorldExpress died since the last reset; reset to go on", exitcode=None)
        self._last = json.loads(self._server.stepJSON(action), strict=False)
        return self._last

    def _info(self, answer: dict[str, Any]) -> dict[str, Any]:
        info = {"admissible": answer["validActions"], **{key: answer[key] for key in ("look", "inventory", "score")}}
        return info | ({"success": answer["tasksuccess"]} if self._over else {})


def tasks(
    split: Split,
    n: int,
    *,
    start: int = 0,
    game: str | Iterable[str] = GAMES[:3],
    params: Mapping[str, int] | None = None,
    instruction: str = INSTRUCTION,
) -> list[Task]:
    """``n`` games of a split, the kinds of games by turns; the same list every time.

    The splits are the package's: a thousand seeds each for train, validation ("dev") and test.

    Args:
        split: "train", "validation" or "test".
        n: how many.
        start: how many to skip.
        game: one of `GAMES`, or several.
        params: parameters of the game, as `TextWorldExpressEnv` takes them.
        instruction: what the policy is told; what is to be done stands in the first observation.

    Raises:
        ConfigError: no such split or game, or fewer games than asked for.
    """
    check_split(split)
    games = [game] if isinstance(game, str) else list(game)
    for name in games:
        suffix = _checked({"game": name, "split": split, "params": params})[2]
    found = [(name, seed) for seed in _SEEDS[split] for name in games]
    if start < 0 or n < 0 or start + n > len(found):
        raise ConfigError(f"{split} has {len(found)} games of {games}; cannot give {n} from start={start} on")
    return [
        {
            "id": f"textworld-express-{name}-{seed:05d}" + (f"-{suffix}" if suffix else ""),
            "instruction": instruction,
            "seed": seed,
            "options": {"game": name, "split": split, "params": dict(params or {})},
        }
        for name, seed in found[start : start + n]
    ]


def expert(task: Task) -> list[str]:
    """The package's gold actions. Its gold agents explore, in most games at random: they may differ from call to call.

    Raises:
        ConfigError: a game that cannot be made like this.
    """
    env = TextWorldExpressEnv()
    game, split, params = _checked(env._defaults | (task.get("options") or {}))

    def ask() -> list[str]:
        env._generate(game, split, params, task.get("seed") or 0, gold=True)
        return env._jvm.lines(env._server.getGoldActionSequence())

    actions = env._jvm.call(ask, "making the gold actions")
    env.close()
    return actions


def _checked(options: Mapping[str, Any]) -> tuple[str, str, str]:
    """Game, split and parameters in the package's form."""
    if unknown := options.keys() - set(_OPTIONS):
        raise ConfigError(f"unknown options {sorted(unknown)}: expected {', '.join(_OPTIONS)}")
    game, split, params = (plain(options[name]) for name in _OPTIONS)
    if game not in GAMES:
        raise ConfigError(f"unknown game {game!r}: expected one of {', '.join(GAMES)}")
    check_split(split)
    params = params or {}
    if not isinstance(params, Mapping) or not all(isinstance(value, int) for value in params.values()):
        raise ConfigError(f"params={params!r}: expected names with whole numbers, such as {{'numLocations': 5}}")
    return game, split, ",".join(f"{name}={int(value)}" for name, value in sorted(params.items()))
