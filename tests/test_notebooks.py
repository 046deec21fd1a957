"""The notebooks of examples/ run, and print what they show."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
sys.path.append(str(ROOT / "scripts"))
import notebooks  # noqa: E402


def printed(notebook: Any, *, words: bool) -> list[list[Any]]:
    """What each cell printed: its kinds, and the words where they do not depend on the machine's arithmetic."""
    cells = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kinds = [[(out["output_type"], sorted(out.get("data", {}))) for out in outputs] for outputs in cells]
    return kinds if not words else [kinds, [re.sub(r"\b[0-9a-f]{32}\b", "ID", _text(outputs)) for outputs in cells]]


def _text(outputs: list[Any]) -> str:
    return "\n".join("".join(out.get("text", out.get("data", {}).get("image/svg+xml", ""))) for out in outputs)


@pytest.mark.parametrize(
    ("name", "needs", "words"),
    [("rewinding_agent", "langchain.agents", True), ("run_to_policy", "accelerate", False)],
)
def test_notebook_runs_and_prints_what_it_shows(name: str, needs: str, words: bool, tmp_path: Path) -> None:
    """A scripted model's words are the same everywhere; a sampled policy's depend on the last bit of a sum."""
    pytest.importorskip("nbclient", reason="pip install --group dev")
    pytest.importorskip(needs)
    file = ROOT / "examples" / f"{name}.ipynb"
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert printed(notebooks.played(file, tmp_path), words=words) == printed(kept, words=words)


@pytest.mark.filterwarnings("ignore:unclosed database")  # as notebooks have it
def test_the_agents_notebook_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run left is no part of what the next one shows."""
    pytest.importorskip("IPython", reason="pip install --group dev")
    pytest.importorskip("langchain.agents")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "rewinding_agent.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for _ in range(2):
        exec(code, {"__name__": "notebook"})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_shows_what_it_printed_and_nothing_of_a_machine(notebook: Path) -> None:
    """Every cell was run, in order, without an error or a warning; no folder, version or time is in it."""
    kept = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [out for cell in code for out in cell["outputs"]]
    assert outputs and not any(out["output_type"] == "error" or out.get("name") == "stderr" for out in outputs)
    assert all(cell["metadata"] == {} for cell in kept["cells"]) and kept["metadata"]["language_info"] == {
        "name": "python"
    }
    assert not re.search(r"/(root|home|tmp|Users|work)\b|site-packages|\\u001b", notebook.read_text(encoding="utf-8"))
