"""The README's Python blocks run as printed, offline, and print what their comments say."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_python_blocks_run_as_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One after the other, like a reader's session; ``print(…)  # text`` prints that text."""
    pytest.importorskip("langgraph.checkpoint.sqlite", reason='pip install ".[sqlite]"')
    pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README.md, block {number}", "exec"), session)
        promised = re.findall(r"^print\(.*\)  # (.+)$", block, flags=re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == promised


def test_the_first_block_is_short() -> None:
    """The first screen shows an agent, its tool and its model in a few lines, the second one of this package's own."""
    lines = [len([line for line in block.splitlines() if line.strip()]) for block in BLOCKS[:2]]
    assert lines[0] <= 20 and lines[1] <= 15


def test_links_lead_somewhere() -> None:
    """Files that the README points to exist."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_commands_exist() -> None:
    """Every ``make`` target and ``leafe`` command it names."""
    from leafe_graph.cli.main import Leafe

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
    assert set(re.findall(r"^leafe ([a-z]+)", README, flags=re.MULTILINE)) == set(Leafe.model_fields)
