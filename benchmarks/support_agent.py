"""The support agent with a weak policy: success with `LeafeMiddleware` and with plain retries, at equal model calls.

    python -m benchmarks.support_policy --out runs/support-policy
    python -m benchmarks.support_agent --policy runs/support-policy --out runs/support-study

Made as by default the policy is weak: 3 of 100 first attempts are right (docs/results.md). It is taught on with
`--start`; what it can do is to be seen with ``--split validation`` before the test customers are played.

Each customer of a split is served until content or until so many calls of the model are spent; a reflection is a call
as any other. Every method begins an attempt with a fresh shop, mails included, and is told by the judge when one is
right:

- *retries*: the agent as it is, over and over;
- *middleware*: the agent with `LeafeMiddleware`; when it may go back no more, afresh;
- *without experience*: the same, but nothing is told after a rewind;
- *from the start*: the same experience, told from the first decision on, to an attempt that begins anew.

Resumed where it was left. The figures are means over customers, each a mean over seeds; intervals are percentiles of a
bootstrap over customers, differences paired by customer.
"""

import argparse
import json
import logging
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from benchmarks.support_clerk import LONGEST, PROMPTS
from examples import support_agent
from leafe_graph import Prompts, Task, load_model
from leafe_graph.evaluation.statistics import bootstrap, dot, mean_interval

METHODS = ("retries", "middleware", "without experience", "from the start")
UNTOLD = Prompts(**PROMPTS.texts | {"experience": ""})


class SpentError(Exception):
    """No call is left."""


class Metered(BaseChatModel):
    """A policy whose calls are counted, seeded and limited."""

    policy: Any
    limit: int
    seed: str
    calls: int = 0
    reflections: int = 0
    tool_calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "metered"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """LangChain's."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.calls == self.limit:
            raise SpentError
        self.calls += 1
        self.reflections += "tools" not in kwargs
        if sum(message.type == "ai" for message in messages) >= LONGEST - 1:  # an attempt ends, whatever it does
            return ChatResult(generations=[ChatGeneration(message=AIMessage("Done."))])
        seed = random.Random(f"{self.seed} {self.calls}").getrandbits(31)
        answer: ChatResult = self.policy._generate(messages, seed=seed, **kwargs)
        self.tool_calls += len(answer.generations[0].message.tool_calls)  # type: ignore[attr-defined]
        return answer


class FromStart(BaseChatModel):
    """A reflector whose reflections go back to the first decision."""

    model: Metered

    @property
    def _llm_type(self) -> str:
        return "from-start"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answer = self.model._generate(messages)
        said = re.sub(r'"step": *\d+', '"step": 0', str(answer.generations[0].message.text))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])


def play(policy: Any, method: str, task: Task, seed: int, limit: int, rewinds: int) -> dict[str, Any]:
    """Serve a customer until content, or until the calls are spent."""
    model = Metered(policy=policy, limit=limit, seed=f"{method} {task['id']} {seed}")
    content, attempts, verdicts = False, 0, Counter[str]()
    while not content and model.calls < limit:
        shop = support_agent.world(task)
        agent = support_agent.build(model, shop)
        if method != "retries":
            agent = support_agent.learning(
                model,
                shop,
                prompts=UNTOLD if method == "without experience" else PROMPTS,
                reflector=FromStart(model=model) if method == "from the start" else None,
                max_rewinds=rewinds,
            )
        attempts += 1
        try:
            asked = {"messages": [HumanMessage(task["instruction"])]}
            for event in agent.stream(asked, {"recursion_limit": 1000}, context=task, stream_mode="custom"):
                verdicts.update([event["leafe"]["verdict"]] if "verdict" in event["leafe"] else [])
        except SpentError:
            break
        content = support_agent.judge(None, shop, task).success is True
    return {
        "method": method,
        "task": task["id"],
        "seed": seed,
        "mail": "mail" in task["instruction"],
        "content": content,
        "calls": model.calls,
        "tool_calls": model.tool_calls,
        "reflections": model.reflections,
        "attempts": attempts,
        "verdicts": dict(verdicts),
    }


def study(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All that is to be played and is not yet in the file; what is there in the end."""
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "played.jsonl"
    setting = {"split": given.split, "calls": given.calls, "rewinds": given.rewinds}
    lines = file.read_text().splitlines() if file.exists() else []
    played = [each for each in map(json.loads, lines) if each["setting"] == setting]
    known = {(each["seed"], each["method"], each["task"]) for each in played}
    policy = load_model(f"local:{given.policy}", max_tokens=24)
    tasks = support_agent.tasks(given.split, given.tasks)
    wanted = [
        each
        for each in product(range(given.seeds), given.methods, tasks)
        if (each[0], each[1], each[2]["id"]) not in known
    ]
    logging.getLogger("leafe_graph").setLevel(logging.ERROR)  # a reflection that finds no call left
    with ThreadPoolExecutor(given.threads) as pool, file.open("a") as out:
        for record in pool.map(
            lambda each: play(policy, each[1], each[2], each[0], given.calls, given.rewinds), wanted
        ):
            played.append(record)
            out.write(json.dumps(record | {"setting": setting}) + "\n")
            out.flush()
    return played


