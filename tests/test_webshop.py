"""The shop's pages, actions, snapshots, goals and the reference buyer."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import needs
import pytest

from leafe_graph.envs import webshop
from leafe_graph.envs.webshop import products as webshop_catalog
from leafe_graph.envs.webshop.products import Catalog, Goal, Product, digest
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import check_env
from leafe_graph.types import Task

pytestmark = needs.world("webshop")

WISH = "find me a striped shirt, and price lower than 30.00 dollars"


def shirt(number: int, **changes: Any) -> Product:
    """A shirt with a number."""
    record: dict[str, Any] = {
        "asin": f"B{number:09d}",
        "title": f"Oakrun Shirt {number}",
        "description": "A shirt for every day.",
        "features": ("Striped.", "Machine washable."),
        "attributes": ("striped", "soft cotton"),
        "options": {"color": ("dark blue", "red | white"), "size": ("small", "large")},
        "price": 12.5,
        "price_tag": "$12.5",
        "category": "fashion",
        "query": "shirts",
        "product_category": "Clothing › Men › Shirts",
    }
    return Product(**record | changes)


@pytest.fixture
def shop() -> Iterator[Catalog]:
    """Thirteen shirts and one wish."""
    products = [shirt(number) for number in range(13)]
    goal = Goal(
        asin=products[0].asin,
        instruction=WISH,
        name=products[0].title,
        query="shirts",
        product_category=products[0].product_category,
        attributes=("striped",),
        wanted=("dark blue", "large"),
        price_upper=30.0,
    )
    catalog = Catalog("thirteen", products, [goal])
    webshop_catalog.shared("thirteen", lambda: catalog)
    yield catalog
    del webshop_catalog._catalogs["thirteen"]


def play(*actions: str, **settings: Any) -> list[tuple[str, float, bool, bool, dict[str, Any]]]:
    """The answers to some actions in the shop with thirteen shirts; the start's counts as one."""
    env = webshop.WebShopEnv(**settings)
    observation, info = env.reset(options={"goal": 0, "catalog": "thirteen"})
    return [(observation, 0.0, False, False, info), *(env.step(action) for action in actions)]


HEAD = f"Instruction: [SEP] {WISH} [SEP] Back to Search"
ITEM = (
    f"{HEAD} [SEP] < Prev [SEP] color [SEP] dark blue [SEP] red | white [SEP] size [SEP] small [SEP] large [SEP] "
    "Oakrun Shirt 0 [SEP] Price: $12.5 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
)


def test_the_pages_read_as_the_original_ones(shop: Catalog) -> None:
    """Search, results, a product, its sub-pages and the end, in the text form that agents know."""
    answers = play(
        "search[shirt]",
        "click[b000000000]",
        "click[dark blue]",
        "click[description]",
        "click[< prev]",
        "click[features]",
        "click[< prev]",
        "click[reviews]",
        "click[< prev]",
        "click[large]",
        "click[buy now]",
    )
    pages = [answer[0] for answer in answers]
    assert pages[0] == f"WebShop [SEP] Instruction: [SEP] {WISH} [SEP] Search"
    assert pages[1].startswith(
        f"{HEAD} [SEP] Page 1 (Total results: 13) [SEP] Next > [SEP] B000000000 [SEP] Oakrun Shirt 0 [SEP] $12.5 [SEP] "
    )
    assert pages[2] == pages[3] == pages[5] == pages[7] == pages[9] == pages[10] == ITEM
    assert pages[4] == f"{HEAD} [SEP] < Prev [SEP] A shirt for every day."
    assert pages[6] == f"{HEAD} [SEP] < Prev [SEP] Striped. [SEP] Machine washable."
    assert pages[8] == f"{HEAD} [SEP] < Prev"
    assert pages[11].startswith("Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it")
    assert '[SEP] options [SEP] {"color": "dark blue", "size": "large"} [SEP]' in pages[11]
    assert pages[11].endswith("Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] Reward Details [SEP] None")
    assert answers[11][1:4] == (1.0, True, False) and answers[11][4]["success"] is True


