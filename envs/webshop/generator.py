"""A catalogue out of a seed: products whose titles overlap, each with a goal that was made of it.

As in the original, a goal takes some attributes, a value of most options, and a price limit that is the larger of two
of the next four multiples of ten dollars above the product's price. A third of a product's attributes stands in its
title, the rest in its features and description, so that a title alone does not say whether a product fits.
"""

import random
import string
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from leafe_graph.errors import ConfigError

from .products import Catalog, Goal, Product, limit_text, price_limit, shared

VERSION = 1
"""Raised whenever the same seed gives another catalogue."""
PREFIX = f"generated{VERSION}"


class _Kind(NamedTuple):
    """A kind of product."""

    query: str
    category: str
    group: str
    path: str
    nouns: Sequence[str]
    dollars: tuple[float, float]
    options: Sequence[str]


class _Words(NamedTuple):
    """The tables of ``words.toml``."""

    brands: Sequence[str]
    options: Mapping[str, Sequence[str]]
    shown: Mapping[str, str]
    wishes: Mapping[str, str]
    attributes: Mapping[str, Sequence[str]]
    uses: Mapping[str, Sequence[str]]
    kinds: Sequence[_Kind]


@cache
def _words() -> _Words:
    text = (files(__package__) / "words.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    lists = {
        name: {key: _list(value) for key, value in table[name].items()} for name in ("options", "attributes", "uses")
    }
    kinds = [_Kind(**kind | {key: _list(kind[key]) for key in ("nouns", "options")}) for kind in table["kinds"]]
    return _Words(_list(table["brands"]), shown=table["shown"], wishes=table["wishes"], kinds=kinds, **lists)


def _list(text: str) -> list[str]:
    return [" ".join(item.split()) for item in text.split(",")]


def generated(*, products: int, seed: int) -> Catalog:
    """The catalogue of a seed, made once a process.

    Raises:
        ConfigError: fewer than 100 products.
    """
    if products < 100:
        raise ConfigError(f"products={products}: expected at least 100, so that there is something to search")
    name = f"{PREFIX}-{seed}-{products}"
    return shared(name, lambda: _generate(name, products, seed))


def from_name(name: str) -> Catalog | None:
    """The generated catalogue of that name; None where it is not such a name."""
    prefix, _, numbers = name.partition("-")
    seed, _, products = numbers.rpartition("-")
    if prefix != PREFIX or not products.isdecimal() or not seed.removeprefix("-").isdecimal():
        return None
    return generated(products=int(products), seed=int(seed))


def _generate(name: str, number: int, seed: int) -> Catalog:
    kinds = _words().kinds
    products: list[Product] = []
    goals: list[Goal] = []
    asins: set[str] = set()
    for i in range(number):
        draw = random.Random(f"webshop {seed} {i}")
        asin = _asin(draw)
        while asin in asins:
            asin = _asin(draw)
        asins.add(asin)
        product, goal = _product(draw, kinds[i % len(kinds)], asin)
        products.append(product)
        goals.append(goal)
    random.Random(f"webshop {seed}").shuffle(goals)
    return Catalog(name, products, goals)


def _asin(draw: random.Random) -> str:
    return "B0" + "".join(draw.choices(string.ascii_uppercase + string.digits, k=8))


