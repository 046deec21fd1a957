"""WebShop's own files in our shop, and the original code behind our door, both with small fakes."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import pytest

from leafe_graph.envs import webshop
from leafe_graph.envs.webshop import original_code as webshop_official
from leafe_graph.envs.webshop.original_code import OfficialWebShopEnv
from leafe_graph.errors import ConfigError, MissingDependency
from leafe_graph.testing import check_env

pytestmark = needs.world("webshop")


def item(asin: str, **changes: Any) -> dict[str, Any]:
    """A record as in ``items_shuffle.json``."""
    record: dict[str, Any] = {
        "asin": asin,
        "name": f"Oakrun Shirt {asin}",
        "full_description": "A shirt.",
        "small_description": ["Striped.", "Soft."],
        "pricing": "$12.99",
        "customization_options": {"Color": [{"value": " Dark Blue/White ", "image": None}], "Fit": None},
        "category": "fashion",
        "query": " Shirts ",
        "product_category": "Clothing › Men",
        "images": ["x"],
        "brand": "Oakrun",
    }
    return record | changes


ITEMS = [
    item("B000000001"),
    item("B000000001", name="the same again"),
    item("nan"),
    item("B0000000011"),
    item("B000000002", pricing="$1,005.00$1,020.50", small_description="One text.", customization_options={}),
    item("B000000003", pricing=None, full_description=None, customization_options=None),
    item("B000000004", customization_options={"Size": [{"value": "S"}, {"value": "M"}], "Color": [{"value": "red"}]}),
]
DESCRIBED = {
    "B000000001": {"attributes": ["striped"], "instruction": None},
    "B000000004": {
        "attributes": ["soft"],
        "instruction": "Find me soft shirts",
        "instruction_attributes": ["soft", "striped"],
    },
}
WRITTEN = {
    "B000000001": [
        {
            "instruction": "I need a striped shirt.",
            "instruction_attributes": ["striped"],
            "instruction_options": ["dark blue | white"],
        },
        {"instruction": "skipped", "instruction_attributes": [], "instruction_options": []},
    ],
    "B000000002": [{"instruction": "a dear one", "instruction_attributes": ["soft"], "instruction_options": {}}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with WebShop's files."""
    for name, content in (
        ("items_shuffle_1000", ITEMS),
        ("items_ins_v2_1000", DESCRIBED),
        ("items_human_ins", WRITTEN),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_products_are_read_as_the_original_reads_them(folder: Path) -> None:
    """Doubles and odd numbers are left out; prices, options and missing texts are put right."""
    shop = webshop.catalog(data=folder)
    assert list(shop.by_asin) == ["B000000001", "B000000002", "B000000003", "B000000004"]
    first, second, third, fourth = shop.products
    assert (first.price, first.price_tag, first.query) == (12.99, "$12.99", "shirts")
    assert first.options == {"color": ("dark blue | white",)} and first.attributes == ("striped",)
    assert 1005 <= second.price <= 1020.5 and second.price_tag == "$1005.0 to $1020.5"
    assert second.features == ("One text.",) and second.attributes == ("DUMMY_ATTR",)
    assert (third.price, third.price_tag, third.description, third.options) == (100.0, "$100.0", "", {})
    assert fourth.options == {"size": ("s", "m"), "color": ("red",)}


def test_goals_are_what_people_wrote_or_every_combination_of_options(folder: Path) -> None:
    """Limits are among the next four tens above the price, and are said; above 990 dollars there is none."""
    human = sorted(webshop.catalog(data=folder).goals, key=lambda goal: goal.asin)
    assert [goal.asin for goal in human] == ["B000000001", "B000000002"]
    assert human[0].price_upper in (30, 40, 50) and human[0].wanted == ("dark blue | white",)
    assert human[0].instruction == (f"I need a striped shirt, and price lower than {human[0].price_upper:.2f} dollars")
    assert human[1].instruction == "a dear one" and human[1].price_upper == 1_000_000 and human[1].wanted == ()
    synthetic = sorted(webshop.catalog(data=folder, human_goals=False).goals, key=lambda goal: goal.instruction)
    assert [goal.wanted for goal in synthetic] == [
        (("color", "red"), ("size", "m")),
        (("color", "red"), ("size", "s")),
    ]
    assert synthetic[0].instruction.startswith("Find me soft shirts with color: red, and size: m, and price lower than")
    assert synthetic[0].attributes == ("soft", "striped")


def test_goals_have_the_originals_order(tmp_path: Path) -> None:
    """Shuffled by the original's seed, so that goal numbers in papers mean the same."""
    items = [item(f"B{number:09d}") for number in range(40)]
    written = {
        record["asin"]: [{"instruction": record["asin"], "instruction_attributes": ["soft"], "instruction_options": []}]
        for record in items
    }
    (tmp_path / "items_shuffle.json").write_text(json.dumps(items), encoding="utf-8")
    (tmp_path / "items_ins_v2.json").write_text("{}", encoding="utf-8")
    (tmp_path / "items_human_ins.json").write_text(json.dumps(written), encoding="utf-8")
    expected = [record["asin"] for record in items]
    random.seed(233)
    random.shuffle(expected)
    assert [goal.asin for goal in webshop.catalog(data=tmp_path).goals] == expected
    assert len(webshop.catalog(data=tmp_path / "items_shuffle.json", products=7).goals) == 7


def test_files_written_anew_are_read_anew(folder: Path) -> None:
    """Each of them; as long as none has changed, the catalogue is the same one."""
    shop = webshop.catalog(data=folder)
    assert webshop.catalog(data=folder) is shop is webshop.catalog(data=folder / "items_shuffle_1000.json")
    for name in ("items_shuffle_1000.json", "items_human_ins.json", "items_ins_v2_1000.json"):
        file = folder / name
        file.write_text(f"{file.read_text(encoding='utf-8')} ", encoding="utf-8")
        assert webshop.catalog(data=folder) is not shop
        shop = webshop.catalog(data=folder)
    (task,) = webshop.tasks("test", 1, data=folder)
    webshop.WebShopEnv(data=folder).reset(options=task["options"])


def test_tasks_of_a_users_data_are_played_like_others(folder: Path) -> None:
    """Ids hold a digest of the data; the expert wins, and the contract holds."""
    tasks = webshop.tasks("test", 2, data=folder)
    assert all(task["id"].startswith("webshop-data-") for task in tasks)
    assert webshop.tasks("test", 2, data=folder, catalog_seed=1)[0]["id"] != tasks[0]["id"]
    check_env(lambda: webshop.WebShopEnv(data=folder), tasks=tasks, actions=webshop.expert)
    env = webshop.WebShopEnv(data=folder)
    env.reset(options=tasks[0]["options"])
    assert [env.step(action)[1] for action in webshop.expert(tasks[0])][-1] == 1.0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items_shuffle_1000", None, "items_shuffle.json or items_shuffle_1000.json"),
        ("items_ins_v2_1000", None, "items_ins_v2_1000.json does not exist"),
        ("items_human_ins", "[", "items_human_ins.json is not JSON"),
        ("items_human_ins", "[" * 100_000, "items_human_ins.json is not JSON: nested too deep"),
        ("items_human_ins", "{}", "no human instruction"),
        ("items_shuffle_1000", '[{"asin": "B1"}]', "record 0 .counted from 0.: KeyError"),
        ("items_human_ins", '{"B000000001": [{}]}', "instructions of product B000000001: KeyError"),
    ],
)
def test_files_that_are_missing_or_wrong_are_named(folder: Path, name: str, content: str | None, said: str) -> None:
    """With the place in them."""
    file = folder / f"{name}.json"
    file.unlink() if content is None else file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        webshop.catalog(data=folder)