def test_rich_pages_mark_what_can_be_clicked_and_what_was(shop: Catalog) -> None:
    """A line for each text; chosen options stand at the top, opened products are marked in the results."""
    answers = play("search[shirt]", "click[b000000003]", "click[large]", "click[< prev]", observation_mode="text_rich")
    assert answers[0][0] == f"WebShop\nInstruction: \n{WISH}\n[button] Search [button_]\n"
    assert answers[3][0].startswith(
        f"You have clicked large.\nInstruction:\n{WISH}\n[button] Back to Search [button_]\n"
    )
    assert "size\n  [button] small [button_]\n  [clicked button] large [clicked button_]\n" in answers[3][0]
    assert "\n\n[clicked button] B000000003 [clicked button_]\nOakrun Shirt 3\n$12.5\n" in answers[4][0]
    assert "\n\n[button] B000000004 [button_]\n" in answers[4][0]


def test_results_come_in_pages_of_ten(shop: Catalog) -> None:
    """The second page has the other three and a way back; past the last one, as in the original, there is nothing."""
    answers = play("search[shirt]", "click[next >]", "click[next >]", "click[< prev]", "click[back to search]")
    assert answers[1][4]["admissible"][:2] == ["click[back to search]", "click[next >]"]
    assert len(answers[1][4]["admissible"]) == 12
    assert "Page 2 (Total results: 13) [SEP] < Prev [SEP] Next > [SEP] B" in answers[2][0]
    assert len(answers[2][4]["admissible"]) == 6
    assert answers[3][0].endswith("Page 3 (Total results: 13) [SEP] < Prev [SEP] Next >")
    assert answers[4][0] == answers[2][0] and answers[5][0] == answers[0][0]
    assert "Total results: 0" in play("search[submarine]")[1][0]


def test_leaving_a_product_forgets_its_options(shop: Catalog) -> None:
    """Going back to the results, or searching anew from the product's page, gives up what was chosen."""
    chosen = ("search[shirt]", "click[b000000000]", "click[dark blue]", "click[large]")
    for way in ("click[< prev]", "search[shirt]"):
        answers = play(*chosen, way, "click[b000000000]", "click[buy now]")
        assert '"color"' not in answers[-1][0]
        # Of one attribute, two options and the price, the attribute and the price fit: 2 of 4.
        assert answers[-1][1] == 0.5 and answers[-1][4]["success"] is False
        assert answers[-1][4]["reward_info"]["r_option"] == 0


def test_a_visit_is_the_same_however_it_was_come_to(shop: Catalog) -> None:
    """Its anchor tells: the page, what was chosen there, and where its buttons lead."""

    def after(*actions: str, **options: Any) -> str:
        env = webshop.WebShopEnv(**options)
        env.reset(options={"goal": 0, "catalog": "thirteen"})
        for action in actions:
            assert env.step(action)[4]["valid"] is True
        return env.anchor()

    item = after("search[shirt]", "click[b000000000]")
    blue_large = after("search[shirt]", "click[b000000000]", "click[dark blue]", "click[large]")
    large_blue = after("search[red]", "search[shirt]", "click[b000000000]", "click[large]", "click[dark blue]")
    assert blue_large == large_blue != item
    assert after("search[striped shirt]", "click[b000000000]") != item  # it goes back to other results
    other = ("search[shirt]", "click[b000000003]", "click[< prev]", "click[b000000000]")
    assert after(*other) == item  # only rich pages mark what was opened
    assert after(*other, observation_mode="text_rich") != after(*other[::3], observation_mode="text_rich")


@pytest.mark.parametrize(
    "action",
    [
        "click[Buy Now]",
        "click[b000000000]",
        "click[search]",
        "click[]",
        "search[]",
        "search[ ]",
        "search",
        "click[dark blue",
        "I give up.",
        "click[" * 5000,
        "\x00search\u202e",
    ],
)
def test_what_cannot_be_done_leaves_the_page(shop: Catalog, action: str) -> None:
    """On the search page nothing but a search with words does anything."""
    start, answer = play(action)
    assert answer[0] == start[0] and answer[1:4] == (0.0, False, False)
    assert answer[4]["valid"] is False


