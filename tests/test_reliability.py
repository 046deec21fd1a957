"""docs/reliability.md: every row of its tables is a test."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_row_names_a_test_that_exists() -> None:
    """A fault that is listed is one that is tested."""
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    exist = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 20
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named and named <= exist, row
