"""WebShop's reward on worked examples; the sums are done in the comments."""

from typing import Any

import needs
import pytest

from leafe_graph.envs.webshop.buyer import buy, pick
from leafe_graph.envs.webshop.products import Catalog, Goal, Product
from leafe_graph.envs.webshop.reward import normal_color, nouns, option_matches, reward, type_reward
from leafe_graph.errors import ConfigError

pytestmark = needs.world("webshop")


def product(**changes: Any) -> Product:
    """A lamp."""
    record: dict[str, Any] = {
        "asin": "B000000001",
        "title": "Yarrow Table Lamp",
        "description": "Good light for your desk, with a bronze finish.",
        "features": ("Dimmable.", "Comes with two bulbs."),
        "attributes": ("energy saving", "easy to install"),
        "options": {"color": ("dark blue", "black"), "style": ("single", "set of 2")},
        "price": 25.0,
        "price_tag": "$25.0",
        "category": "garden",
        "query": "table lamp",
        "product_category": "Home › Lighting › Lamps",
    }
    return Product(**record | changes)


def goal(**changes: Any) -> Goal:
    """A wish for the lamp."""
    record: dict[str, Any] = {
        "asin": "B000000001",
        "instruction": "find me a table lamp",
        "name": "Yarrow Table Lamp",
        "query": "table lamp",
        "product_category": "Home › Lighting › Lamps",
        "attributes": ("energy saving", "bronze finish"),
        "wanted": ("navy blue", "set of 2"),
        "price_upper": 30.0,
    }
    return Goal(**record | changes)


def test_everything_right_pays_one() -> None:
    """(2 attributes + 2 options + price) / (2 + 2 + 1) = 1: one attribute is the product's, one is in a text."""
    paid, parts = reward(product(), goal(), {"color": "dark blue", "style": "set of 2"})
    assert paid == 1.0
    # Weights: 2/5 for attributes, 2/5 for options, 1/5 for the price. Both blues are "blue" to the reward.
    assert (parts["w_att"], parts["w_option"], parts["w_price"]) == (0.4, 0.4, 0.2)
    assert (parts["r_att"], parts["r_option"], parts["r_price"], parts["r_type"]) == (1.0, 1.0, True, 1.0)


@pytest.mark.parametrize(
    ("bought", "wish", "options", "paid"),
    [
        # No option chosen: (2 + 0 + 1) / 5.
        ({}, {}, {}, 0.6),
        # The wrong colour: (2 + 1 + 1) / 5.
        ({}, {}, {"color": "black", "style": "set of 2"}, 0.8),
        # Too dear by a cent: (2 + 2 + 0) / 5. Exactly at the limit it is not too dear: 5 / 5.
        ({"price": 30.01}, {}, {"color": "dark blue", "style": "set of 2"}, 0.8),
        ({"price": 30.0}, {}, {"color": "dark blue", "style": "set of 2"}, 1.0),
        # Neither attribute, neither option, too dear: 0 / 5.
        ({"attributes": (), "description": "", "price": 99.0}, {}, {}, 0.0),
        # "energy saver" for "energy saving": 2·10 common letters of 12 + 13, a ratio of 80, and no text has it:
        # (1 + 0 + 1) / 5.
        ({"attributes": ("energy saver",)}, {}, {}, 0.4),
        # A goal without options: (2 + 1) / (2 + 0 + 1).
        ({}, {"wanted": ()}, {}, 1.0),
        # Attributes in the features, whatever their case: "dimmable" is there, "remote control" is not: (1 + 1) / 5.
        ({}, {"attributes": ("dimmable", "remote control")}, {}, 0.4),
        # The plural is near enough: "essential oils", "essential oil": 2·13 of 14 + 13 letters, 96. 2 / 2.
        ({"attributes": ("essential oil",)}, {"attributes": ("essential oils",), "wanted": ()}, {}, 1.0),
    ],
)
def test_the_sum(bought: dict[str, Any], wish: dict[str, Any], options: dict[str, str], paid: float) -> None:
    """Attributes, options and price count one each."""
    assert reward(product(**bought), goal(**wish), options)[0] == pytest.approx(paid, abs=1e-12)


NAME = "Maple Desk Lamp Shade Bulb Cord Base Socket Switch Ring Hook"
"""Eleven nouns."""
ELSEWHERE = {"query": "sofa", "product_category": "Garden › Lamps › Covers"}
"""Another search term, and but one of the three categories, whatever its place."""


@pytest.mark.parametrize(
    ("bought", "r_type"),
    [
        # The same search term, 1 noun of 11 in common: 0.0909 < 0.1, so 0.1 in spite of the term.
        ({"title": "Tin Cord"}, 0.1),
        # 2 of 11 = 0.18, not above 0.2: the term alone makes it 1.
        ({"title": "Tin Cord Hook"}, 1.0),
        # The same without the term, one category in common: 0.5. With two in common: 1.
        (ELSEWHERE | {"title": "Tin Cord Hook"}, 0.5),
        (ELSEWHERE | {"title": "Tin Cord Hook", "product_category": "Lamps › Lighting › Cords"}, 1.0),
        # The same category twice is one.
        (ELSEWHERE | {"title": "Tin Cord Hook", "product_category": "Lamps › Lamps"}, 0.5),
        # 3 of 11 = 0.27 > 0.2: 1 on its own.
        (ELSEWHERE | {"title": "Tin Cord Hook Ring"}, 1.0),
        # No noun in common: 0, in spite of term and categories.
        ({"title": "Velvet Sofa"}, 0.0),
    ],
)
def test_the_kind_of_product(bought: dict[str, Any], r_type: float) -> None:
    """``r_type`` of the published rule, and that it multiplies the sum: (2 + 2 + 1) / 5 · r_type."""
    lamp = product(**bought)
    wish = goal(name=NAME)
    assert type_reward(lamp, wish)["r_type"] == r_type
    paid, _ = reward(lamp, wish, {"color": "dark blue", "style": "set of 2"})
    assert paid == pytest.approx(r_type, abs=1e-12)