def test_after_the_purchase_nothing_happens(shop: Catalog) -> None:
    """Steps after the end pay nothing and say again how it ended."""
    end, after = play("search[shirt]", "click[b000000000]", "click[buy now]", "search[shirt]")[-2:]
    assert after[:4] == (end[0], 0.0, True, False) and after[4]["success"] is False and after[4]["valid"] is False


def test_attributes_have_a_page_where_it_is_asked_for(shop: Catalog) -> None:
    """Attributes, category, search term and place in the tree."""
    actions = ("search[shirt]", "click[b000000000]", "click[attributes]")
    assert play(*actions)[3][4]["valid"] is False
    page = play(*actions, show_attrs=True)[3][0]
    assert page.endswith(
        "< Prev [SEP] striped [SEP] soft cotton [SEP] fashion [SEP] shirts [SEP] Clothing › Men › Shirts"
    )


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("search[red Shirt]", ("search", "red shirt")),
        ("Click[Buy Now]", ("click", "buy now")),
        ("Thought: I should search[a].\nAction: click[b]", ("click", "b")),
        ("Let me click[size [large]] now", ("click", "size [large]")),
        ("click[a] or search[b", ("click", "a")),
        ("Action:\n\nsearch[ shirt ]\nObservation: [x]", ("search", "shirt")),
        ("click[a] or search[b]?</think>search[c]", ("search", "c")),
        ("[THINK]click[a], then", None),
        ("search shirt", None),
        ("click[ ]", None),
    ],
)
def test_actions_are_read_out_of_a_models_words(text: str, action: tuple[str, str] | None) -> None:
    """Case does not matter; words around an action, and lines after it, are passed over."""
    assert webshop.read_action(text) == action


def test_the_reference_buyer_gets_the_full_reward_on_a_hundred_goals() -> None:
    """Through the pages, within the horizon, on goals of all splits; some need a second page of results."""
    goals = webshop.tasks("train", 60) + webshop.tasks("validation", 20) + webshop.tasks("test", 20)
    env = webshop.WebShopEnv()
    turned = 0
    for task in goals:
        actions = webshop.expert(task)
        assert len(actions) <= webshop.HORIZON
        env.reset(options=task["options"])
        rewards = []
        for action in actions:
            _, reward, terminated, _, info = env.step(action)
            assert info["valid"], (task["id"], action)
            rewards.append(reward)
        assert terminated and info["success"] and rewards[-1] == 1.0 and not any(rewards[:-1]), task["id"]
        turned += "click[next >]" in actions
    assert turned


def test_the_first_hit_of_the_wish_is_seldom_enough() -> None:
    """Searching matters: buying whatever comes first, without options, pays in full on fewer than a tenth of goals."""
    env = webshop.WebShopEnv()
    scores = []
    for task in webshop.tasks("test", 100):
        _, info = env.reset(options=task["options"])
        info = env.step(info["admissible"][0])[4]
        env.step(info["admissible"][2])
        scores.append(env.step("click[buy now]")[1])
    assert 0.2 < sum(scores) / 100 < 0.7
    assert scores.count(1.0) < 10


def test_the_default_catalogue_is_what_its_name_says() -> None:
    """Task ids name the generator's version: whoever changes what it generates raises that, and this digest."""
    catalog = webshop.catalog()
    assert catalog.name == "generated1-0-5000"
    assert digest(catalog.products, catalog.goals) == "324dabecfb70"
    assert len({product.asin for product in catalog.products}) == len(catalog.goals) == 5000


