"""The original WebShop, played from a user's own checkout of its code and data.

``leafe explore --env leafe_graph.envs.webshop.original_code:OfficialWebShopEnv --env-options checkout=FOLDER …`` plays
it. The folder is a checkout of princeton-nlp/WebShop whose setup script has run; what its ``requirements.txt`` names
must be importable here. Nothing of it comes with this package.
"""

import hashlib
import random
import sys
import threading
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import rich
from rich.markup import escape

from leafe_graph.env.common import Split, after_reset, plain
from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.files import path_of
from leafe_graph.types import Task

from .env import GUIDE, HORIZON, INSTRUCTION, Mode, goal_numbers, read_action

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "OfficialWebShopEnv", "tasks"]

_lock = threading.RLock()
"""Held while the original's code runs: its server, its search engine and Python's random numbers are shared."""
_servers: dict[Hashable, Any] = {}
_instances = count()


class OfficialWebShopEnv:
    """The original's text environment behind this package's door. It has no snapshots: rewinding replays.

    Description:
        As `leafe_graph.envs.webshop.WebShopEnv`, but every page, search and score is the original's.
    Action space:
        Text with ``search[keywords]`` or ``click[…]`` (`leafe_graph.envs.webshop.read_action`).
    Observation space:
        Text: the page, as the original gives it.
    Starting state:
        The search page of goal number ``options["goal"]``, else of one drawn by the seed.
    Reward:
        The original's.
    Episode end:
        Terminated by "Buy Now"; a success if the score is 1.
    Info:
        ``valid``, ``admissible`` and, at the end, ``success``.
    Version:
        Whatever the checkout holds; written for the public code of 2024.

    The products' prices and the goals' limits, which the original draws anew in every process, are drawn by ``seed``.
    Instances of a process share one server, so they take turns.

    Args:
        checkout: the folder that has ``web_agent_site`` in it.
        observation_mode: the original's: "text" or "text_rich".
        num_products: the original's: how many products; None for all of the file that its ``utils.py`` names.
        human_goals: the original's: instructions that people wrote instead of the synthetic ones.
        show_attrs: the original's: whether products have a page of their attributes.
        seed: of prices and limits.

    Raises:
        ConfigError: there is no such folder, or another checkout is loaded in this process.
        MissingDependency: something that the original imports is not installed.
    """

    def __init__(
        self,
        *,
        checkout: str | Path,
        observation_mode: Mode = "text",
        num_products: int | None = None,
        human_goals: bool = True,
        show_attrs: bool = False,
        seed: int = 0,
    ) -> None:
        folder = path_of(checkout).resolve()
        settings = {"num_products": num_products, "human_goals": human_goals, "show_attrs": show_attrs}
        key = (folder, seed, *settings.values())
        with _lock:
            make = _text_env(folder)
            if key not in _servers:
                # Said by rich, as the original does: the first time it prints, it draws one of Python's random numbers.
                rich.print(f"Loading the WebShop in {escape(str(folder))}.")
            before = random.getstate()
            random.seed(seed)
            try:
                self._env: Any = make(
                    observation_mode=observation_mode,
                    server=_servers.get(key),
                    session_prefix=f"leafe-{next(_instances)}-",
                    **settings,
                )
            finally:
                random.setstate(before)
            self._server = _servers.setdefault(key, self._env.server)
        self._page: str | None = None
        self._clickable: list[str] = []
        self._goal = 0
        self._score: float | None = None

    @property
    def goals(self) -> Sequence[Mapping[str, Any]]:
        """The original's goals, in its order."""
        goals: Sequence[Mapping[str, Any]] = self._server.goals
        return goals

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Open the shop for goal number ``options["goal"]``, else for one drawn by the seed.

        Raises:
            ConfigError: an option that is not known, or a goal that there is not.
        """
        seed, options = plain(seed), plain(options or {})
        if unknown := options.keys() - {"goal"}:
            raise ConfigError(f"unknown options {sorted(unknown)}: expected goal")
        goal = options.get("goal", random.Random(seed).randrange(len(self.goals)))
        if not isinstance(goal, int) or not 0 <= goal < len(self.goals):
            raise ConfigError(f"goal {goal!r}: expected a number from 0 to {len(self.goals) - 1}")
        self._goal, self._score = goal, None
        with _lock:
            self._page = self._env.reset(session=goal)[0]
            return self._page, {"admissible": self._admissible()}

    def _admissible(self) -> list[str]:
        """What can be done, as the original tells; on the search page, where any keywords will do, one search."""
        found = self._env.get_available_actions()
        self._clickable = [text for text in found["clickables"] if text != "search"]
        if found["has_search_bar"]:
            return [f"search[{self.goals[self._goal]['instruction_text']}]"]
        return [f"click[{text}]" for text in self._clickable]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What the original answers; it is not asked about texts that have no action in them, or after the end."""
        self._page = after_reset(self._page)
        known = read_action(action) if self._score is None else None
        info: dict[str, Any] = {"valid": False}
        reward = 0.0
        with _lock:
            if known:
                name, argument = known
                info["valid"] = name == "search" or argument in self._clickable
                self._page, reward, done, _ = self._env.step(f"{name}[{argument}]")
                if done:
                    self._score = float(reward)
            info["admissible"] = self._admissible()
        over = self._score is not None
        if over:
            info["success"] = self._score == 1
        return self._page, float(reward), over, False, info

    def close(self) -> None:
        """The server stays for the process's other instances."""


def _text_env(folder: Path) -> Any:
    """The original's class, imported from its checkout."""
    if not (folder / "web_agent_site" / "envs").is_dir():
        raise ConfigError(f"checkout={str(folder)!r} has no web_agent_site/envs in it: expected a checkout of WebShop")
    sys.path.insert(0, str(folder))
    try:
        module = import_module("web_agent_site.envs")
    except ImportError as error:
        raise MissingDependency(
            f"the WebShop in {folder} cannot be imported ({error}): pip install -r {folder}/requirements.txt, and run "
            "its setup.sh",
            needed_for="webshop_official",
        ) from error
    finally:
        sys.path.remove(str(folder))
    if not Path(str(module.__file__)).resolve().is_relative_to(folder):
        raise ConfigError(f"{module.__file__} is loaded in this process already: expected one from {folder}")
    return module.WebAgentTextEnv


def tasks(
    split: Split,
    n: int,
    *,
    checkout: str | Path,
    start: int = 0,
    num_products: int | None = None,
    human_goals: bool = True,
    show_attrs: bool = False,
    seed: int = 0,
    instruction: str = INSTRUCTION,
) -> list[Task]:
    """``n`` of the original's goals of a split, from its goal number ``start`` on; the same list every time.

    An id holds a digest of the goals, so equal ids mean equal goals.

    Raises:
        ConfigError: an unknown split, or fewer goals than asked for.
    """
    env = OfficialWebShopEnv(
        checkout=checkout, num_products=num_products, human_goals=human_goals, show_attrs=show_attrs, seed=seed
    )
    kind = "human" if human_goals else "synthetic"
    wishes = "\n".join(f"{goal.get('asin')} {goal['instruction_text']}" for goal in env.goals)
    digest = hashlib.sha256(wishes.encode(errors="replace")).hexdigest()[:8]
    name = f"webshop-official-{kind}-{num_products or 'all'}-{seed}-{digest}-{split}"
    numbers = goal_numbers(split, n, start, goals=len(env.goals))
    return [
        {"id": f"{name}-{number:05d}", "instruction": instruction, "options": {"goal": number}} for number in numbers
    ]