FAKE = """
import random

class Server:
    def __init__(self, human_goals):
        kind = "human" if human_goals else "synthetic"
        self.goals = [{"instruction_text": f"{kind} {i} under {random.randint(1, 10**9)}"} for i in range(1600)]
        self.user_sessions = {}

class WebAgentTextEnv:
    made = 0

    def __init__(self, observation_mode="html", file_path="", server=None, **kwargs):
        self.mode, self.kwargs = observation_mode, kwargs
        if server is None:
            WebAgentTextEnv.made += 1
        self.server = Server(kwargs["human_goals"]) if server is None else server
        self.reset()

    def reset(self, session=None, instruction_text=None):
        self.session = self.kwargs["session_prefix"] + str(session)
        self.goal = self.server.goals[session or 0]
        self.page = "search"
        return self.observation, None

    @property
    def observation(self):
        return f"{self.mode} {self.page}: {self.goal['instruction_text']}"

    def get_available_actions(self):
        texts = {"search": ["search"], "results": ["back to search", "b1"], "b1": ["buy now", "red"], "done": []}
        return {"has_search_bar": self.page == "search", "clickables": texts[self.page]}

    def step(self, action):
        name, _, text = action.partition("[")
        text = text[:-1]
        reward = 0.0
        if name == "search":
            self.page = "results"
        elif name == "click" and text in self.get_available_actions()["clickables"] and text != "search":
            self.page = {"back to search": "search", "b1": "b1", "buy now": "done", "red": "b1"}[text]
            reward = 0.75 if text == "buy now" else 0.0
        return self.observation, reward, self.page == "done", None
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A folder whose modules, class and calls are named as the original's."""
    package = tmp_path / "web_agent_site" / "envs"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(FAKE, encoding="utf-8")
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] == "web_agent_site"]:
        del sys.modules[name]