def table(played: list[dict[str, Any]], calls: int, resamples: int = 10_000) -> str:
    """Success by the calls that were spent, what it took, and each method against retries."""
    methods = [method for method in METHODS if any(each["method"] == method for each in played)]
    limits = [limit for limit in (8, 16, 24, 32, 48) if limit <= calls]

    def of(method: str, figure: Any, some: Any = lambda each: True) -> list[float]:
        """A figure of each customer."""
        found: dict[str, list[float]] = {}
        for each in played:
            if each["method"] == method and some(each):
                found.setdefault(each["task"], []).append(float(figure(each)))
        return [fmean(found[task]) for task in sorted(found)]

    def said(values: list[float], lowest: float) -> str:
        if not values:
            return "–"
        (means,) = dot(bootstrap(len(values), resamples, 0), [values])
        sign = "+" if lowest else ""
        mean, low, high, _ = (100 * each for each in mean_interval(values, means, lowest, 1))
        return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"

    def within(limit: int) -> Any:
        return lambda each: each["content"] and each["calls"] <= limit

    head = "".join(f" {limit} calls |" for limit in limits)
    rows = [f"| content within |{head} without mail | with mail |", "|---|" + "---|" * (len(limits) + 2)]
    parts = [lambda each: not each["mail"], lambda each: each["mail"]]
    for method in methods:
        cells = [said(of(method, within(limit)), 0) for limit in limits]
        cells += [said(of(method, within(calls), part), 0) for part in parts]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    for method in methods[1:]:
        cells = []
        for limit, some in [*((limit, lambda each: True) for limit in limits), *((calls, part) for part in parts)]:
            pairs = zip(of(method, within(limit), some), of(methods[0], within(limit), some), strict=True)
            cells.append(said([one - other for one, other in pairs], -1))
        rows.append(f"| {method} − {methods[0]} | {' | '.join(cells)} |")
    rows += ["", "| a customer | calls | reflections | tool calls | attempts begun | rewinds |", "|---|" + "---:|" * 5]
    for method in methods:
        figures = [
            fmean(of(method, lambda each, name=name: each[name]))
            for name in ("calls", "reflections", "tool_calls", "attempts")
        ]
        back = fmean(of(method, lambda each: each["verdicts"].get("rewind", 0)))
        rows.append(f"| {method} | {' | '.join(f'{each:.1f}' for each in [*figures, back])} |")
    first = said(of(methods[0], lambda each: each["content"] and each["attempts"] == 1), 0)
    return "\n".join([*rows, "", f"Content with the first attempt of {methods[0]}: {first}"])


def main(arguments: list[str] | None = None) -> None:
    """Play, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a model folder that knows these texts")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--split", default="test", help="whose customers")
    parser.add_argument("--tasks", type=int, default=50, help="customers")
    parser.add_argument("--seeds", type=int, default=8, help="repetitions of each")
    parser.add_argument("--calls", type=int, default=32, help="of the model, for each customer")
    parser.add_argument("--rewinds", type=int, default=3, help="of the middleware, before it begins afresh")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--threads", type=int, default=16, help="customers at once")
    given = parser.parse_args(arguments)
    played = study(given)
    text = table(played, given.calls)
    (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
