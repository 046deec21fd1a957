"""Model calls within a budget, tried again where that may help, and the two ways a node that needs them is run.

A node that calls a model is a generator: it yields a `Call` and is sent the answer, so that one text serves the sync
and the async way. `spend` reserves the cost of each try in the ledger before it is made, and settles it after.
LangGraph would retry or time out the whole node: what a failed try has cost, and the branch's typed end, were lost.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages
from langgraph.errors import GraphBubbleUp

from ..budget import Ledger, add_costs, no_cost
from ..errors import BudgetExceeded, ConfigError, MissingDependency
from ..types import Cost, Message
from .context import Context, Model
from .retries import REFUSED, pause

Update = dict[str, Any]
"""What a node changes of the state."""

MISUSE = (ConfigError, MissingDependency)
"""Errors of the caller's: they are raised, where a failure in the middle of a rollout ends its branch."""


@dataclass(frozen=True)
class Call:
    """A model call that a node wants made, synchronously or not."""

    model: Model
    messages: Sequence[Message]
    max_tokens: int | None
    seed: int | None
    reflections: int = 0
    timeout: float | None = None
    """Seconds that the answer may take."""
    wait: float = 0.0
    """Seconds to wait before the call is made."""

    def settings(self) -> dict[str, Any]:
        """Call keywords that the model takes."""
        wanted = {"max_tokens": self.max_tokens, "seed": self.seed}
        return {k: v for k, v in wanted.items() if v is not None and k in _fields(self.model)}


class CallFailed(Exception):
    """A model call raised; what it had cost by then."""

    def __init__(self, error: Exception, cost: Cost) -> None:
        super().__init__(str(error))
        self.error, self.cost = error, cost


def spend(call: Call, ledger: Ledger, ctx: Context) -> Generator[Call, AIMessage, tuple[AIMessage, Cost]]:
    """Have the call made within the budget, and again if it fails as ``ctx.retry`` says. The answer and the whole cost.

    Raises:
        BudgetExceeded: there is no room for the call; nothing was spent.
        CallFailed: it failed and is not tried again, or there is no room in the budget to do so.
    """
    whole, call = no_cost(), replace(call, timeout=ctx.timeout)
    errors: list[Exception] = []
    while True:
        try:
            answer, cost = yield from _try(call, ledger)
        except BudgetExceeded:
            if not errors:
                raise
            raise CallFailed(errors[-1], whole) from None
        except CallFailed as failed:
            errors.append(failed.error)
            whole = add_costs(whole, failed.cost)
            wait = pause(ctx.retry, len(errors), failed.error)
            if wait is None:
                if not isinstance(failed.error, REFUSED):
                    ctx.failed_calls.append(failed.error)
                raise CallFailed(failed.error, whole) from None
            call = replace(call, wait=wait, reflections=0)
        else:
            ctx.failed_calls.clear()
            return answer, add_costs(whole, cost)


def _try(call: Call, ledger: Ledger) -> Generator[Call, AIMessage, tuple[AIMessage, Cost]]:
    """Reserve, call, settle. The answer and its cost."""
    cost, started = no_cost(), time.perf_counter()
    cost["model_calls"], cost["reflections"] = 1, call.reflections
    reserved = {"prompt_tokens": 0, "completion_tokens": 0}
    if ledger_limits_tokens(ledger):
        reserved = {"prompt_tokens": _prompt_bound(call), "completion_tokens": _completion_bound(call)}
    ledger.charge(model_calls=1, reflections=call.reflections, **reserved)
    error: Exception | None = None
    answer = AIMessage("")
    try:
        answer = yield call
    except (GraphBubbleUp, *MISUSE):  # an interrupt inside the model is no failure: LangGraph asks again on resume
        ledger.record(model_calls=-1, reflections=-call.reflections, **{k: -v for k, v in reserved.items()})
        raise
    except Exception as raised:
        error = raised
    if usage := answer.usage_metadata:
        cost["prompt_tokens"], cost["completion_tokens"] = usage["input_tokens"], usage["output_tokens"]
    elif error is None:  # the model does not count: the upper bound stands
        cost["prompt_tokens"], cost["completion_tokens"] = reserved["prompt_tokens"], reserved["completion_tokens"]
    cost["seconds"] = time.perf_counter() - started
    ledger.record(
        prompt_tokens=cost["prompt_tokens"] - reserved["prompt_tokens"],
        completion_tokens=cost["completion_tokens"] - reserved["completion_tokens"],
        seconds=cost["seconds"],
    )
    if error is not None:
        raise CallFailed(error, cost)
    return answer, cost


def ledger_limits_tokens(ledger: Ledger | None) -> bool:
    """Whether any ledger up the chain limits tokens."""
    while ledger is not None:
        if ledger.budget.prompt_tokens is not None or ledger.budget.completion_tokens is not None:
            return True
        ledger = ledger.parent
    return False


def _prompt_bound(call: Call) -> int:
    """An upper bound of the prompt's tokens: exact where the model counts, else a token a byte.

    A chat template's own words are given 16 a message and 64 in all.
    """
    count = getattr(_innermost(call.model), "count_prompt_tokens", None)
    if count is not None:
        return int(count(convert_to_messages(_chat(call))))
    tools = getattr(call.model, "kwargs", {}).get("tools", [])
    return 64 + len(repr(tools)) + sum(len(m["content"].encode()) + 16 for m in call.messages)


def _completion_bound(call: Call) -> int:
    given = getattr(call.model, "kwargs", {}) | call.settings()
    limit = given.get("max_tokens") or getattr(_innermost(call.model), "max_tokens", None)
    if limit is None:
        raise ConfigError(
            "the budget limits tokens, but the model has no max_tokens, so an answer's length cannot be bounded "
            "beforehand: set max_tokens on the model or on the agent"
        )
    return int(limit)


def _innermost(model: Any) -> Any:
    while hasattr(model, "bound"):
        model = model.bound
    return model


def _fields(model: Any) -> set[str]:
    return set(getattr(type(_innermost(model)), "model_fields", ()))


# ---- from node functions to what LangGraph runs


def _chat(call: Call) -> list[dict[str, str]]:
    return [dict(m) for m in call.messages]  # type: ignore[arg-type]
