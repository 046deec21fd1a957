"""docs/reliability.md: every row of its tables is a test, and stands once, in a table."""

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


def test_every_test_that_the_page_names_exists() -> None:
    """In its sentences too."""
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(test_\w+)`", text)) <= set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))


def test_every_row_stands_once_below_its_tables_head() -> None:
    """What several changes add to the page does not tear its tables apart."""
    seen: set[str] = set()
    for block in re.split(r"\n\n", (ROOT / "docs/reliability.md").read_text(encoding="utf-8").strip()):
        lines = block.splitlines()
        if not any(line.startswith("|") for line in lines):
            continue
        assert all(line.startswith("| ") or line.startswith("|---") for line in lines), block
        assert [bool(re.fullmatch(r"\|(---\|)+", line)) for line in lines[:3]] == [False, True, False], block
        columns = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in lines}
        assert len(columns) == 1, block
        for row in lines[2:]:
            assert row not in seen, row
            seen.add(row)
