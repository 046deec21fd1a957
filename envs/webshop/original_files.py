"""WebShop's own files, read into the same shop.

Wanted are, in one folder, ``items_shuffle.json`` (the products) and ``items_ins_v2.json`` (their attributes and
synthetic instructions), or both with ``_1000`` in their names, and for the instructions that people wrote
``items_human_ins.json``. They come with the original code's setup script.

Products and goals are made of the records as the original does, in the same order: the goals are shuffled by the same
seed, so goal 17 is the original's goal 17. Only what the original draws anew in each process is drawn by a seed here:
prices of products that have a range, and the goals' limits.
"""

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leafe_graph.env.common import plain, read_json, stamp
from leafe_graph.errors import ConfigError
from leafe_graph.files import path_of

from .products import Catalog, Goal, Product, digest, limit_text, price_limit, shared

_SHUFFLE = 233
"""The seed with which the original shuffles its goals."""
_Record = dict[str, Any]


def load(path: Path, *, products: int | None, seed: int, human_goals: bool) -> Catalog:
    """The catalogue of a folder with WebShop's files, or of its file of products; read once unless they change.

    Args:
        path: the folder, or the file of products with the others beside it.
        products: how many records are read; None for all.
        seed: of prices and limits.
        human_goals: goals out of ``items_human_ins.json`` instead of the synthetic ones.

    Raises:
        ConfigError: a file is missing, is not JSON or lacks what is needed, or there are no goals.
    """
    path = path_of(path).resolve()
    file = _products_file(path)
    stamps = [stamp(each) for each in _files(file) if each.is_file()]
    return shared((file, *stamps, products, seed, human_goals), lambda: _load(file, products, seed, human_goals))


def _products_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    names = ("items_shuffle.json", "items_shuffle_1000.json")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ConfigError(f"{path}: expected {' or '.join(names)} in it, as WebShop's setup script downloads them")


def _files(file: Path) -> tuple[Path, Path, Path]:
    """The file of products, that of their attributes, and that of the instructions that people wrote."""
    folder, suffix = file.parent, file.stem.removeprefix("items_shuffle")
    return file, folder / f"items_ins_v2{suffix}.json", folder / "items_human_ins.json"


def _load(file: Path, number: int | None, seed: int, human_goals: bool) -> Catalog:
    folder, (_, attributes, people) = file.parent, _files(file)
    described = _read(attributes)
    written = _read(people) if human_goals else {}
    draw = random.Random(plain(seed))
    products: dict[str, Product] = {}
    for place, record in enumerate(_read(file)[:number]):
        try:
            asin = record["asin"]
            if asin != "nan" and len(asin) <= 10 and asin not in products:
                products[asin] = _product(record, described.get(asin, {}).get("attributes"), draw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{file}, record {place} (counted from 0): {type(error).__name__} {error}") from error
    goals: list[Goal] = []
    for product in products.values():
        try:
            if human_goals:
                goals += _human_goals(product, written.get(product.asin, ()), draw)
            else:
                goals += _synthetic_goals(product, described.get(product.asin, {}), draw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{folder}, instructions of product {product.asin}: {type(error).__name__} {error}"
            ) from error
    if not goals:
        kind = "human" if human_goals else "synthetic"
        raise ConfigError(f"{file}: no {kind} instruction belongs to any of its {len(products)} products")
    random.Random(_SHUFFLE).shuffle(goals)
    found = list(products.values())
    return Catalog(f"data-{digest(found, goals)}", found, goals)


def _read(file: Path) -> Any:
    try:
        return read_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist; WebShop's setup script downloads it") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _product(record: _Record, attributes: Sequence[str] | None, draw: random.Random) -> Product:
    """A product out of a record of ``items_shuffle``."""
    features = record["small_description"]
    price, tag = _price(record.get("pricing"), draw)
    options = {
        name.lower(): tuple(content["value"].strip().replace("/", " | ").lower() for content in contents)
        for name, contents in (record["customization_options"] or {}).items()
        if contents is not None
    }
    return Product(
        asin=record["asin"],
        title=record["name"],
        description=record["full_description"] or "",
        features=tuple(features) if isinstance(features, list) else (features or "",),
        attributes=("DUMMY_ATTR",) if attributes is None else tuple(attributes),
        options=options,
        price=price,
        price_tag=tag,
        category=record["category"],
        query=record["query"].lower().strip(),
        product_category=record["product_category"],
    )


def _price(pricing: str | None, draw: random.Random) -> tuple[float, str]:
    """A price and its tag out of a text such as ``$5.99$12.99``."""
    prices = [float(re.sub(r"[^\d.]", "", text)) for text in (pricing or "").split("$")[1:]]
    if not prices:
        return 100.0, "$100.0"
    if len(prices) == 1:
        return prices[0], f"${prices[0]}"
    return draw.uniform(*prices[:2]), f"${prices[0]} to ${prices[1]}"


def _human_goals(product: Product, written: Sequence[_Record], draw: random.Random) -> Iterator[Goal]:
    for record in written:
        if record["instruction_attributes"]:
            limit = price_limit(draw, product.price)
            options = record["instruction_options"]
            yield _goal(
                product,
                record["instruction"].strip(".") + limit_text(limit),
                record["instruction_attributes"],
                tuple(options.items()) if isinstance(options, Mapping) else tuple(options),
                limit,
            )


def _synthetic_goals(product: Product, described: _Record, draw: random.Random) -> Iterator[Goal]:
    """One for every combination of the product's options."""
    if described.get("instruction") is None or not described.get("instruction_attributes"):
        return
    limit = price_limit(draw, product.price)
    names = sorted(product.options)
    for values in itertools.product(*(product.options[name] for name in names)):
        wanted = tuple(zip(names, values, strict=True))
        text = ", and ".join(f"{name}: {value}" for name, value in wanted)
        instruction = described["instruction"] + (f" with {text}" if text else "") + limit_text(limit)
        yield _goal(product, instruction, described["instruction_attributes"], wanted, limit)


def _goal(
    product: Product,
    instruction: str,
    attributes: Sequence[str],
    wanted: tuple[str | tuple[str, str], ...],
    limit: float,
) -> Goal:
    return Goal(
        asin=product.asin,
        instruction=instruction,
        name=product.title,
        query=product.query,
        product_category=product.product_category,
        attributes=tuple(attributes),
        wanted=wanted,
        price_upper=limit,
    )
