"""Which model calls are tried again, and when. In LangGraph's terms, but for single calls: see model_calls.py."""

import random
from collections.abc import Sequence

from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError
from langgraph.types import RetryPolicy

from ..errors import LeafeError, PromptError
from ..settings import Play

RETRY = RetryPolicy(initial_interval=1.0, backoff_factor=2.0, max_interval=30.0, max_attempts=Play().tries)
"""The waits between tries; a run's ``tries`` say how many there are."""

REFUSED = (ModelInvalidRequestError, ContextOverflowError, PromptError)
"""Errors of one prompt, by which the model shows that it is well."""


def retries(policy: RetryPolicy | None, tries: int) -> RetryPolicy | None:
    """The policy, with as many tries as the settings say unless it is one of the caller's own."""
    return RETRY._replace(max_attempts=tries) if policy is RETRY else policy


def transient(error: Exception) -> bool:
    """Whether the same call may succeed a little later: rate limits, a server's failures, timeouts, lost connections.

    By LangChain's classes of errors, and by the HTTP status where an integration does not use them.
    """
    if isinstance(error, ModelError):
        return error.is_retryable
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 409, 425, 429)
    return isinstance(error, TimeoutError | ConnectionError)


def is_servers(error: Exception) -> bool:
    """Whether a server, or the way to it, is to blame: then a traceback says nothing that the error does not."""
    return transient(error) or isinstance(error, ModelError | LeafeError) or hasattr(error, "status_code")


def pause(policy: RetryPolicy | None, tries: int, error: Exception) -> float | None:
    """Seconds before a call that failed ``tries`` times, the last time with ``error``, is made again; None is never.

    It is what the server asks for in ``Retry-After``, else the policy's backoff. A policy with RetryPolicy's own
    ``retry_on`` is read as one for `transient` errors: LangGraph's default would send a bad request again.
    """
    if policy is None or tries >= policy.max_attempts:
        return None
    on = transient if policy.retry_on is RetryPolicy().retry_on else policy.retry_on
    if isinstance(on, Sequence):
        on = tuple(on)
    if not (isinstance(error, on) if isinstance(on, type | tuple) else on(error)):
        return None
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return min(policy.max_interval, max(0.0, float(headers["retry-after"])))
    except (KeyError, TypeError, ValueError):
        interval = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (tries - 1))
        return interval + (random.uniform(0, 1) if policy.jitter else 0)
