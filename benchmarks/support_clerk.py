"""Lessons for a policy that is to serve the customers of `examples/support_agent.py`: a clerk's conversations.

The clerk knows what is right and slips: takes the wrong tool, order, colour or city, forgets a wish, or does what the
rules forbid. What was wrong is known, so there are lessons in reflecting and in following an experience, too.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from rich.progress import track

from examples import support_agent
from leafe_graph import Prompts, Task
from leafe_graph.agent.points import Point, fresh_turn
from leafe_graph.agent.transcript import reflect_messages
from leafe_graph.models.episode import with_experience
from leafe_graph.terminal.console import errors

Skill = Literal["act", "follow", "reflect"]
Call = tuple[str, dict[str, Any]]

PROMPTS = Prompts(
    experience="Experience: {experience}",
    reflect="{start}\n{steps}\n{observation}\n{status} Mistake?",
    step="{action} -> {feedback} (step {number})",
)
LOOKS = ("find_orders", "look_at_order")
FAILURES = (0.2, 0.4)
"""How often slips who makes the attempts that are reflected upon."""
LONGEST = 16
"""Decisions of an attempt."""


class Clerk:
    """A conversation with a customer, by one who knows what is right and slips.

    Args:
        slip: how probable a slip is at each wish; a forgotten one beside that is a quarter as probable.
    """

    def __init__(self, task: Task, rng: random.Random, slip: float) -> None:
        self.task, self.rng, self.slip = task, rng, slip
        options: Any = task.get("options")
        self.customer, self.orders, self.mailed = options["customer"], options["orders"], bool(options["mails"])
        right = {each["id"]: each for each in options["right"]}
        self.wishes = [(order, asked, right[order] != of) for order, asked, of in self._asked()]
        self.wanted: list[Call] = [call for _, call, possible in self.wishes if possible]
        """Changes that are right."""
        self.world = support_agent.world(task)
        self.tools = {tool.__name__: tool for tool in support_agent.support_tools(self.world.path)}
        self.messages: list[AnyMessage] = [HumanMessage(task["instruction"])]
        self.calls: list[Call | None] = []
        """Decisions; None ends the conversation."""
        self.done: set[int] = set()
        """Orders with which the clerk is through."""

    def _asked(self) -> Iterator[tuple[int, Call, Any]]:
        """Order, the change that is asked for, and the order's row."""
        for sentence in self.task["instruction"].split(". "):
            if not (found := re.search(r"the (\w+) (\w+)", sentence)):
                continue
            (of,) = [
                each
                for each in self.orders
                if (each["colour"], each["item"], each["customer"]) == (*found.groups(), self.customer)
            ]
            last = sentence.rstrip(".").split()[-1]
            call: Call = ("cancel_order" if of["status"] == "pending" else "return_order", {"order": of["id"]})
            if sentence.startswith("Send"):
                call = ("redirect_order", {"order": of["id"], "city": last})
            elif " in " in sentence:
                call = ("exchange_order", {"order": of["id"], "colour": last})
            yield of["id"], call, of

    def right(self) -> Call | None:
        """What is to be done next."""
        if not any(call and call[0] == "find_orders" for call in self.calls):
            return "find_orders", {"customer": self.customer}
        for order, asked, possible in self.wishes:
            if order in self.done:
                continue
            if (look := ("look_at_order", {"order": order})) not in self.calls:
                return look
            if possible and asked not in self.calls:
                return asked
        if self.mailed and not any(call and call[0] == "send_mail" for call in self.calls):
            return "send_mail", {"customer": self.customer, "text": "Done."}
        return None

    def next(self) -> Call | None:
        """What the clerk does next."""
        rng = self.rng
        for order, asked, possible in self.wishes:  # what cannot be done is done all the same
            looked = self.calls and self.calls[-1] == ("look_at_order", {"order": order})
            if looked and not possible and order not in self.done:
                self.done.add(order)
                if rng.random() < self.slip:
                    return asked
        call = self.right()
        if call is None or call[0] in ("find_orders", "send_mail"):
            return call
        name, given = call
        order = given["order"]
        if name == "look_at_order":
            if rng.random() < self.slip / 4:
                self.done.add(order)  # forgotten
                return self.next()
            return call
        self.done.add(order)
        if rng.random() >= self.slip:
            return call
        others = [each["id"] for each in self.orders if each["customer"] == self.customer and each["id"] != order]
        slips: list[Call] = [(name, {**given, "order": other}) for other in others[:1] + others[-1:]]
        slips += [(other, {"order": order}) for other in ("cancel_order", "return_order") if other != name]
        slips += [(name, {**given, "colour": rng.choice(support_agent.COLOURS)})] * 2 * (name == "exchange_order")
        slips += [(name, {**given, "city": rng.choice(support_agent.CITIES)})] * 2 * (name == "redirect_order")
        return rng.choice(slips)

    def take(self, call: Call | None) -> None:
        """Do it."""
        self.calls.append(call)
        if call is None:
            self.messages.append(AIMessage("Done."))
            return
        name, given = call
        own = f"call{len(self.calls)}"
        self.messages.append(AIMessage("", tool_calls=[{"name": name, "args": given, "id": own}]))
        self.messages.append(ToolMessage(self.tools[name](**given), name=name, tool_call_id=own))

    def serve(self) -> "Clerk":
        """To the end of the conversation."""
        while not self.calls or self.calls[-1] is not None:
            self.take(self.next() if len(self.calls) < LONGEST - 1 else None)
        return self

    def mistake(self) -> int | None:
        """The first decision that changed something wrongly, else the last one; None where it cannot be undone."""
        mails = [t for t, call in enumerate(self.calls) if call and call[0] == "send_mail"]
        first = mails[0] + 1 if mails else 0
        wrong = [
            t
            for t, call in enumerate(self.calls)
            if call
            and call[0] not in LOOKS
            and call not in self.wanted
            and not (call[0] == "send_mail" and self.mailed)
        ]
        found = wrong[0] if wrong else len(self.calls) - 1
        return found if found >= first else None

    def asked_to_reflect(self) -> list[AnyMessage]:
        """What the middleware asks about the attempt."""
        verdict = support_agent.judge(None, self.world, self.task)
        mails = [t for t, call in enumerate(self.calls) if call and call[0] == "send_mail"]
        points = [
            Point(t=t, n=1 + 2 * t, ids="", refs=[], process="", kept={}, seen={}) for t in range(len(self.calls))
        ]
        progress = fresh_turn("") | {"points": points, "next": len(points), "first": mails[-1] + 1 if mails else 0}
        asked = reflect_messages(PROMPTS, self.messages, progress, ended=True, feedback=verdict.feedback)  # type: ignore[arg-type]
        return [HumanMessage(message["content"]) for message in asked]


