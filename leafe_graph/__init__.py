"""LEAFE for LangGraph: agents that rewind to their mistakes, try again knowing better, and learn from it.

``create_leafe_agent`` is the agent, ``explore`` grows experience trees, ``export`` turns them into training rows,
`leafe_graph.finetune` trains on them and ``compare`` judges the result. Names are imported when they are first used, so
``import leafe_graph`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent.context import Context
    from .agent.graph import create_leafe_agent, create_leafe_graph
    from .agent.middleware import LeafeMiddleware as LeafeMiddleware  # needs an extra, so no `import *` has it
    from .agent.state import State
    from .agent.verdict import Verdict
    from .budget import Budget, Ledger
    from .checkpoint.postgres import PostgresTreeSaver
    from .checkpoint.sqlite import TreeSaver
    from .dataset.export import export
    from .dataset.summary import Summary
    from .env.pool import EnvPool
    from .env.protocol import Guide, SnapshotEnv, TextEnv
    from .env.subprocess_env import SubprocessEnv
    from .env.worlds.objects import PyObject
    from .env.worlds.protocol import STATELESS, World
    from .env.worlds.sandbox import Sandbox
    from .env.worlds.sqlite import SqliteFile
    from .env.worlds.workspace import Workspace
    from .errors import (
        BudgetExceeded,
        CheckpointError,
        ConfigError,
        EnvError,
        EnvLost,
        ExampleError,
        LeafeError,
        MissingDependency,
        ModelError,
        NothingPlayed,
        PromptError,
        ReplayDivergence,
        RunFolderError,
        WorkersLost,
        WorldBusy,
        WorldError,
        WorldLost,
    )
    from .evaluation.compare import Comparison, compare
    from .evaluation.results import Result, pass_at_k, result_from_branches
    from .exploration.explore import aexplore, explore
    from .exploration.explore_agent import aexplore_agent, explore_agent
    from .exploration.pruning import prune
    from .importing import __version__ as __version__
    from .models.door import policy
    from .models.episode import Decision, Episode
    from .models.load import load_model
    from .prompts import Prompts
    from .serve.server import VllmServer
    from .settings import Limits, Workers
    from .tracing.sending import trace
    from .tree.run_folder import RunFolder
    from .types import Branch, Cost, Divergence, EndReason, Example, Message, ModelMessage, Reflection, Task, Turn

__all__ = [
    "STATELESS",
    "Branch",
    "Budget",
    "BudgetExceeded",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "Context",
    "Cost",
    "Decision",
    "Divergence",
    "EndReason",
    "EnvError",
    "EnvLost",
    "EnvPool",
    "Episode",
    "Example",
    "ExampleError",
    "Guide",
    "LeafeError",
    "Ledger",
    "Limits",
    "Message",
    "MissingDependency",
    "ModelError",
    "ModelMessage",
    "NothingPlayed",
    "PostgresTreeSaver",
    "PromptError",
    "Prompts",
    "PyObject",
    "Reflection",
    "ReplayDivergence",
    "Result",
    "RunFolder",
    "RunFolderError",
    "Sandbox",
    "SnapshotEnv",
    "SqliteFile",
    "State",
    "SubprocessEnv",
    "Summary",
    "Task",
    "TextEnv",
    "TreeSaver",
    "Turn",
    "Verdict",
    "VllmServer",
    "Workers",
    "WorkersLost",
    "Workspace",
    "World",
    "WorldBusy",
    "WorldError",
    "WorldLost",
    "aexplore",
    "aexplore_agent",
    "compare",
    "create_leafe_agent",
    "create_leafe_graph",
    "explore",
    "explore_agent",
    "export",
    "load_model",
    "pass_at_k",
    "policy",
    "prune",
    "result_from_branches",
    "trace",
]

_HOME = {
    name: module
    for module, names in {
        "agent.context": "Context",
        "agent.graph": "create_leafe_agent create_leafe_graph",
        "agent.middleware": "LeafeMiddleware",
        "agent.state": "State",
        "agent.verdict": "Verdict",
        "budget": "Budget Ledger",
        "checkpoint.postgres": "PostgresTreeSaver",
        "checkpoint.sqlite": "TreeSaver",
        "dataset.export": "export",
        "dataset.summary": "Summary",
        "env.pool": "EnvPool",
        "env.protocol": "Guide SnapshotEnv TextEnv",
        "env.subprocess_env": "SubprocessEnv",
        "env.worlds.objects": "PyObject",
        "env.worlds.protocol": "STATELESS World",
        "env.worlds.sandbox": "Sandbox",
        "env.worlds.sqlite": "SqliteFile",
        "env.worlds.workspace": "Workspace",
        "errors": "BudgetExceeded CheckpointError ConfigError EnvError EnvLost ExampleError LeafeError "
        "MissingDependency ModelError NothingPlayed PromptError ReplayDivergence RunFolderError "
        "WorkersLost WorldBusy WorldError WorldLost",
        "evaluation.compare": "Comparison compare",
        "evaluation.results": "Result pass_at_k result_from_branches",
        "exploration.explore": "aexplore explore",
        "exploration.explore_agent": "aexplore_agent explore_agent",
        "exploration.pruning": "prune",
        "importing": "__version__",
        "models.door": "policy",
        "models.episode": "Decision Episode",
        "models.load": "load_model",
        "prompts": "Prompts",
        "serve.server": "VllmServer",
        "settings": "Limits Workers",
        "tracing.sending": "trace",
        "tree.run_folder": "RunFolder",
        "types": "Branch Cost Divergence EndReason Example Message ModelMessage Reflection Task Turn",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
