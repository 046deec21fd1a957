"""The reference buyer: knows what the reward will be, but finds its way through the pages as anybody must."""

from collections.abc import Iterator, Mapping

from leafe_graph.errors import ConfigError

from .pages import PER_PAGE
from .products import Catalog, Goal, Product
from .reward import option_matches, reward


def buy(catalog: Catalog, goal: Goal) -> list[str]:
    """The actions that search, turn pages, open a product, pick its options and buy it, for the full reward.

    It searches for the instruction's words; where these find nothing that pays in full, for shorter wordings, at last
    for the title. It takes the first product in the order of the results that pays in full.

    Raises:
        ConfigError: no product that it can find pays in full.
    """
    for keywords in _searches(goal):
        for rank, asin in enumerate(catalog.search(keywords)):
            product = catalog.by_asin[asin]
            options = pick(product, goal)
            if reward(product, goal, options)[0] == 1:
                turns = ["click[next >]"] * (rank // PER_PAGE)
                picks = [f"click[{value}]" for value in options.values()]
                return [f"search[{keywords}]", *turns, f"click[{asin.lower()}]", *picks, "click[buy now]"]
    raise ConfigError(f"no product pays in full for the goal {goal.instruction!r}; another task has one")


def _searches(goal: Goal) -> Iterator[str]:
    values = [wanted if isinstance(wanted, str) else wanted[1] for wanted in goal.wanted]
    yield goal.instruction.lower().partition(", and price lower than")[0]
    yield " ".join([goal.query, *goal.attributes, *values])
    yield " ".join([goal.query, *goal.attributes])
    yield goal.name.lower()


def pick(product: Product, goal: Goal) -> Mapping[str, str]:
    """A product's options that fit a goal best: an equal value where there is one, else one that the reward takes."""
    picked: dict[str, str] = {}
    for wanted in goal.wanted:
        text = wanted if isinstance(wanted, str) else wanted[1]
        fitting = [
            (value != text, name, value)
            for name, values in product.options.items()
            for value in values
            if name not in picked and option_matches(value, wanted)
        ]
        if fitting:
            _, name, value = min(fitting, key=lambda found: found[0])
            picked[name] = value
    return picked
