"""A single question to a model outside of any branch, within the same rules: retries, limits of time, what it cost."""

import logging
from collections.abc import Generator, Sequence
from typing import Any, cast

from ..budget import add_costs, no_cost
from ..types import Cost, Message, ModelMessage
from .account import Account
from .context import Context, Model
from .model_calls import Call, CallFailed, spend
from .records import model_message
from .runnables import driven, later
from .state import State

log = logging.getLogger(__name__)


async def ask(
    model: Model,
    messages: Sequence[Message],
    context: Context,
    *,
    max_tokens: int | None = None,
    seed: int | None = None,
    reflections: int = 0,
) -> tuple[ModelMessage | None, Cost]:
    """What the model says, None where the call failed for good; and what that took.

    Args:
        model: who is asked.
        messages: the question.
        context: how it is asked: timeout, retries, outage.
        max_tokens: new tokens, for models that take it.
        seed: of sampling, for models that take one.
        reflections: as how many reflections it counts.
    """
    call = Call(model=model, messages=messages, max_tokens=max_tokens, seed=seed, reflections=reflections)

    def node(state: State, ctx: Context) -> Generator[Call, Any, dict[str, Any]]:
        account, answer = Account(state, ctx), None
        try:
            answer = yield from spend(call, account, ctx)
        except CallFailed as failed:
            log.warning("a call failed: %s", failed)
        return {"answer": answer, "cost": account.cost}

    told = await driven(node, cast(State, {"cost": no_cost()}), context, later)
    return None if told["answer"] is None else model_message(told["answer"]), add_costs(told["cost"])
