"""What a shop sells and what its customers wish for: products, goals, and a search over them.

A `Catalog` never changes, so all environments of a process share one. Its name says where it comes from:
``generated1-0-5000`` can be made again anywhere; ``data-…`` is a digest of a user's own files.
"""

import hashlib
import logging
import random
import re
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..catalog import ENVS

RESULTS = 50
"""Hits that a search returns at most, as in the original."""

_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
"""Lucene's English stop words, which the original's index leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something that can be bought."""

    asin: str
    """Its number: ten capital letters and digits."""
    title: str
    description: str
    features: tuple[str, ...]
    attributes: tuple[str, ...]
    """What it is or has; shown on a page of its own where that is asked for, else only what the texts say of it."""
    options: Mapping[str, tuple[str, ...]]
    """Name to values, such as ``{"color": ("black", "dark blue")}``."""
    price: float
    """In dollars; what the reward compares."""
    price_tag: str
    """What the pages show: ``$12.99``, or a range."""
    category: str
    query: str
    """The search term under which it is listed."""
    product_category: str
    """Its place in the tree of categories, parts separated by ``›``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a customer wishes for, with the product that it was made of."""

    asin: str
    instruction: str
    name: str
    """The title of the product."""
    query: str
    product_category: str
    attributes: tuple[str, ...]
    wanted: tuple[str | tuple[str, str], ...]
    """Options: values, or pairs of name and value."""
    price_upper: float
    """In dollars."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """Products, goals and the search."""

    name: str
    products: Sequence[Product]
    goals: Sequence[Goal]
    by_asin: Mapping[str, Product] = field(init=False, repr=False)
    search: Callable[[str], tuple[str, ...]] = field(init=False, repr=False)
    """The numbers of the at most 50 products that match some words best, best first; thread-safe."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_asin", {product.asin: product for product in self.products})
        object.__setattr__(self, "search", lru_cache(maxsize=10_000)(_index(self.products)))


def price_limit(draw: random.Random, price: float) -> float:
    """The larger of two of the next four multiples of ten dollars below 1,000; 1,000,000 where fewer than two are."""
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    return max(draw.sample(above, 2)) if len(above) >= 2 else 1_000_000


def limit_text(limit: float) -> str:
    """How an instruction ends."""
    return f", and price lower than {limit:.2f} dollars" if limit < 1_000_000 else ""


def digest(products: Sequence[Product], goals: Sequence[Goal]) -> str:
    """A short name for a content."""
    content = hashlib.sha256()
    for record in (*products, *goals):
        content.update(repr(record).encode(errors="replace"))
    return content.hexdigest()[:12]


_catalogs: dict[Hashable, Catalog] = {}
_lock = threading.Lock()


def shared(key: Hashable, make: Callable[[], Catalog]) -> Catalog:
    """The catalogue of this process for a key, made when it is asked for first."""
    with _lock:
        if key not in _catalogs:
            _catalogs[key] = make()
        return _catalogs[key]


def named(name: str) -> Catalog | None:
    """A catalogue of this process by its name."""
    with _lock:
        return next((catalog for catalog in _catalogs.values() if catalog.name == name), None)


def _words(text: str) -> list[str]:
    """Lower-cased words without stop words and, as far as three rules go (Harman 1991), without a plural's s."""
    return [_singular(word) for word in re.findall(r"\w+", text.lower()) if word not in _STOP_WORDS]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies") and word[-4] not in "ea":
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "us" else word


def _index(products: Sequence[Product]) -> Callable[[str], tuple[str, ...]]:
    """BM25 over what the original indexes (title, description, first feature, options), with its parameters.

    The original searches with Lucene through Pyserini: k1 = 0.9, b = 0.4. Its stemmer is Porter's, ours knows plurals.
    """
    ENVS["webshop"].require()
    import bm25s
    import numpy as np

    logging.getLogger("bm25s").setLevel(logging.INFO)  # its import asks for more
    engine: Any = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    engine.index([_words(_document(product)) for product in products], show_progress=False)
    asins = [product.asin for product in products]

    def search(keywords: str) -> tuple[str, ...]:
        words = engine.get_tokens_ids(_words(keywords))
        if not words:
            return ()
        scores = engine.get_scores_from_ids(words)
        if len(scores) > RESULTS:
            least = max(np.partition(scores, -RESULTS)[-RESULTS], np.finfo(scores.dtype).tiny)
            hits = np.flatnonzero(scores >= least)
        else:
            hits = np.flatnonzero(scores)
        best = hits[np.argsort(-scores[hits], kind="stable")][:RESULTS]
        return tuple(asins[hit] for hit in best)

    return search


def _document(product: Product) -> str:
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return f"{product.title} {product.description} {product.features[0] if product.features else ''} {options}"
