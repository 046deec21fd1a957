"""WebShop as a text environment: find the product that fits a wish, pick its options, buy it.

Pages, actions and reward are those of Yao et al. (2022). The catalogue is generated, or loaded from WebShop's own
files; `leafe_graph.envs.webshop.original_code` plays a checkout of the original code.
"""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from leafe_graph.env import Guide
from leafe_graph.env.common import Split, after_reset, check_split, plain
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.files import path_of
from leafe_graph.text import without_thoughts
from leafe_graph.types import Task

from ..catalog import ENVS
from . import pages
from .buyer import buy
from .generator import from_name, generated
from .products import Catalog, Goal, named
from .reward import reward
from .session import Session

GUIDE = Guide(
    role=(
        "You are shopping in a web shop. Find the product that fits the instruction on the page, choose the options "
        "that it asks for, and buy it. Only the first purchase counts."
    ),
    actions=(
        "Answer with one action: search[keywords], or click[something that stands on the page], such as a product's "
        "number, an option, Next >, < Prev, Back to Search, Description, Features, Reviews or Buy Now."
    ),
    example=(
        'Example, for the instruction "i need gluten free cookies in vanilla flavor, and price lower than 20.00 '
        'dollars": search[gluten free vanilla cookies], then click[B0XXXXXXXX] for the product that fits best, '
        "click[vanilla], click[Buy Now]."
    ),
)
"""What a policy is told about it, in pieces."""
INSTRUCTION = str(GUIDE)
"""The instruction of each task, unless another is asked for."""
HORIZON = 15
"""Turns of an episode in verl-agent's WebShop (GiGPO, Feng et al. 2025). Yao et al. stop their models after 100."""

PRODUCTS = 5000
"""Of a generated catalogue, where nothing else is asked for."""

Mode = Literal["text", "text_rich"]
"""How pages are shown; `WebShopEnv` says what each is."""

SPLITS: dict[Split, slice] = {"test": slice(0, 500), "validation": slice(500, 1500), "train": slice(1500, None)}
"""Of the shuffled goals, as in the original."""


def read_action(text: str) -> tuple[str, str] | None:
    """("search" or "click", its argument in lower case); None where a text has no such action.

    The first one after the last ``Action:``, or in the whole text, counts; it ends with the line's last bracket.
    Thoughts are left out (`leafe_graph.text.without_thoughts`).
    """
    for line in without_thoughts(text).lower().rpartition("action:")[2].splitlines():
        found = [(line.find(f"{name}["), name) for name in ("search", "click") if f"{name}[" in line]
        if found:
            begin, name = min(found)
            argument = line[begin + len(name) + 1 : max(line.rfind("]"), 0)].strip()
            return (name, argument) if argument else None
    return None


def catalog(
    *, products: int | None = None, catalog_seed: int = 0, data: str | Path | None = None, human_goals: bool = True
) -> Catalog:
    """The catalogue that these options describe; `WebShopEnv` says what they mean. Made once a process.

    Raises:
        ConfigError: options that cannot be, or files that cannot be read.
        MissingDependency: the search's packages are not installed.
    """
    ENVS["webshop"].require()
    if data is None:
        return generated(products=PRODUCTS if products is None else products, seed=catalog_seed)
    from .original_files import load

    return load(path_of(data), products=products, seed=catalog_seed, human_goals=human_goals)


