"""A visit to the shop: which page is open, and what searching and clicking do. The flow is the original's."""

from dataclasses import dataclass, field

from . import pages
from .pages import BACK, BUY, NEXT, PREV, SUB_PAGES, Page
from .products import Catalog, Product

_BUTTONS = {text.lower(): text for text in (BACK, PREV, NEXT, BUY, *SUB_PAGES)}


@dataclass(kw_only=True)
class Session:
    """Everything that a visit depends on, beside the catalogue."""

    goal: int
    """The goal's number in the catalogue, counted from 0."""
    show_attrs: bool = False
    """Whether products have a page of their attributes."""
    at: str = "search"
    """The page: "search", "results", "item", "done", or one of `SUB_PAGES`."""
    keywords: str = ""
    number: int = 0
    """Of the page of results, counted from 1."""
    asin: str = ""
    """The product whose page was opened last."""
    visited: list[str] = field(default_factory=list)
    """Products that were opened since the visit began or went back to the search, sorted."""
    options: dict[str, str] = field(default_factory=dict)
    """What was chosen of the open product's options."""
    paid: float = 0.0
    """The score, once something was bought."""

    def product(self, shop: Catalog) -> Product:
        """The product whose page was opened last."""
        return shop.by_asin[self.asin]

    def page(self, shop: Catalog) -> Page:
        """The open page."""
        instruction = shop.goals[self.goal].instruction
        if self.at == "search":
            return pages.search_page(instruction)
        if self.at == "results":
            hits = [shop.by_asin[asin] for asin in shop.search(self.keywords)]
            return pages.results_page(instruction, hits, self.number)
        if self.at == "item":
            return pages.item_page(instruction, self.product(shop), show_attrs=self.show_attrs)
        if self.at == "done":
            return pages.done_page(self.asin, self.options, self.paid)
        return pages.sub_page(instruction, self.product(shop), self.at)

    def search(self, keywords: str) -> None:
        """Show what is found; as in the original, possible from every page."""
        self.keywords, self.number = keywords, 1
        self._to_results()

    def _to_results(self) -> None:
        self.at, self.asin, self.options = "results", "", {}

    def click(self, text: str, shop: Catalog) -> bool:
        """Click on something, in lower case; False, and nothing changes, where the page has no such thing."""
        piece = pages.clickable(self.page(shop)).get(text)
        if piece is None:
            return False
        button = _BUTTONS.get(text, "")
        if button == BACK:
            self.__init__(goal=self.goal, show_attrs=self.show_attrs)  # type: ignore[misc]
        elif button == BUY:
            self.at = "done"
        elif button == NEXT:
            self.number += 1
        elif button == PREV and self.at == "results":
            self.number -= 1
        elif button == PREV and self.at == "item":
            self._to_results()
        elif button in SUB_PAGES:
            self.at = button
        else:
            self.at = "item"
            if piece.kind == "product":
                self.asin = piece.text
                self.visited = sorted({*self.visited, piece.text})
            elif piece.kind == "option":
                self.options[piece.name] = piece.text
        return True
