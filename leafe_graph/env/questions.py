"""LangGraph's ``interrupt()`` inside an environment: a step may ask, what is only played again may not.

A node that was interrupted is run again from its start, and LangGraph gives the answers to the calls of ``interrupt()``
in their order. A replay on the way there must not take them: they belong to the step that asked.
"""

from collections.abc import Callable
from typing import TypeVar

from ..errors import ConfigError

T = TypeVar("T")
_LANGGRAPHS = "__pregel_"


def without_questions(function: Callable[[], T]) -> T:
    """Call it where ``interrupt()`` fails, and store and stream writer still work."""
    from langchain_core.runnables.config import ensure_config, set_config_context
    from langgraph.runtime import Runtime

    config = ensure_config()
    kept = {
        name: value
        for name, value in config.get("configurable", {}).items()
        if not name.startswith(_LANGGRAPHS) or isinstance(value, Runtime)
    }
    with set_config_context({**config, "configurable": kept}) as context:
        return context.run(function)


def asked_in_vain(error: BaseException) -> ConfigError | None:
    """What to say where ``interrupt()`` failed because nobody could be asked; None where that is not what happened."""
    told = str(error)
    by_replay = isinstance(error, KeyError) and _LANGGRAPHS in told
    by_process = isinstance(error, RuntimeError) and "outside of a runnable context" in told
    if not (by_replay or by_process):
        return None
    where = (
        "while the way back to a decision point was played again, where an answer would be another's: give it "
        "snapshot() and restore(), and ask in step() alone"
        if by_replay
        else "in a process or thread of its own: run it in this one, without SubprocessEnv or --env-timeout"
    )
    return ConfigError(f"the environment called interrupt() {where}")