class WebShopEnv:
    """WebShop behind the text environment's door, with exact snapshots.

    Description:
        A shop with thousands of products. A customer's instruction says what is wanted, what it must be or have, which
        options to choose and what it may cost.
    Action space:
        Text with ``search[keywords]`` or ``click[…]`` of something that can be clicked on the page, case ignored
        (`read_action`). As in the original, a search is possible from every page.
    Observation space:
        Text: the page. With ``observation_mode="text"`` its texts are joined by `` [SEP] ``, with "text_rich" each has
        a line and what can be clicked, or was, is marked.
    Starting state:
        The search page, with the instruction of ``options["goal"]`` (a number, counted from 0, of the catalogue that
        ``options["catalog"]`` names), else of one drawn by the seed.
    Reward:
        At "Buy Now" the published score, 0 to 1 (`leafe_graph.envs.webshop.reward.reward`); 0 before.
    Episode end:
        Terminated by "Buy Now"; a success if the score is 1.
    Info:
        ``valid`` (False: not understood, or not to be clicked here; the page stays), ``admissible`` (on the search
        page, where any keywords will do, the one search for the instruction), ``success`` and ``reward_info``, the
        parts of the score, at the end.
    Version:
        Our own implementation of the pages, rules and reward of WebShop (Yao et al. 2022, arXiv:2207.01206; public
        code princeton-nlp/WebShop of 2024). Not taken over: searches that begin with ``<r>``, ``<a>``, ``<c>`` or
        ``<q>`` list products past the search engine there; here they are words.

    Args:
        products: how many a generated catalogue has (5,000 unless told, at least 100), each with one goal; with
            ``data``, how many of the file are read (all unless told).
        catalog_seed: which catalogue is generated; with ``data``, which prices are drawn for products that have a
            range, and which limits for goals.
        data: a folder with WebShop's own files, or its file of products (`original_files.load`).
        human_goals: with ``data``, take the instructions that people wrote instead of the synthetic ones.
        observation_mode: "text" or "text_rich".
        show_attrs: whether products have a page of their attributes, which gives away much of the reward; as in the
            original, they have none unless asked for.
    """

    def __init__(
        self,
        *,
        products: int | None = None,
        catalog_seed: int = 0,
        data: str | Path | None = None,
        human_goals: bool = True,
        observation_mode: Mode = "text",
        show_attrs: bool = False,
    ) -> None:
        if observation_mode not in get_args(Mode):
            raise ConfigError(f"unknown observation_mode {observation_mode!r}: expected {', '.join(get_args(Mode))}")
        ENVS["webshop"].require()
        self._which: dict[str, Any] = {
            "products": products,
            "catalog_seed": catalog_seed,
            "data": data,
            "human_goals": human_goals,
        }
        self._mode: Mode = observation_mode
        self._show_attrs = show_attrs
        self._shop: Catalog | None = None
        self._session: Session | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Open the shop for a goal: ``options["goal"]`` of ``options["catalog"]`` if given, else drawn by the seed.

        Raises:
            ConfigError: an option that is not known, or a catalogue or goal that there is not.
        """
        seed, options = plain(seed), plain(options or {})
        if unknown := options.keys() - {"goal", "catalog"}:
            raise ConfigError(f"unknown options {sorted(unknown)}: expected goal and catalog")
        shop = self._find(options.get("catalog"))
        goal = options.get("goal", random.Random(seed).randrange(len(shop.goals)))
        if not isinstance(goal, int) or not 0 <= goal < len(shop.goals):
            raise ConfigError(f"goal {goal!r}: expected a number from 0 to {len(shop.goals) - 1}")
        self._shop, self._session = shop, Session(goal=goal, show_attrs=self._show_attrs)
        observation, admissible = self._look()
        return observation, {"admissible": admissible}

    def _find(self, name: str | None) -> Catalog:
        """The catalogue of that name, without one the one that the constructor's arguments describe."""
        if name is not None and (found := named(name) or from_name(name)):
            return found
        own = catalog(**self._which)
        if name not in (None, own.name):
            raise ConfigError(
                f"the task is of the catalogue {name!r}, this environment has {own.name!r}: make both with the same "
                "products=, catalog_seed=, data= and human_goals="
            )
        return own

    @property
    def shop(self) -> Catalog:
        """What is sold and wished for, for experts and analyses."""
        return after_reset(self._shop)

    @property
    def session(self) -> Session:
        """Where the visit stands, for experts and analyses."""
        return after_reset(self._session)

    @property
    def goal(self) -> Goal:
        """What the customer wishes for, and the product that it was made of: for experts and analyses."""
        return self.shop.goals[self.session.goal]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Search or click; what is neither, or cannot be clicked here, leaves the page as it is."""
        session, shop = self.session, self.shop
        info: dict[str, Any] = {"valid": False}
        score = 0.0
        if session.at != "done" and (known := read_action(action)):
            name, argument = known
            if name == "search":
                session.search(argument)
                info["valid"] = True
            else:
                info["valid"] = session.click(argument, shop)
            if session.at == "done":
                score, info["reward_info"] = reward(session.product(shop), self.goal, session.options)
                session.paid = score
        terminated = session.at == "done"
        if terminated:
            info["success"] = session.paid == 1
        observation, info["admissible"] = self._look()
        return observation, score, terminated, False, info

    def _look(self) -> tuple[str, list[str]]:
        """The open page, and what can be done there."""
        page = self.session.page(self.shop)
        if self.session.at == "search":
            admissible = [f"search[{self.goal.instruction}]"]
        else:
            admissible = [f"click[{name}]" for name in pages.clickable(page)]
        if self._mode == "text":
            return pages.text(page), admissible
        return pages.text_rich(page, chosen=self.session.options.values(), visited=self.session.visited), admissible

    def snapshot(self) -> bytes:
        """The visit, the catalogue's name and how pages are shown, as JSON."""
        record = {"webshop": 1, "catalog": self.shop.name, "mode": self._mode, "session": asdict(self.session)}
        return json.dumps(record).encode()

    def anchor(self) -> str:
        """What the visit's pages and score depend on: pages of the mode "text" mark no product that was opened."""
        held = asdict(self.session)
        if self._mode == "text":
            del held["visited"]
        return json.dumps(held, sort_keys=True)

    def restore(self, state: bytes) -> None:
        """Bring back what `snapshot` saved, in any instance and process.

        Raises:
            EnvError: the bytes are not a snapshot of this environment.
            ConfigError: it is of a catalogue that this environment has not.
        """
        try:
            saved = json.loads(bytes(state))
            name, mode, session = saved["catalog"], saved["mode"], Session(**saved["session"])
            if saved["webshop"] != 1:
                raise ValueError(f"version {saved['webshop']}")
        except (ValueError, KeyError, TypeError) as error:
            raise EnvError(f"not a WebShop snapshot: it begins with {bytes(state)[:40]!r}") from error
        self._shop = self._find(name)
        self._mode, self._session, self._show_attrs = mode, session, session.show_attrs

    def close(self) -> None:
        """Nothing is held: the catalogue is the process's."""


