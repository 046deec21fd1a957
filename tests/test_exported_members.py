"""What the package exports, and that exporting it costs nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import leafe_graph

HEAVY = ["torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "langgraph", "langchain_core", "rich"]

EXPORTED = {
    "create_leafe_agent",
    "create_leafe_graph",
    "State",
    "Context",
    "Prompts",
    "load_model",
    "policy",
    "LeafeMiddleware",
    "Verdict",
    "Episode",
    "Decision",
    "VllmServer",
    "explore",
    "aexplore",
    "explore_agent",
    "aexplore_agent",
    "Limits",
    "Budget",
    "Ledger",
    "RunFolder",
    "TreeSaver",
    "PostgresTreeSaver",
    "prune",
    "trace",
    "export",
    "Summary",
    "compare",
    "pass_at_k",
    "result_from_branches",
    "Result",
    "Comparison",
    "TextEnv",
    "Guide",
    "SnapshotEnv",
    "EnvPool",
    "SubprocessEnv",
    "World",
    "PyObject",
    "Workspace",
    "SqliteFile",
    "Sandbox",
    "STATELESS",
    "Task",
    "Turn",
    "Message",
    "ModelMessage",
    "Reflection",
    "Branch",
    "Example",
    "Cost",
    "Divergence",
    "EndReason",
    "LeafeError",
    "BudgetExceeded",
    "CheckpointError",
    "ConfigError",
    "EnvError",
    "EnvLost",
    "ExampleError",
    "MissingDependency",
    "ModelError",
    "NothingPlayed",
    "PromptError",
    "ReplayDivergence",
    "RunFolderError",
    "Workers",
    "WorkersLost",
    "WorldBusy",
    "WorldError",
    "WorldLost",
}


def test_exactly_these_names_are_exported() -> None:
    """A name joins or leaves the public surface on purpose only."""
    assert {*leafe_graph.__all__, "LeafeMiddleware"} == EXPORTED  # which ``import *`` could not bring without its extra
    assert set(dir(leafe_graph)) >= EXPORTED


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_a_name_is_what_its_module_holds(name: str) -> None:
    """Importing lazily gives the very object."""
    module = importlib.import_module(f"leafe_graph.{leafe_graph._HOME[name]}")
    assert getattr(leafe_graph, name) is getattr(module, name)


def test_type_checkers_see_the_same_names() -> None:
    """What is imported for them and what is imported at run time come from the same modules."""
    tree = ast.parse(Path(leafe_graph.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imported for alias in node.names} == leafe_graph._HOME


def test_functions_are_not_hidden_by_modules_of_the_same_name() -> None:
    """``explore`` and ``export`` are functions, whatever was imported before."""
    code = """
import leafe_graph.exploration.explore, leafe_graph.dataset.export
from leafe_graph import explore, export
assert callable(explore) and callable(export)
from leafe_graph.exploration.explore import aexplore
assert callable(leafe_graph.exploration.explore) and callable(leafe_graph.dataset.export)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        leafe_graph.nothing  # noqa: B018


@pytest.mark.parametrize("modules", ["leafe_graph", "leafe_graph, leafe_graph.finetune", "leafe_graph.cli"])
def test_importing_is_light(modules: str) -> None:
    """Nothing heavy is loaded before it is used."""
    code = f"import sys, {modules}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_environments_need_no_torch() -> None:
    """The agent, its environments and the fine-tuning package load without it."""
    code = (
        "import sys, leafe_graph, leafe_graph.envs.sokoban, leafe_graph.finetune.train, leafe_graph.finetune.tokens\n"
        "for name in leafe_graph.__all__: getattr(leafe_graph, name)\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'datasets', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