def _product(draw: random.Random, kind: _Kind, asin: str) -> tuple[Product, Goal]:
    words = _words()
    brand = draw.choice(words.brands)
    noun = draw.choice(kind.nouns)
    use = draw.choice(words.uses[kind.group])
    marked = draw.sample(words.attributes[kind.group], draw.randint(3, 6))
    attributes = tuple(text.removeprefix("+") for text in marked)
    told = [text for text in attributes if draw.random() < 1 / 3]
    options = {option: _values(draw, option) for option in kind.options if draw.random() < 0.85}
    title = f"{brand} {noun} {use.title()}"
    title += "".join(f", {text.title()}" for text in told)
    if options and draw.random() < 0.4:
        title += f" - {draw.choice(draw.choice(list(options.values()))).title()}"
    price, tag = _price(draw, *kind.dollars)
    product = Product(
        asin=asin,
        title=title,
        description=_description(draw, brand, kind, use, attributes),
        features=_features(draw, kind, use, attributes),
        attributes=attributes,
        options={words.shown.get(option, option): values for option, values in options.items()},
        price=price,
        price_tag=tag,
        category=kind.category,
        query=kind.query,
        product_category=kind.path,
    )
    asked = draw.sample(marked, draw.choice((1, 1, 2, 2, 3)))
    wanted = {option: draw.choice(values) for option, values in options.items() if draw.random() < 0.85}
    limit = price_limit(draw, price)
    goal = Goal(
        asin=asin,
        instruction=_instruction(draw, kind, use, asked, wanted) + limit_text(limit),
        name=title,
        query=kind.query,
        product_category=kind.path,
        attributes=tuple(text.removeprefix("+") for text in asked),
        wanted=tuple(wanted.values()),
        price_upper=limit,
    )
    return product, goal


def _values(draw: random.Random, option: str) -> tuple[str, ...]:
    """Some neighbouring or, of colours and tastes, some values of any kind."""
    values = _words().options[option]
    number = draw.randint(2, min(8, len(values)))
    if option in ("color", "flavor", "scent", "shade", "style"):
        return tuple(draw.sample(values, number))
    first = draw.randint(0, len(values) - number)
    return tuple(values[first : first + number])


def _price(draw: random.Random, low: float, high: float) -> tuple[float, str]:
    """A price and its tag. One in ten is a range; then, as in the original, the price is drawn from it unseen."""
    price = round(low * (high / low) ** draw.random(), 2)
    if draw.random() < 0.1:
        top = round(price * (1.2 + draw.random()), 2)
        return round(draw.uniform(price, top), 2), f"${price} to ${top}"
    return price, f"${price}"


def _description(draw: random.Random, brand: str, kind: _Kind, use: str, attributes: Sequence[str]) -> str:
    first = draw.choice(
        (
            f"The {brand} {kind.query} was made {use}.",
            f"Meet the {kind.query} by {brand}, a good choice {use}.",
            f"{brand} brings you a {kind.query} {use}.",
        )
    )
    last = draw.choice(
        (
            "If anything is wrong with your order, write to us and we will make it right.",
            "Please check the options before you order.",
            "It comes in a plain box and makes a nice gift.",
            "Colors may look different on your screen.",
        )
    )
    return f"{first} Good to know: {draw.choice(attributes)}. {last}"


def _features(draw: random.Random, kind: _Kind, use: str, attributes: Sequence[str]) -> tuple[str, ...]:
    features = [
        draw.choice(
            (
                f"{text.title()}: you will notice it every day.",
                f"{text.capitalize()}, as our customers ask for.",
                f"What sets our {kind.query} apart: {text}.",
            )
        )
        for text in attributes
    ]
    features.append(f"Made {use}.")
    draw.shuffle(features)
    return tuple(features)


def _instruction(draw: random.Random, kind: _Kind, use: str, asked: Sequence[str], wanted: dict[str, str]) -> str:
    """A wish in a customer's words, without the price."""
    opening = draw.choice(("i am looking for", "i need", "find me", "i want to buy", "i would like", "show me"))
    is_so = [text for text in asked if not text.startswith("+")]
    has = [text[1:] for text in asked if text.startswith("+")]
    plural = kind.query.endswith("s")
    words = kind.query
    if is_so and draw.random() < 0.5:
        words = f"{is_so.pop(0)} {words}"
    if not plural and kind.category != "grocery":
        words = f"{'an' if words.startswith(('a', 'e', 'i', 'o', 'ul')) else 'a'} {words}"
    if draw.random() < 0.5:
        words += f" {use}"
    if is_so:
        words += f" that {'are' if plural else 'is'} {' and '.join(is_so)}"
    if has:
        words += f" with {' and '.join(has)}"
    for option, value in wanted.items():
        words += f", {_words().wishes[option].format(value)}"
    return f"{opening} {words}"
