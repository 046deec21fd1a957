r"""A shop's support agent that takes its mistakes back: tools over a SQLite database, one of them irreversible.

    pip install -e ".[langchain,openai]"
    python examples/support_agent.py --model openai:gpt-5-mini --tasks 5 --record runs/support
    leafe export runs/support

A customer wants a few things done about orders. When the agent says that it is done, the database is compared with what
it should be, and of a failure is told what a shop would hear: which orders the customer complains about. The model is
asked which step was the mistake; conversation and database go back to that step, and from there it tries again knowing
better. A mail that was sent stays sent: nothing before it is taken back.

Customers, their orders and what should become of them are made from seeds, so there are as many as you like, and trees
of attempts can be grown over them:

    leafe explore --agent examples.support_agent:build --model openai:gpt-5-mini --tasks 20 --out runs/trees
"""

import argparse
import contextlib
import random
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage

from leafe_graph import LeafeMiddleware, SqliteFile, Task, Verdict, load_model

RULES = (
    "You serve the customers of a shop. Find the customer's orders, and look at an order before you change it. Pending "
    "orders can be cancelled, exchanged and redirected, delivered ones can be returned and exchanged; about shipped "
    "ones nothing can be done. Do what is asked for and nothing else. Send a mail only if the customer asks for one, "
    "and last: it cannot be taken back."
)
NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Lea", "Max", "Nora", "Otto"]
ITEMS = ["lamp", "chair", "desk", "shelf", "rug", "clock", "vase", "mirror"]
COLOURS = ["red", "blue", "green", "black", "white"]
CITIES = ["Rome", "Oslo", "Bonn", "Lima", "Bern", "Kiel", "Graz", "Nice"]
STATUSES = ["pending", "pending", "delivered", "delivered", "shipped"]
TABLES = """
    DROP TABLE IF EXISTS orders;
    DROP TABLE IF EXISTS mails;
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer, colour, item, city, status);
    CREATE TABLE mails (customer, text);
"""
Order = dict[str, Any]


def tasks(split: str, count: int, *, start: int = 0) -> list[Task]:
    """So many customers of a split ("train", "validation", "test"), from number ``start`` on; always the same."""
    return [_task(f"support-{split}-{number}") for number in range(start, start + count)]


def _task(name: str) -> Task:
    """What a customer wants, the orders in the shop, and what they should be in the end."""
    rng = random.Random(name)
    customer, *others = rng.sample(NAMES, 3)
    changes: dict[int, Order] = {}
    while not any(changes.values()):  # there is something to do
        whose = [*[customer] * rng.randint(3, 5), *others, *others]
        rng.shuffle(whose)
        count = len(whose)
        things = rng.sample([(colour, item) for colour in COLOURS for item in ITEMS], count)
        numbers, statuses = sorted(rng.sample(range(10, 100), count)), rng.choices(STATUSES, k=count)
        orders = [
            Order(id=number, customer=owner, colour=colour, item=item, city=rng.choice(CITIES), status=status)
            for number, owner, (colour, item), status in zip(numbers, whose, things, statuses, strict=True)
        ]
        own = [order for order in orders if order["customer"] == customer]
        wishes = [(order["id"], *_wish(order, rng)) for order in rng.sample(own, rng.randint(2, 3))]
        changes = {number: change for number, _, change in wishes}
    right = [order | changes.get(order["id"], {}) for order in orders]
    said = [f"I am {customer}.", *(sentence for _, sentence, _ in wishes)]
    mailed = rng.random() < 0.25
    said += ["Please confirm it by mail."] * mailed
    options = {"customer": customer, "orders": orders, "right": right, "mails": [customer] * mailed}
    return Task(id=name, instruction=" ".join(said), options=options)


def _wish(order: Order, rng: random.Random) -> tuple[str, Order]:
    """What the customer says about an order, and what the rules let become of it."""
    thing, status = f"the {order['colour']} {order['item']}", order["status"]
    colour = rng.choice([each for each in COLOURS if each != order["colour"]])
    city = rng.choice([each for each in CITIES if each != order["city"]])
    end = {"pending": {"status": "cancelled"}, "delivered": {"status": "returned"}, "shipped": {}}[status]
    return rng.choice(
        [
            (f"I do not want {thing} any more.", end),
            (f"I want {thing} in {colour}.", {} if status == "shipped" else {"colour": colour}),
            (f"Send {thing} to {city}.", {"city": city} if status == "pending" else {}),
        ]
    )


def world(task: Task) -> SqliteFile:
    """The shop as the customer finds it: a database of its own, which goes with this object."""
    folder = tempfile.TemporaryDirectory(prefix="shop-")
    shop = SqliteFile(Path(folder.name, "shop.db"))
    weakref.finalize(shop, folder.cleanup)
    fill(shop.path, task)
    return shop