def told(call: Call | None) -> str:
    """The experience that speaks against a decision."""
    return "Do not " + ("end" if call is None else " ".join([call[0], *(str(value) for value in call[1].values())]))


def lessons(tasks: Sequence[Task], rng: random.Random, slip: float) -> Iterator[tuple[Skill, list[AnyMessage]]]:
    """Conversations: of an acting one all answers are taught, of the others the last."""
    for task in track(tasks, "the clerk's conversations", console=errors):
        yield "act", Clerk(task, rng, slip).serve().messages
        for more in FAILURES:
            failed = Clerk(task, rng, more).serve()
            if support_agent.judge(None, failed.world, task).success:
                continue
            at = failed.mistake()
            if at is None:
                yield "reflect", [*failed.asked_to_reflect(), AIMessage('{"step": null}')]
                continue
            experience = told(failed.calls[at])
            answer = json.dumps({"step": at, "experience": experience})
            yield "reflect", [*failed.asked_to_reflect(), AIMessage(answer)]
            again = Clerk(task, rng, slip)
            for call in failed.calls[:at]:
                again.take(call)
            again.take(again.right())
            if again.calls[-1] is not None:
                again.serve()
            tell = partial(with_experience, experience=PROMPTS.experience.format(experience=experience))
            for t in {at, rng.randrange(at, len(again.calls))}:
                yield "follow", [*tell(again.messages[: 1 + 2 * t]), again.messages[1 + 2 * t]]
