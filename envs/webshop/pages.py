"""WebShop's pages as the original's text environment shows them: what is written, and what can be clicked.

A page is a list of pieces in the order of the original's HTML. Mode "text" puts ``[SEP]`` between them, "text_rich"
writes each on a line and marks what can be clicked and what has been.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from .products import Product

PER_PAGE = 10
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
BACK, PREV, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"

_ESCAPED = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&'"})
"""As Jinja writes JSON into HTML."""

Kind = Literal["text", "button", "product", "option"]


class Piece(NamedTuple):
    """A visible text."""

    text: str
    kind: Kind = "text"
    name: str = ""
    """Of an option: the name of which this is a value."""


Page = Sequence[Piece]


def _buttons(*texts: str) -> list[Piece]:
    return [Piece(text, "button") for text in texts]


def _head(instruction: str) -> list[Piece]:
    return [Piece("Instruction:"), Piece(instruction), *_buttons(BACK)]


def search_page(instruction: str) -> Page:
    """Where an episode starts."""
    return [Piece("WebShop"), Piece("Instruction: "), Piece(instruction), *_buttons("Search")]


def results_page(instruction: str, hits: Sequence[Product], number: int) -> Page:
    """Ten of the products that were found; ``number`` counts from 1 and may go past the last one."""
    page = [*_head(instruction), Piece(f"Page {number} (Total results: {len(hits)})")]
    page += _buttons(PREV, NEXT) if number > 1 else _buttons(NEXT)
    for product in hits[(number - 1) * PER_PAGE : number * PER_PAGE]:
        page += [Piece(product.asin, "product"), Piece(product.title), Piece(product.price_tag)]
    return page


def item_page(instruction: str, product: Product, *, show_attrs: bool) -> Page:
    """A product with its options."""
    page = [*_head(instruction), *_buttons(PREV)]
    for name, values in product.options.items():
        page += [Piece(name), *(Piece(value, "option", name) for value in values)]
    page += [Piece(product.title), Piece(f"Price: {product.price_tag}"), Piece("Rating: N.A.")]
    return page + _buttons(*(SUB_PAGES if show_attrs else SUB_PAGES[:3]), BUY)


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """One of `SUB_PAGES`. There are no reviews, since the original's text environment loads none."""
    texts: Iterable[str] = ()
    if name == "Description":
        texts = [product.description]
    elif name == "Features":
        texts = [f" {text}" for text in product.features]
    elif name == "Attributes":
        texts = [f" {text}" for text in product.attributes]
        texts = [*texts, product.category, product.query, product.product_category]
    return [*_head(instruction), *_buttons(PREV), *(Piece(text) for text in texts)]


def done_page(asin: str, options: Mapping[str, str], reward: float) -> Page:
    """What follows "Buy Now"; the code and the many fields without a value are the original's."""
    texts = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"]
    texts += [
        "Purchased",
        "asin",
        asin,
        "options",
        json.dumps(options, sort_keys=True).translate(_ESCAPED),
        "attrs",
        "None",
        "category",
        "None",
    ]
    texts += ["query", "None", "product category", "None", "Target", "asin", "options", "attrs", "price upper"]
    texts += ["instuction text", "category", "product category", "query", "Goal ", "None", "Reward"]
    texts += ["Your score (min 0.0, max 1.0)", str(reward), "Reward Details ", "None"]
    return [Piece(text) for text in texts]


def text(page: Page) -> str:
    """Mode "text"."""
    return " [SEP] ".join(piece.text.strip() for piece in page if piece.text.strip())


def text_rich(page: Page, *, chosen: Collection[str], visited: Collection[str]) -> str:
    """Mode "text_rich": ``chosen`` are values of options, ``visited`` numbers of products."""
    head = ""
    lines = ""
    for piece in page:
        if not piece.text.strip():
            continue
        clicked = piece.text in (chosen if piece.kind == "option" else visited)
        mark = "clicked button" if clicked else "button"
        if piece.kind == "text":
            lines += piece.text
        else:
            before = {"button": "", "option": "  ", "product": "\n"}[piece.kind]
            lines += f"{before}[{mark}] {piece.text} [{mark}_]"
        if clicked and piece.kind == "option":
            head = f"You have clicked {piece.text}.\n{head}"
        lines += "\n"
    return head + lines


def clickable(page: Page) -> dict[str, Piece]:
    """What can be clicked, by what is to be said; the search page's button only goes with keywords."""
    found = {piece.text.lower(): piece for piece in page if piece.kind in ("button", "product")}
    return {name: piece for name, piece in found.items() if name != "search"} | {
        piece.text: piece for piece in page if piece.kind == "option"
    }
