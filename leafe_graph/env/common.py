"""What environments have in common beside the contract: splits of their tasks, and what all refuse in equal words."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ..errors import ConfigError, EnvError
from ..parsing import keys_once

T = TypeVar("T")

Split = Literal["train", "validation", "test"]
"""Tasks to learn from, to choose by and to be judged on; no task is in two."""

SPLITS: tuple[Split, ...] = get_args(Split)
"""All of them, in the order of their seeds."""
SEEDS = 1_000_000_000
"""Seeds of a split, where tasks are made of seeds."""
FIRST_SEED: dict[Split, int] = {split: number * SEEDS for number, split in enumerate(SPLITS)}
"""The seed that a split begins with, where tasks are made of seeds."""


def check_split(split: str) -> None:
    """Refuse what is no split.

    Raises:
        ConfigError: it is not "train", "validation" or "test".
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}: expected {', '.join(SPLITS)}")


def split_of_hash(number: int) -> Split:
    """The split (80/10/10) of what has this hash."""
    bucket = number % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"


def check_max_steps(max_steps: int | None) -> None:
    """Refuse a step at which no episode can be truncated.

    Raises:
        ConfigError: it is below 1; None, for never, is not.
    """
    if max_steps is not None and max_steps < 1:
        raise ConfigError(f"max_steps={max_steps}: expected at least 1, or None for no limit")


def after_reset(value: T | None) -> T:
    """What an environment's ``reset`` sets, for its other methods.

    Raises:
        EnvError: it is None still: there was no reset.
    """
    if value is None:
        raise EnvError("the environment has not been reset: call reset first")
    return value


def plain(value: Any) -> Any:
    """A value whose numbers, arrays and texts of NumPy's, in lists and mappings too, are Python's."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    return value.tolist() if hasattr(value, "tolist") else value


def stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file is written anew: part of the key of whatever remembers what was read from it.

    Raises:
        OSError: it is not there.
    """
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_json(text: str | bytes, *, by_hand: bool = False) -> Any:
    """JSON of a data set, which may hold integers of more digits than Python converts unless told to.

    Raises:
        ValueError: it is not JSON, or nested too deep; or, in what people write ``by_hand``, a key stands twice.
    """
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=keys_once if by_hand else None)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))
