"""Gymnasium both ways: its environments of text behind our door, and ours as a ``gymnasium.Env``.

`from_gymnasium` takes any environment that shows text and is told text, or the number of an action that has a name.
`to_gymnasium` gives an environment of ours spaces of text. ``leafe explore --env gymnasium:ID`` plays a registered one;
``gymnasium:MODULE:ID`` imports the module that registers it first.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, MissingDependency
from ..text import utf8
from ..types import Task
from .answers import five, flag, observed, start_of
from .common import FIRST_SEED, SEEDS, Split, after_reset, check_split, plain
from .protocol import TextEnv
from .tasks import as_tasks

if TYPE_CHECKING:
    import gymnasium

MAX_OBSERVATION = 100_000
MAX_ACTION = 10_000
"""Characters that the spaces of `to_gymnasium` allow."""


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency(extra="gymnasium", needed_for="Gymnasium's environments") from error
    return gymnasium


def registered(name: str) -> str:
    """The name, ID or MODULE:ID, if an environment is registered under it; the module is imported.

    Raises:
        ConfigError: there is no such module or environment.
        MissingDependency: Gymnasium is not installed.
    """
    gym = _gymnasium()
    module, _, wanted = name.rpartition(":")
    try:
        if module:
            import_module(module)
        gym.spec(wanted)
    except (ImportError, gym.error.Error) as error:
        raise ConfigError(f"Gymnasium has no environment {name!r} ({error}); expected ID or MODULE:ID") from error
    return name


def tasks(split: Split, n: int, *, start: int = 0, instruction: str = "") -> list[Task]:
    """``n`` seeds of a split, from its seed number ``start`` on; splits share none.

    Raises:
        ConfigError: an unknown split, or more seeds than a split has.
    """
    check_split(split)
    if not 0 <= start <= start + n <= SEEDS:
        raise ConfigError(f"start={start}, n={n}: expected seeds number 0 to {SEEDS - 1:,}")
    numbers = range(start, start + n)
    return [
        {"id": f"gymnasium-{split}-{number:06d}", "instruction": instruction, "seed": FIRST_SEED[split] + number}
        for number in numbers
    ]


def action_names(actions: Sequence[str] | None, *, twice: bool = False) -> list[str] | None:
    """Actions as a list; ``twice``: one may be there more than once.

    Raises:
        ConfigError: they are one text, hold what is no text, or one of them twice.
    """
    if actions is None:
        return None
    names = [] if isinstance(actions, str) else list(actions)
    if isinstance(actions, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"actions={actions!r}: expected a list of texts, such as {['up', 'down']}")
    if not twice and (again := [name for name in names if names.count(name) > 1]):
        raise ConfigError(f"actions={names}: {again[0]!r} is there twice; expected a name of its own for each action")
    return names


class from_gymnasium:  # a class, called as its counterpart is
    """A Gymnasium environment as a `leafe_graph.env.TextEnv`. It has no snapshots: rewinding replays.

    Seeds and options go to its ``reset``. An action that its space has not is answered by this wrapper: nothing
    changes, and ``valid`` is False. ``info`` is passed on as it is, ``success`` added at the end: an episode that was
    truncated is a success only if ``info`` says so.

    Args:
        env: the environment, or the id under which it is registered, with ``kwargs`` for ``gymnasium.make``.
        actions: the names of a Discrete space's actions, in order; for a Text space what ``info["admissible"]`` shows
            where the environment does not tell. Capitals count only between names that differ in nothing else.
        success: an episode that terminated is a success if its rewards sum up to this or more; None: if its last
            reward was above 0. Where ``info`` has ``success`` or ``is_success``, that counts.

    Raises:
        ConfigError: the environment's spaces are not of text, or the names are not those of its actions.
        MissingDependency: Gymnasium is not installed.
    """

    def __init__(
        self,
        env: "str | gymnasium.Env[Any, Any]",
        *,
        actions: Sequence[str] | None = None,
        success: float | None = None,
        **kwargs: Any,
    ) -> None:
        spaces = _gymnasium().spaces
        self.env: Any = _gymnasium().make(env, **kwargs) if isinstance(env, str) else env
        self._names = action_names(actions)
        self._success = success
        self._observation: str | None = None
        self._return = 0.0
        self._ended: tuple[bool, bool, dict[str, Any]] | None = None
        seen, acted = self.env.observation_space, self.env.action_space
        if not isinstance(seen, spaces.Text):
            raise ConfigError(
                f"observation_space is {seen}: expected Text. Describe what is seen in words first: "
                "gymnasium.wrappers.TransformObservation(env, describe, gymnasium.spaces.Text(MAX_LENGTH, charset=…))"
            )
        self._discrete = isinstance(acted, spaces.Discrete)
        if self._discrete and len(self._names or ()) != acted.n:
            raise ConfigError(
                f"action_space is {acted}, actions= has {len(self._names or ())} names: expected a name for each of "
                f"the {acted.n} actions, in order"
            )
        if not self._discrete and not isinstance(acted, spaces.Text):
            raise ConfigError(
                f"action_space is {acted}: expected Text, or Discrete with actions=[names]. Read actions out of words "
                "first: gymnasium.wrappers.TransformAction(env, read, gymnasium.spaces.Text(MAX_LENGTH, charset=…))"
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """As the environment's."""
        observation, info = start_of(self.env.reset(seed=plain(seed), options=options))
        self._observation, self._return, self._ended = observation, 0.0, None
        return self._observation, self._told(info)

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | ({} if self._names is None or "admissible" in info else {"admissible": list(self._names)})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment's, which is not asked about an action that its space has not, or after the end."""
        seen = after_reset(self._observation)
        known = self._known(action)
        if self._ended is not None:
            terminated, truncated, info = self._ended
            return seen, 0.0, terminated, truncated, info | {"valid": False}
        if known is None:
            return seen, 0.0, False, False, self._told({"valid": False})
        observation, reward, terminated, truncated, info = five(self.env.step(known))
        self._observation = observed(observation)
        self._return += reward
        info = self._told(info)
        if info.get("valid") is not None:
            info["valid"] = flag(info["valid"], "info['valid']")
        told = next((name for name in ("success", "is_success") if info.get(name) is not None), None)
        if told is not None and (terminated or truncated):
            info["success"] = flag(info[told], f"info[{told!r}]")
        elif terminated:
            info["success"] = reward > 0 if self._success is None else self._return >= self._success
        if terminated or truncated:
            self._ended = (terminated, truncated, info)
        return self._observation, reward, terminated, truncated, info

    def _known(self, action: str) -> Any:
        """What the environment is told; None where its space has no such action."""
        space = self.env.action_space
        if self._discrete:
            names, said = self._names or [], action.strip()
            alike = [name for name in names if name.casefold() == said.casefold()]
            name = said if said in alike else alike[0] if len(alike) == 1 else None
            return None if name is None else names.index(name) + int(space.start)
        return next((text for text in (action, action.strip()) if space.contains(text)), None)

    def close(self) -> None:
        """As the environment's."""
        self.env.close()


