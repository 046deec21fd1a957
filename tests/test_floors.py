"""Who may know whom: a room imports rooms on lower floors only, and no files import each other in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    "types errors text",
    "settings",
    "budget prompts files importing processes",
    "env models checkpoint tree strategies",
    "agent dataset evaluation serve envs",
    "exploration report testing finetune",
    "phases",
    "methods",
    "rounds",
    "cli",
    "__main__",
]
"""Rooms, folders or files of ``leafe_graph``, from the lowest floor up. Its ``__init__`` hands on names of all."""
PLACES = {"leafe_graph": "leafe_graph", "envs": "leafe_graph.envs", "finetune": "leafe_graph.finetune"}
"""Folders of the checkout, and the packages that they are."""
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
    """Line and module of everything of ours that a file imports: anywhere in it, also by ``import_module``."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield node.lineno, submodule if submodule in known else source
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            for text in (part.value for part in ast.walk(node) if isinstance(part, ast.Constant)):
                if isinstance(text, str) and text.startswith(("leafe_graph", ".")):
                    yield node.lineno, f"import_module({text!r})"


def wrong(root: Path) -> list[str]:
    """What breaks the rules, a line each."""
    known = modules(root)
    found, edges = [], dict[str, set[str]]()
    for module, file in known.items():
        edges[module] = set()
        where = file.relative_to(root)
        for line, target in imports(module, file, known):
            if target.startswith("import_module("):
                if module != "leafe_graph":
                    found.append(f"{where}:{line}: {target}: modules of ours are imported by import statements")
                continue
            if target.partition(".")[0] != "leafe_graph":
                continue
            edges[module].add(target)
            own, other = room(module), room(target)
            if module == "leafe_graph" or own == other:
                continue
            if target == "leafe_graph":
                found.append(f"{where}:{line} imports leafe_graph itself: import from the room that has the name")
            elif own not in FLOOR or other not in FLOOR:
                found.append(
                    f"{where}:{line}: {own if own not in FLOOR else other} stands on no floor: add it to FLOORS"
                )
            elif FLOOR[other] >= FLOOR[own]:
                theirs = known[target].relative_to(root)
                found.append(
                    f"{where}:{line} imports {theirs}: {own} is on floor {FLOOR[own]}, {other} on {FLOOR[other]}; "
                    "a room imports rooms on lower floors only"
                )
    return found + circles(edges)


def circles(edges: dict[str, set[str]]) -> list[str]:
    """One circle of imports for every file that is in any."""
    done: set[str] = set()
    found = []

    def follow(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" imports ".join([*path[path.index(module) :], module]) + ": a circle")
            return
        if module in done:
            return
        for target in sorted(edges.get(module, ())):
            # A room's __init__ hands on names of its files: they may import each other's, it is part of no circle.
            if target != module:
                follow(target, [*path, module])
        done.add(module)

    for module in sorted(edges):
        follow(module, [])
    return found


def test_rooms_import_rooms_on_lower_floors_only() -> None:
    """And no files import each other in a circle, in no way that an import can be written."""
    assert wrong(ROOT) == []