def test_a_title_without_nouns_scores_two_tenths() -> None:
    """As published, which is not above 0.2: without term or categories in common, 0.5."""
    assert type_reward(product(**ELSEWHERE), goal(name="12 x 8"))["title_score"] == 0.2
    assert type_reward(product(**ELSEWHERE), goal(name="12 x 8"))["r_type"] == 0.5


@pytest.mark.parametrize(
    ("wanted", "bought", "published"),
    [
        (
            "Mens D.O.N. Issue 2 Gca Basketball Sneakers Shoes Casual - Off White",
            "PEAK High Top Mens Basketball Shoes Lou Williams Streetball Master Breathable Non Slip Outdoor Sneakers",
            0.333,
        ),
        (
            "Saireed UL Listed 2 Prong Power Cord for JBL Bar 3.1 Bar 2.1 Channel 4K Ultra HD Soundbar Home Theater "
            "System Subwoofer",
            "BRST AC Power Cord Outlet Socket Cable Plug Lead for Panasonic SC-HT830V DVD/VCR Combo Home Theater "
            "System",
            0.3,
        ),
        (
            "Saireed UL Listed 2 Prong Power Cord for JBL Bar 3.1 Bar 2.1 Channel 4K Ultra HD Soundbar",
            "BRST AC Power Cord Outlet Socket Cable Plug Lead for Panasonic SC-HT830V DVD/VCR Combo Home Theater "
            "System",
            0.15,
        ),
        (
            "Rusticware 921ORB Kitchen and Bath Cabinet Knob",
            "Minkissy 2pcs Stainless Steel Eyebrow Tweezers Blackhead Acne Remover Portable Makeup Tweezers (Silver)",
            0.0,
        ),
    ],
)
def test_our_nouns_fall_on_the_published_side_of_the_thresholds(wanted: str, bought: str, published: float) -> None:
    """The four pairs of titles whose scores by spaCy's tagger the original's tests state."""
    score = type_reward(product(title=bought), goal(name=wanted))["title_score"]
    assert (score > 0.2, score >= 0.1, score > 0) == (published > 0.2, published >= 0.1, published > 0)


def test_nouns_leave_out_what_describes() -> None:
    """Colours, sizes, function words, adjectives by their endings, possessives, numbers; repeated nouns stay."""
    assert nouns("Women's Waterproof Non-Slip Black Boots, 2 Pairs of Boots w/ Washable 4K Lining") == (
        "women",
        "slip",
        "boots",
        "pairs",
        "boots",
        "lining",
    )


@pytest.mark.parametrize(
    ("value", "wanted", "matches"),
    [
        ("dark blue", "navy blue", True),  # both are "blue", which comes before "dark" and "navy" in the list
        ("red | white", "rose red", True),  # both are "red", since "rose" comes after "red" and "white" too
        ("rose gold", "rose", False),  # "gold" comes first; 0 letters of "gold" and "rose" but an o in common
        ("pack of 12", "pack of 2", True),  # 94: the published rule is that loose
        ("large", "x-large", True),  # the dash parts words, and all of "large" is in "x large": 100
        ("medium", "x-large", False),
        ("powder snow", "cool powder snow", True),  # all tokens of the one are in the other: 100
        ("small", "large", False),
        ("7.5", ("size", "7.5"), True),  # synthetic goals are compared with the option's name before the value
        ("large", ("size", "small"), False),
        ("dark blue", ("color", "blue"), True),
        ("", "blue", False),
    ],
)
def test_options_match_by_colour_or_by_tokens(value: str, wanted: str | tuple[str, str], matches: bool) -> None:
    """The colour rule first, then a token-set ratio above 85."""
    assert option_matches(value, wanted) is matches


def test_the_first_colour_of_the_list_stands_for_a_value() -> None:
    """Wherever it occurs, even inside a word; without any, the value stands for itself."""
    assert [normal_color(value) for value in ("light grey", "titanium", "x-large")] == ["grey", "tan", "x-large"]


def test_the_buyer_prefers_equal_values_and_gives_up_where_nothing_pays() -> None:
    """It picks one value an option; a wish that no product fulfils is an error, not a worse purchase."""
    lamp = product(options={"color": ("light blue", "navy blue"), "style": ("set of 2",)})
    assert pick(lamp, goal()) == {"color": "navy blue", "style": "set of 2"}
    catalog = Catalog("one", [lamp], [goal()])
    assert buy(catalog, goal()) == [
        "search[find me a table lamp]",
        "click[b000000001]",
        "click[navy blue]",
        "click[set of 2]",
        "click[buy now]",
    ]
    with pytest.raises(ConfigError, match="no product pays in full"):
        buy(catalog, goal(price_upper=20.0))