def charset() -> frozenset[str]:
    """The characters of `to_gymnasium`'s spaces: what can be printed of Unicode's first 12,288, tab and line break.

    Latin, Greek, Cyrillic, punctuation, arrows, boxes and other symbols are among them; Chinese, Japanese, Korean and
    emoji are not. U+FFFD is, since it stands for those.
    """
    return frozenset(c for c in map(chr, range(0x3000)) if c.isprintable()) | {"\t", "\n", "\ufffd"}


def to_gymnasium(
    env: TextEnv,
    tasks: Sequence[Task] | None = None,
    *,
    actions: Sequence[str] | None = None,
    max_observation: int = MAX_OBSERVATION,
    max_action: int = MAX_ACTION,
) -> "gymnasium.Env[Any, Any]":
    """An environment of ours as a ``gymnasium.Env``; ``close`` closes both.

    A reset plays the task that its seed draws, or the one that ``options={"task": NUMBER}`` names, and
    ``info["task_id"]`` and ``info["instruction"]`` say which. Without ``tasks``, seed and options go to the
    environment; where no seed is given, one is drawn by the last that was.

    A ``Text`` space promises characters and a length. An observation that has others, or more, keeps that promise:
    each other character becomes U+FFFD, what is too long is cut off at the end, and ``info["observation"]`` holds the
    whole text as it was.

    Args:
        env: the environment.
        tasks: what is played.
        actions: makes the action space Discrete, with these texts in order; None: a Text space.
        max_observation: characters of an observation.
        max_action: characters of an action.

    Raises:
        ConfigError: no task or what is none, or no action or what is none.
        MissingDependency: Gymnasium is not installed.
    """
    gym = _gymnasium()
    if [] in (None if given is None else list(given) for given in (tasks, actions)):
        raise ConfigError("tasks and actions need at least one; leave them out for seeds and for a space of text")
    names = action_names(actions)
    tasks = None if tasks is None else as_tasks(tasks)
    known = charset()
    ordered = "".join(sorted(known))  # a set has another order in each process, and samples with it

    class Adapter(gym.Env):  # type: ignore[misc, name-defined]
        """`to_gymnasium`'s environment."""

        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own
        observation_space = gym.spaces.Text(max_observation, min_length=0, charset=ordered)
        action_space = (
            gym.spaces.Text(max_action, min_length=0, charset=ordered)
            if names is None
            else gym.spaces.Discrete(len(names))
        )

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            """Start a task."""
            seed, options = plain(seed), plain(options)
            super().reset(seed=seed)
            if tasks is None:
                start = int(self.np_random.integers(2**31)) if seed is None else seed
                return self._fitting(*env.reset(seed=start, options=options or None))
            number = (options or {}).get("task", int(self.np_random.integers(len(tasks))))
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(tasks):
                raise ConfigError(f"task {number!r}: expected a number from 0 to {len(tasks) - 1}")
            task = tasks[number]
            observation, info = env.reset(seed=task.get("seed"), options=task.get("options"))
            told = {"task_id": task["id"], "instruction": task["instruction"]}
            return self._fitting(observation, info | told)

        def step(self, action: Any) -> Any:
            """Act; a Discrete space's number stands for its text."""
            observation, *rest, info = env.step(action if names is None else names[action])
            observation, info = self._fitting(observation, info)
            return observation, *rest, info

        def _fitting(self, text: str, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            """The text within the space, and the whole one beside it where that is another one."""
            text = utf8(text)
            fitting = "".join(c if c in known else "\ufffd" for c in text[:max_observation])
            return fitting, dict(info) if fitting == text else {**info, "observation": text}

        def close(self) -> None:
            env.close()

    return Adapter()
