"""What an environment answered, as plain values: NumPy's are taken for Python's, and what is no answer is named."""

import math
from typing import Any, NamedTuple

from ..errors import ConfigError, EnvError
from ..text import utf8
from ..types import ModelMessage, Turn

START = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"


class Answer(NamedTuple):
    """What ``step`` returned."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]

    @property
    def success(self) -> bool:
        """Whether the episode has ended as a success; what ``info`` says of one that was truncated counts, too."""
        return (self.terminated or self.truncated) and bool(self.info.get("success"))

    @property
    def valid(self) -> bool | None:
        """Whether the action was understood; None where the environment does not tell."""
        valid: bool | None = self.info.get("valid")
        return valid

    @property
    def feedback(self) -> str:
        """A short answer to the action: the observation unless ``info`` has one."""
        return utf8(str(self.info.get("feedback", self.observation)))

    def turn(
        self,
        observation: str,
        action: str,
        message: ModelMessage,
        *,
        checkpoint_id: str | None = None,
        env_state: bytes | None = None,
    ) -> Turn:
        """The record of the turn that it ends; the arguments are what was there before it."""
        return Turn(
            observation=observation,
            action=action,
            message=message,
            feedback=self.feedback,
            reward=self.reward,
            terminated=self.terminated,
            truncated=self.truncated,
            valid=self.valid,
            checkpoint_id=checkpoint_id,
            env_state=env_state,
        )


def start_of(answer: Any) -> tuple[str, dict[str, Any]]:
    """What ``reset`` returned: observation and info.

    Raises:
        ConfigError: they are not two.
        EnvError: one is of another type.
    """
    observation, info = _values(answer, "reset", START, 2, "as Gym did before 0.26")
    return observed(observation), _info(info)


def step_of(answer: Any) -> Answer:
    """What ``step`` returned.

    Raises:
        ConfigError: they are not five values, or the episode terminated and nobody says whether that is a success.
        EnvError: one is of another type.
    """
    observation, reward, terminated, truncated, info = five(answer)
    found = Answer(observed(observation), reward, terminated, truncated, _info(info))
    if found.terminated and found.info.get("success") is None:
        raise ConfigError(
            f"step terminated the episode with reward {found.reward:g} and no info['success']; expected True or False "
            "there: whether that is a success is not told by the reward. Put it in, or, for an environment of "
            "Gymnasium, wrap it: leafe_graph.env.from_gymnasium(env, success=RETURN)"
        )
    return found


def five(answer: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """What ``step`` returned, with reward and ends as Python's; the observation is as it was.

    Raises:
        ConfigError: they are not five values.
        EnvError: one is of another type.
    """
    hint = "as Gym did before 0.26: tell terminated (the task is over) from truncated (the time is)"
    observation, reward, terminated, truncated, info = _values(answer, "step", STEP, 5, hint)
    return observation, _number(reward), flag(terminated, "terminated"), flag(truncated, "truncated"), info


def flag(value: Any, what: str) -> bool:
    """A bool, also as a number, as NumPy's or as an array of one.

    Raises:
        EnvError: it is something else, such as a text: "False" would be true.
    """
    found = scalar(value, what)
    if not isinstance(found, bool | int | float):
        raise EnvError(f"{what} is {value!r}; expected True or False")
    return bool(found)


def _values(answer: Any, method: str, expected: str, number: int, hint: str) -> Any:
    """As many values as expected."""
    if isinstance(answer, tuple | list) and len(answer) == number:
        return answer
    several = isinstance(answer, tuple | list)
    seen = f"{len(answer)} values" if several else type(answer).__name__
    old = (several and len(answer) == number - 1) or isinstance(answer, str)
    raise ConfigError(f"{method} returned {seen}{f', {hint}' if old else ''}; expected {expected}")


def observed(value: Any) -> str:
    """An observation.

    Raises:
        EnvError: it is no text.
    """
    if not isinstance(value, str):
        raise EnvError(f"the observation is {type(value).__name__}; expected str")
    return utf8(value)


def _number(value: Any) -> float:
    found = scalar(value, "the reward")
    if not isinstance(found, bool | int | float) or not math.isfinite(found):
        raise EnvError(f"the reward is {value!r}; expected a number")
    return float(found)


def _info(value: Any) -> dict[str, Any]:
    """Info whose ``success`` and ``valid``, where they are told, are bools."""
    if not isinstance(value, dict):
        raise EnvError(f"info is {type(value).__name__}; expected dict")
    told = {name: flag(value[name], f"info[{name!r}]") for name in ("success", "valid") if value.get(name) is not None}
    return {**value, **told}


def scalar(value: Any, what: str) -> Any:
    """A number of NumPy's or torch's, or an array of one, as Python's; else the value itself.

    Raises:
        EnvError: it is an array of several.
    """
    try:
        return value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError) as error:
        raise EnvError(f"{what} is {value!r}; expected one value") from error