def fill(path: Path, task: Task) -> None:
    """Open the shop for a customer."""
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.executescript(TABLES)
        rows: Any = (task.get("options") or {})["orders"]
        shop.executemany("INSERT INTO orders VALUES (:id, :customer, :colour, :item, :city, :status)", rows)


def support_tools(path: Path) -> list[Callable[..., str]]:
    """The shop's tools. They do what they are told: the rules are the agent's to keep."""

    def ask(query: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(path)) as shop, shop:
            return shop.execute(query, values).fetchall()

    def change(order: int, column: str, value: str, said: str) -> str:
        done = ask(f"UPDATE orders SET {column} = ? WHERE id = ? RETURNING id", value, order)
        return f"Order {order} {said}." if done else f"There is no order {order}."

    def find_orders(customer: str) -> str:
        """What a customer, by name, has ordered, each with its order's number."""
        found = ask("SELECT colour, item, id FROM orders WHERE customer = ? ORDER BY id", customer)
        return "\n".join(f"{colour} {item}: order {order}" for colour, item, order in found) or "There are none."

    def look_at_order(order: int) -> str:
        """What was ordered, where it is sent, and whether it is pending, shipped or delivered."""
        for colour, item, city, status in ask("SELECT colour, item, city, status FROM orders WHERE id = ?", order):
            return f"order {order}: {colour} {item}, to {city}, {status}"
        return f"There is no order {order}."

    def cancel_order(order: int) -> str:
        """Cancel an order."""
        return change(order, "status", "cancelled", "is cancelled")

    def return_order(order: int) -> str:
        """Take an order back."""
        return change(order, "status", "returned", "is returned")

    def exchange_order(order: int, colour: str) -> str:
        """Exchange what was ordered for the same in another colour."""
        return change(order, "colour", colour, f"is {colour} now")

    def redirect_order(order: int, city: str) -> str:
        """Send an order to another city."""
        return change(order, "city", city, f"goes to {city} now")

    def send_mail(customer: str, text: str) -> str:
        """Send the customer a mail."""
        ask("INSERT INTO mails VALUES (?, ?)", customer, text)
        return "The mail is sent."

    return [find_orders, look_at_order, cancel_order, return_order, exchange_order, redirect_order, send_mail]


def judge(result: Any, world: SqliteFile, task: Task) -> Verdict:
    """Whether the database is what it should be, and what the customer says."""
    wanted: Any = task.get("options")
    with contextlib.closing(sqlite3.connect(world.path)) as shop:
        shop.row_factory = sqlite3.Row
        orders = {row["id"]: dict(row) for row in shop.execute("SELECT * FROM orders")}
        mails = [row["customer"] for row in shop.execute("SELECT * FROM mails")]
    wrong = [f"order {each['id']}" for each in wanted["right"] if orders.get(each["id"]) != each]
    wrong += ["the mails"] * (mails != wanted["mails"])
    return Verdict(not wrong, f"The customer complains about {', '.join(wrong)}." if wrong else "")


def build(model: Any, world: SqliteFile, middleware: Sequence[AgentMiddleware[Any, Any]] = ()) -> Any:
    """The agent as it would be anyway."""
    return create_agent(model, support_tools(world.path), system_prompt=RULES, middleware=middleware)


def learning(model: Any, world: SqliteFile, **settings: Any) -> Any:
    """The agent that takes its mistakes back; a run's context is its task, which the judge must know."""
    leafe = LeafeMiddleware(
        judge=lambda state, runtime: judge(state, world, runtime.context),
        worlds=[world],
        irreversible={"send_mail"},
        **settings,
    )
    return build(model, world, [leafe])


def serve(model: Any, customers: Sequence[Task], record: str | Path | None = None) -> list[bool]:
    """Serve customers one after the other, and show how; who of them is content."""
    shop = world(customers[0])
    agent = learning(model, shop, record=record)
    content = []
    for task in customers:
        fill(shop.path, task)
        asked = {"messages": [HumanMessage(task["instruction"])]}
        shown = None
        for kind, event in agent.stream(asked, context=task, stream_mode=["values", "custom"]):
            if kind == "custom":
                print(event["leafe"])
            elif (last := event["messages"][-1]).id != shown:
                shown = last.id
                last.pretty_print()
        verdict = judge(None, shop, task)
        content.append(verdict.success is True)
        print(f"\n{verdict.feedback or 'The customer is content.'}")
    return content


def main() -> None:
    """Serve some, and say how many are content."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="such as openai:gpt-5-mini, or local:FOLDER")
    parser.add_argument("--tasks", type=int, default=5, help="customers")
    parser.add_argument("--record", help="a run folder for the attempts, to export rows from")
    given = parser.parse_args()
    content = serve(load_model(given.model), tasks("train", given.tasks), given.record)
    print(f"\n{sum(content)} of {len(content)} customers are content")


if __name__ == "__main__":
    main()