def tasks(
    split: Split,
    n: int,
    *,
    start: int = 0,
    products: int | None = None,
    catalog_seed: int = 0,
    data: str | Path | None = None,
    human_goals: bool = True,
    instruction: str = INSTRUCTION,
) -> list[Task]:
    """``n`` goals of a split, from its goal number ``start`` on; the same list every time.

    The splits are the original's: of the shuffled goals the first 500 are "test", the next 1,000 "validation", the
    rest "train". Generated goals of different splits were made of different products. The instruction tells the rules
    only: the wish itself stands on every page.

    Raises:
        ConfigError: an unknown split, options that cannot be, or fewer goals than asked for.
    """
    shop = catalog(products=products, catalog_seed=catalog_seed, data=data, human_goals=human_goals)
    return [
        {
            "id": f"webshop-{shop.name}-{split}-{number:05d}",
            "instruction": instruction,
            "options": {"goal": number, "catalog": shop.name},
        }
        for number in goal_numbers(split, n, start, goals=len(shop.goals))
    ]


def goal_numbers(split: Split, n: int, start: int, *, goals: int) -> range:
    """The numbers, counted from 0, of ``n`` of a shop's goals that belong to a split, past its first ``start``.

    Raises:
        ConfigError: an unknown split, or fewer goals than asked for.
    """
    check_split(split)
    numbers = range(goals)[SPLITS[split]]
    if n < 0 or start < 0 or start + n > len(numbers):
        raise ConfigError(
            f"asked for {n} goals of {split} from start={start} on; this shop has {goals} goals, of which "
            f"{len(numbers)} are {split}: a shop with more products has more"
        )
    return numbers[start : start + n]


def expert(task: Task) -> list[str]:
    """The reference buyer's actions (`leafe_graph.envs.webshop.buyer`).

    Raises:
        ConfigError: the task's catalogue is not in this process, or nothing in it pays in full.
    """
    env = WebShopEnv()
    env.reset(seed=task.get("seed"), options=task.get("options"))
    return buy(env.shop, env.goal)
