"""Who may know whom: a room imports rooms on lower floors only, and no files import each other in a circle."""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    "types errors text seeds",
    "settings terminal redaction clock",
    "budget prompts files parsing importing processes method_settings",
    "env models checkpoint tree strategies",
    "agent dataset evaluation serve tracing envs",
    "exploration report testing finetune",
    "phases",
    "methods",
    "rounds",
    "bench",
    "cli",
    "__main__",
]
"""Rooms, folders or files of ``leafe_graph``, from the lowest floor up. Its ``__init__`` hands on names of all."""
ONLY = {"finetune": "types errors text settings files parsing importing terminal models"}
"""Rooms that may know fewer: the trainer knows nothing that plays."""
NEVER = {"dataset": "langgraph", "evaluation": "langgraph"}
"""Packages that a room does without."""
PLACES = {"leafe_graph": "leafe_graph", "envs": "leafe_graph.envs", "finetune": "leafe_graph.finetune"}
"""Folders of the checkout, and the packages that they are."""
NAMED = re.compile(r"(leafe_graph(?:\.\w+)+):\w+")
"""How a table names what is imported only when it is asked for."""
FLOOR = {room: number for number, floor in enumerate(FLOORS, 1) for room in floor.split()}


def modules(root: Path) -> dict[str, Path]:
    """All modules by their dotted names."""
    found = {}
    for folder, package in PLACES.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = file
    return found


def room(module: str) -> str:
    """The room that a module is in; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, file: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and module of everything that a file imports, anywhere in it.

    Modules of ours that it names for others to import, as ``import_module("leafe_graph.x")`` and tables of
    ``"leafe_graph.x:name"`` do, are given as ``"named leafe_graph.x"``.
    """
    package = (module if file.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source
        elif isinstance(node, ast.Call) and re.search(r"\b(import_module|__import__)$", ast.unparse(node.func)):
            for text in (part.value for part in ast.walk(node) if isinstance(part, ast.Constant)):
                if isinstance(text, str) and text.startswith(("leafe_graph", ".")):
                    yield node.lineno, f"import_module {text}"
        elif isinstance(node, ast.Constant) and (named := NAMED.fullmatch(str(node.value))):
            yield node.lineno, f"named {named[1]}"


def wrong(root: Path) -> list[str]:
    """What breaks the rules, a line each."""
    known = modules(root)
    found, edges = list[str](), dict[str, set[str]]()
    for module, file in known.items():
        edges[module] = set()
        where, own = file.relative_to(root), room(module)
        for line, target in imports(module, file, known):
            if target.startswith("import_module "):
                if module != "leafe_graph":
                    found.append(f"{where}:{line}: {target}: a module of ours is imported by an import statement")
                continue
            if target.partition(".")[0] == NEVER.get(own):
                found.append(f"{where}:{line} imports {target}: {own} does without it")
            named, target = target.startswith("named "), target.removeprefix("named ")
            if target.partition(".")[0] != "leafe_graph" or module == "leafe_graph":
                continue
            if not named:
                edges[module].add(target)
            other = room(target)
            if own == other:
                continue
            if not other:
                found.append(f"{where}:{line} imports leafe_graph itself: import from the room that has the name")
            elif lost := [name for name in (own, other) if name not in FLOOR]:
                found.append(f"{where}:{line}: {lost[0]} stands on no floor: add it to FLOORS")
            elif FLOOR[other] >= FLOOR[own]:
                found.append(
                    f"{where}:{line} imports {known[target].relative_to(root)}: {own} is on floor {FLOOR[own]}, "
                    f"{other} on {FLOOR[other]}; a room imports rooms on lower floors only"
                )
            elif own in ONLY and other not in ONLY[own].split():
                found.append(f"{where}:{line} imports {known[target].relative_to(root)}: {own} knows only {ONLY[own]}")
    return found + circles(edges)


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Circles of imports: one for every import that closes one."""
    done: set[str] = set()
    found = []

    def follow(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" imports ".join([*path[path.index(module) :], module]) + ": a circle")
        elif module not in done:
            for target in sorted(edges.get(module, ())):
                follow(target, [*path, module])
            done.add(module)

    for module in sorted(edges):
        follow(module, [])
    return found


def test_rooms_import_rooms_on_lower_floors_only() -> None:
    """And no files import each other in a circle, however the import is written."""
    assert wrong(ROOT) == []


def test_every_room_says_its_floor() -> None:
    """Where a reader opens it."""
    for name, number in FLOOR.items():
        room = ROOT / "leafe_graph" / name if name not in PLACES else ROOT / name
        if room.is_dir():
            told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
            assert f"Floor {number}: it may know the floors below" in told, name


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("leafe_graph/tree/a.py", "from ..agent.graph import Agent", "imports leafe_graph/agent/graph.py: tree is on"),
        ("leafe_graph/tree/a.py", "import leafe_graph.cli.main", "imports leafe_graph/cli/main.py: tree is on floor"),
        ("leafe_graph/tree/a.py", "def f():\n    from ..rounds import run", "imports leafe_graph/rounds/__init__.py"),
        (
            "leafe_graph/tree/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..finetune.config import TrainConfig",
            "imports finetune/config.py: tree is on floor 4, finetune on 6",
        ),
        ("leafe_graph/cli/a.py", "import importlib\nimportlib.import_module('leafe_graph.tree')", "import statement"),
        ("leafe_graph/tree/a.py", "TABLE = {'a': 'leafe_graph.cli.main:main'}", "imports leafe_graph/cli/main.py"),
        ("leafe_graph/env/a.py", "from ..models.load import load_model", "env is on floor 4, models on 4"),
        ("envs/a.py", "from leafe_graph.dataset import export", "envs is on floor 5, dataset on 5"),
        ("finetune/a.py", "from leafe_graph.tree import RunFolder", "finetune knows only types"),
        ("leafe_graph/dataset/a.py", "import langgraph.graph", "dataset does without it"),
        ("leafe_graph/cli/a.py", "from leafe_graph import explore", "imports leafe_graph itself"),
        ("leafe_graph/news/a.py", "from ..types import Task", "news stands on no floor"),
        ("leafe_graph/tree/run_folder.py", "\ndef f():\n    from . import branches", ": a circle"),
    ],
)
def test_a_wrong_import_is_told_with_both_files_and_the_rule(file: str, text: str, says: str, tmp_path: Path) -> None:
    """Upwards, sideways, inside a function, under TYPE_CHECKING, by name, in a circle."""
    for folder in PLACES:
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda _, names: [n for n in names if n == "__pycache__"]
        )
    place = tmp_path / file
    place.parent.mkdir(exist_ok=True)
    with place.open("a", encoding="utf-8") as out:
        out.write(text + "\n")
    (told,) = wrong(tmp_path)
    assert says in told and (told.startswith(file) or "circle" in told)