def test_the_original_code_is_played_through_our_door(checkout: Path) -> None:
    """Its pages and scores come through as they are; an action that it ignores is called invalid."""
    env = OfficialWebShopEnv(checkout=checkout, observation_mode="text_rich", human_goals=False)
    start, info = env.reset(options={"goal": 3})
    assert start.startswith("text_rich search: synthetic 3 under ")
    wish = start.partition(": ")[2]
    assert info["admissible"] == [f"search[{wish}]"]
    story = [env.step(action) for action in ("click[Search]", "hm", "search[x]", "click[b2]", "Action: click[B1]")]
    assert [answer[0].partition(":")[0][10:] for answer in story] == ["search", "search", "results", "results", "b1"]
    assert [answer[4]["valid"] for answer in story] == [False, False, True, False, True]
    assert story[4][4]["admissible"] == ["click[buy now]", "click[red]"]
    end = env.step("click[buy now]")
    assert end[1:4] == (0.75, True, False) and end[4]["success"] is False
    assert env.step("click[b1]")[:4] == (end[0], 0.0, True, False)


def test_the_original_keeps_the_contract_and_shares_its_server(checkout: Path) -> None:
    """Instances have sessions of their own in one server, whose random draws depend on the seed only."""
    tasks = webshop_official.tasks("train", 2, checkout=checkout)
    assert [task["options"] for task in tasks] == [{"goal": 1500}, {"goal": 1501}]
    OfficialWebShopEnv(checkout=checkout).goals[0]["instruction_text"] += " or so"  # type: ignore[index]
    assert not {task["id"] for task in tasks} & {
        task["id"] for task in webshop_official.tasks("train", 2, checkout=checkout)
    }
    check_env(lambda: OfficialWebShopEnv(checkout=checkout), tasks=tasks)
    first, second = (OfficialWebShopEnv(checkout=checkout) for _ in range(2))
    first.reset(options={"goal": 1})
    second.reset(options={"goal": 1})
    assert first._env.server is second._env.server and first._env.session != second._env.session
    assert first._env.made == 1
    random.seed(5)
    state = random.getstate()
    other = OfficialWebShopEnv(checkout=checkout, seed=1)
    assert random.getstate() == state
    assert other.reset(options={"goal": 1}) != first.reset(options={"goal": 1})


def test_a_checkout_that_cannot_be_played_is_named(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No WebShop there, another one loaded, or its packages not installed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(ConfigError, match="has no web_agent_site/envs in it"):
        OfficialWebShopEnv(checkout=elsewhere)
    package = elsewhere / "web_agent_site" / "envs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import no_such_gym", encoding="utf-8")
    with pytest.raises(MissingDependency, match=r"no_such_gym.*requirements\.txt"):
        OfficialWebShopEnv(checkout=elsewhere)
    for name in [name for name in sys.modules if name.partition(".")[0] == "web_agent_site"]:
        del sys.modules[name]
    env = OfficialWebShopEnv(checkout=checkout)
    with pytest.raises(ConfigError, match="loaded in this process already"):
        OfficialWebShopEnv(checkout=elsewhere)
    with pytest.raises(ConfigError, match="from 0 to 1599"):
        env.reset(options={"goal": 1600})
    with pytest.raises(ConfigError, match="expected goal"):
        env.reset(options={"session": 1})
