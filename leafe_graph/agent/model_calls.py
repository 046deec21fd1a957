"""Model calls within a budget, tried again where that may help.

A node that calls a model is a generator: it yields a `Call` and is sent the answer, so that one text serves the sync
and the async way. `spend` reserves the cost of each try in the ledger before it is made, and settles it after.
LangGraph would retry or time out the whole node: what a failed try has cost, and the branch's typed end, were lost.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.errors import GraphBubbleUp

from ..errors import BudgetExceeded, ConfigError, MissingDependency
from ..models.bounds import completion_bound, limits_tokens, prompt_bound
from ..models.checked import checked_answer
from ..models.connection import told
from ..types import Message
from .account import Account
from .context import Context, Model
from .retries import REFUSED, is_servers, pause

Update = dict[str, Any]
"""What a node changes of the state."""

RAISED = (GraphBubbleUp, ConfigError, MissingDependency)
"""What is raised, where a failure in the middle of a rollout ends its branch: errors of the caller's, and LangGraph's
own way of saying that a run is interrupted or handed over."""


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
        known = getattr(type(innermost(self.model)), "model_fields", ())
        return {k: v for k, v in wanted.items() if v is not None and k in known}


class CallFailed(Exception):
    """A call of ``model`` raised ``error``; as a text it says which server was asked."""

    def __init__(self, error: Exception, model: Model) -> None:
        super().__init__(told(error, innermost(model)))
        self.error = self.__cause__ = error


def spend(call: Call, account: Account, ctx: Context) -> Generator[Call, AIMessage, AIMessage]:
    """Have the call made within the budget, and again if it fails as ``ctx.retry`` says. The answer.

    Raises:
        BudgetExceeded: there is no room for the call; nothing was spent.
        CallFailed: it failed and is not tried again, or there is no room in the budget to do so.
    """
    call = replace(call, timeout=ctx.play.timeout)
    failures: list[CallFailed] = []
    while True:
        try:
            answer = yield from _try(call, account)
        except BudgetExceeded:
            if not failures:
                raise
            raise failures[-1] from None
        except CallFailed as failed:
            failures.append(failed)
            wait = pause(ctx.retry, len(failures), failed.error)
            if wait is None:
                if not isinstance(failed.error, REFUSED):
                    ctx.outage.failed(failed)
                if not is_servers(failed.error):
                    ctx.traceback.show(failed.error, "model")
                raise
            call = replace(call, wait=wait, reflections=0)
        else:
            ctx.outage.answered()
            return answer


def _try(call: Call, account: Account) -> Generator[Call, AIMessage, AIMessage]:
    """Reserve, call, settle. The answer."""
    started = time.perf_counter()
    reserved = {"prompt_tokens": 0, "completion_tokens": 0}
    if limits_tokens(account.ledger):
        try:
            reserved = {"prompt_tokens": _prompt_bound(call), "completion_tokens": _completion_bound(call)}
        except RAISED:
            raise
        except Exception as refused:  # a model that counts reads the prompt, and may not take it
            raise CallFailed(refused, call.model) from refused
    account.charge(model_calls=1, reflections=call.reflections, **reserved)
    error: Exception | None = None
    answer = AIMessage("")
    try:
        answer = checked_answer((yield call))
    except RAISED:  # an interrupt inside the model is no failure: LangGraph asks again on resume
        account.record(model_calls=-1, reflections=-call.reflections, **{k: -v for k, v in reserved.items()})
        raise
    except Exception as raised:
        error = raised
    if usage := answer.usage_metadata:
        used = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
    else:  # where the model does not count, the upper bound stands
        used = dict.fromkeys(reserved, 0) if error is not None else reserved
    account.record(**{k: used[k] - reserved[k] for k in reserved}, seconds=time.perf_counter() - started)
    if error is not None:
        raise CallFailed(error, call.model)
    return answer


def _prompt_bound(call: Call) -> int:
    tools = getattr(call.model, "kwargs", {}).get("tools", [])
    return prompt_bound(innermost(call.model), convert_to_messages(chat(call)), tools)


def _completion_bound(call: Call) -> int:
    return completion_bound(innermost(call.model), getattr(call.model, "kwargs", {}) | call.settings())


def innermost(model: Any) -> Any:
    """The model itself, without what is bound to it. A model with fallbacks is itself, whatever its first one is."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model


def chat(call: Call) -> list[dict[str, str]]:
    """A call's messages as chat models take them."""
    return [dict(m) for m in call.messages]  # type: ignore[arg-type]
