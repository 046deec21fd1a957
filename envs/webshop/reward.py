"""WebShop's reward, as published (Yao et al. 2022, section 2.3 and appendix A.5, and the public code).

``r = r_type · (matched attributes + matched options + [price ≤ limit]) / (attributes + options + 1)``

Two things are not the original's to the letter. Fuzzy ratios are rapidfuzz's, rounded to whole numbers, which is what
thefuzz answers since its version 0.20; the original pins 0.19, whose ratios may differ by a few points. And the nouns
of a title come from `nouns`, a rule of thumb, where the original asks spaCy's model ``en_core_web_sm``.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from .products import Goal, Product

_COLORS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel "
    "camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry "
    "cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey "
    "heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight "
    "mint mocha multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow "
    "red rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal "
    "tiger turquoise violet walnut wheat white wine yellow"
).split()
"""The published list, in its order: the first one that occurs in an option's value stands for it."""

_NO_NOUNS = frozenset(
    "a an and are as at be by for from fits if in into is it its more most new no non not of off on or our per so than "
    "that the their this to up us we with without you your all any best better big both bright casual classic clean "
    "clear comfortable comfy compatible cool cozy cute daily deep double dry easy elegant extra fast fine flat free "
    "fresh full fun genuine good great hard heavy high hot huge ideal large light long loose low lightweight mini mid "
    "modern multi natural nice official old one only organic original outdoor perfect plus portable premium pure quick "
    "real regular rich round safe sexy sharp short simple single skinny slim small smart smooth soft solid special "
    "strong super sweet tall thick thin three tight tiny true two ultra unique universal vintage warm wide wild young "
    "assorted indoor inner outer upgraded lasting made make makes making get keep use using used wear".split()
)
"""Words of titles that are seldom nouns, beside the colours and what `_ENDINGS` catches."""

_ENDINGS = re.compile(r".{3,}(?:able|ible|ous|less|ful|proof|ish|ly|[^e]ed|ive|ic)")
_WORD = re.compile(r"[^\W\d_]{2,}")


@lru_cache(maxsize=65_536)
def nouns(title: str) -> tuple[str, ...]:
    """The words of a title that are taken for nouns, lower-cased, in order, repeated ones repeatedly.

    In titles spaCy's tagger calls nearly every word a noun or a name, so what is left out is a list of common function
    words and adjectives, colours, some endings of adjectives, and whatever has a digit in it.
    """
    words = (word for token in re.split(r"[\s\-/,|]+", title.lower()) for word in _plain(token))
    return tuple(w for w in words if w not in _NO_NOUNS and w not in _COLORS and not _ENDINGS.fullmatch(w))


def _plain(token: str) -> list[str]:
    """The words of a token; none where it has digits in it, and without a possessive's s."""
    return [] if any(c.isdigit() for c in token) else _WORD.findall(re.sub(r"['’]s?\b", "", token))


def normal_color(value: str) -> str:
    """The first colour of the published list that occurs anywhere in the value, else the value."""
    return next((color for color in _COLORS if color in value), value)


def option_matches(value: str, wanted: str | tuple[str, str]) -> bool:
    """Whether a chosen option's value is what a goal asks for: a value, or a pair of name and value.

    Of a pair, as in the original, name and value are compared as one text, unless one of them is just a colour.
    """
    if isinstance(wanted, tuple):
        goal = next((color for color in _COLORS if color in wanted), " ".join(wanted))
    else:
        goal = normal_color(wanted)
    return _alike(normal_color(value), goal)


def _alike(a: str, b: str) -> bool:
    from rapidfuzz.fuzz import token_set_ratio
    from rapidfuzz.utils import default_process

    return round(token_set_ratio(a, b, processor=default_process)) > 85


def type_reward(product: Product, goal: Goal) -> dict[str, Any]:
    """``r_type`` and what it comes from: is this the kind of product that was asked for?"""
    query_match = product.query == goal.query
    shared = _categories(product.product_category) & _categories(goal.product_category)
    wanted = nouns(goal.name)
    title_score = len(set(nouns(product.title)) & set(wanted)) / len(wanted) if wanted else 0.2
    if title_score == 0:
        r_type = 0.0
    elif title_score < 0.1:
        r_type = 0.1
    else:
        r_type = 1.0 if query_match or len(shared) >= 2 or title_score > 0.2 else 0.5
    return {
        "r_type": r_type,
        "query_match": query_match,
        "category_match": len(shared) >= 2,
        "title_score": title_score,
    }


def _categories(path: str) -> set[str]:
    return {part.strip() for part in path.split("›")}


def attribute_matches(product: Product, attributes: Iterable[str]) -> int:
    """How many of a goal's attributes a product has: among its own, or as a text in title, features or description."""
    texts = (product.title.lower(), " ".join(product.features).lower(), product.description.lower())
    return sum(
        any(_alike(own, wanted) for own in product.attributes) or any(wanted in text for text in texts)
        for wanted in attributes
    )


def option_matches_count(chosen: Iterable[str], goal: Goal) -> int:
    """How many of a goal's options are among the chosen values."""
    chosen = list(chosen)
    return sum(any(option_matches(value, wanted) for value in chosen) for wanted in goal.wanted)


def reward(product: Product, goal: Goal, options: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
    """What buying ``product`` with ``options`` (name to value) pays for ``goal``, 0 to 1, and its parts.

    The parts have the original's names: ``r_type``, ``query_match``, ``category_match``, ``title_score``; ``r_att``,
    ``r_option`` (absent for a goal without options) and ``r_price`` with their weights ``w_att``, ``w_option``,
    ``w_price``.
    """
    total = len(goal.attributes) + len(goal.wanted) + 1
    attributes = attribute_matches(product, goal.attributes)
    chosen = option_matches_count(options.values(), goal)
    price = product.price <= goal.price_upper
    parts = type_reward(product, goal)
    parts |= {"r_att": attributes / len(goal.attributes), "w_att": len(goal.attributes) / total}
    if goal.wanted:
        parts |= {"r_option": chosen / len(goal.wanted), "w_option": len(goal.wanted) / total}
    parts |= {"r_price": price, "w_price": 1 / total}
    return parts["r_type"] * (attributes + chosen + price) / total, parts