def test_a_catalogue_is_the_same_in_another_process() -> None:
    """Whatever the seed of Python's hashes is."""
    code = (
        "from leafe_graph.envs import webshop; from leafe_graph.envs.webshop import products as c;"
        "s = webshop.catalog(products=120, catalog_seed=7);"
        "print(c.digest(s.products, s.goals), *s.search('soft shirt'))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = webshop.catalog(products=120, catalog_seed=7)
    assert there == [digest(here.products, here.goals), *here.search("soft shirt")]
    other = webshop.catalog(products=120, catalog_seed=8)
    assert digest(other.products, other.goals) != there[0]


def test_goals_of_splits_were_made_of_different_products() -> None:
    """The first 500 goals are for tests, the next 1,000 for validation; no product is wished for twice."""
    catalog = webshop.catalog()
    numbers = {
        split: [task["options"]["goal"] for task in webshop.tasks(split, n)]
        for split, n in (("test", 500), ("validation", 1000), ("train", 3500))
    }
    assert numbers == {"test": [*range(500)], "validation": [*range(500, 1500)], "train": [*range(1500, 5000)]}
    assert len({goal.asin for goal in catalog.goals}) == 5000
    with pytest.raises(ConfigError, match="1000 are validation"):
        webshop.tasks("validation", 1, start=1000)


def random_walk(env: webshop.WebShopEnv, task: Task, steps: int) -> Iterator[bytes]:
    """Snapshots along a random walk that does not buy."""
    draw = random.Random(task["id"])
    _, info = env.reset(options=task["options"])
    for _ in range(steps):
        yield env.snapshot()
        choices = [action for action in info["admissible"] if action != "click[buy now]"]
        info = env.step(draw.choice(choices))[4]


@pytest.mark.parametrize("mode", ["text", "text_rich"])
def test_the_contract_holds_on_random_walks(mode: webshop.Mode) -> None:
    """Reset, replay, snapshot and restore in other instances, with and without the page of attributes."""
    check_env(
        lambda: webshop.WebShopEnv(observation_mode=mode, show_attrs=mode == "text_rich"),
        tasks=webshop.tasks("train", 6, start=100),
    )


def test_a_snapshot_is_json_and_goes_on_in_another_process() -> None:
    """The catalogue's name is in it, so the other process makes the same one."""
    env = webshop.WebShopEnv(products=120)
    task: Task = {"id": "t", "instruction": "", "options": {"goal": 5}}
    state = list(random_walk(env, task, 9))[-1]
    assert json.loads(state)["catalog"] == "generated1-0-120"
    env.restore(state)
    expected = env.step("click[back to search]")[0] + env.step("search[usb cable]")[0]
    code = (
        "import sys; from leafe_graph.envs.webshop import WebShopEnv; env = WebShopEnv(products=300);"
        "env.restore(sys.stdin.buffer.read());"
        "print(env.step('click[back to search]')[0] + env.step('search[usb cable]')[0], end='')"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], input=state, capture_output=True, check=True)
    assert done.stdout.decode() == expected


@pytest.mark.parametrize("state", [b"", b"{}", b"[]", b'{"webshop": 2}', b"\xff", b'{"webshop": 1, "catalog": 3}'])
def test_what_is_no_snapshot_is_refused(state: bytes) -> None:
    """The error shows how it begins."""
    with pytest.raises(EnvError, match="not a WebShop snapshot"):
        webshop.WebShopEnv().restore(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"goals": 1}, "expected goal and catalog"),
        ({"goal": 5000}, "0 to 4999"),
        ({"goal": "1"}, "0 to 4999"),
        ({"catalog": "data-0123"}, "make both with the same"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    """What was seen, and what was expected."""
    with pytest.raises(ConfigError, match=said):
        webshop.WebShopEnv().reset(options=options)


def test_wrong_arguments_are_named() -> None:
    """Unknown modes and catalogues too small to search in."""
    with pytest.raises(ConfigError, match="text, text_rich"):
        webshop.WebShopEnv(observation_mode="html")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 100"):
        webshop.tasks("test", 1, products=9)
    with pytest.raises(EnvError, match="call reset first"):
        webshop.WebShopEnv().step("search[x]")


def test_many_threads_shop_in_one_catalogue() -> None:
    """Eight at once see what one sees alone."""
    goals = webshop.tasks("test", 16)

    def visit(task: Task) -> list[bytes]:
        return list(random_walk(webshop.WebShopEnv(), task, 12))

    alone = [visit(task) for task in goals]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, goals)) == alone
