"""The run folder: append-only, one writer, and readable after any kill."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_graph.budget import no_cost
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.tree.branches import path
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

CONFIG = {"kind": "explore", "settings": {"seed": 0, "limits": {"max_depth": 4}, "tasks": ["a"]}}


def branch(task: str = "a", number: int = 0, **more: Any) -> Branch:
    """A small record of a branch, with a text that is hard to keep on one line."""
    record: dict[str, Any] = {
        "version": 1,
        "id": str(number),
        "task": {"id": task, "instruction": "née\u2028\x85\r\n\x00 🙂"},
        "parent": None,
        "decision_point": 0,
        "turns": [],
        "end": "failure",
        "cost": no_cost() | {"env_steps": 2, "seconds": 0.5},
    }
    return record | more  # type: ignore[return-value]


def write(folder: Path, *branches: Branch) -> None:
    """A run of these branches."""
    with RunFolder(folder).open(CONFIG) as run:
        for record in branches:
            run.append(record)


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    """Branches in order, by task and id too, with what they cost together; reading needs no lock."""
    with RunFolder(tmp_path / "new" / "run").open(CONFIG) as run:
        for record in (branch("a"), branch("b"), branch("a", 1)):
            run.append(record)
            assert RunFolder(run.folder).branches == run.branches
    again = RunFolder(run.folder)
    assert again.branches == run.branches == [branch("a"), branch("b"), branch("a", 1)]
    assert {task: list(tree) for task, tree in again.trees.items()} == {"a": ["0", "1"], "b": ["0"]}
    assert (again.cost["env_steps"], again.cost["seconds"]) == (6, 1.5)
    assert again.config == {"version": 1, **CONFIG}


def test_new_folder_is_empty() -> None:
    """A folder that is not there yet can be asked, and is not made by asking."""
    run = RunFolder("nowhere/at/all")
    assert (run.branches, run.config, run.trees, run.cost) == ([], {}, {}, no_cost())
    assert not run.folder.exists()


def test_appending_needs_the_lock(tmp_path: Path) -> None:
    """A folder that was opened for reading, or closed again, refuses to be written to."""
    with pytest.raises(RunFolderError, match="not open for writing"):
        RunFolder(tmp_path).append(branch())
    with RunFolder(tmp_path).open(CONFIG) as run:
        pass
    with pytest.raises(RunFolderError, match="not open for writing"):
        run.append(branch())


@settings(max_examples=40)
@given(cut=st.integers(1, 400))
def test_torn_last_line_is_dropped_and_cut_off(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kill in the middle of a write loses that branch alone, and the next one is not glued to its remains."""
    folder = tmp_path_factory.mktemp("run")
    write(folder, branch(number=0), branch(number=1))
    log = folder / "branches.jsonl"
    whole = log.read_bytes()
    last = len(whole) - whole.rfind(b"\n", 0, -1) - 1
    log.write_bytes(whole[: -min(cut, last)])
    assert [b["id"] for b in RunFolder(folder).branches] == ["0"]
    write(folder, branch(number=1))
    assert log.read_bytes() == whole


@pytest.mark.parametrize(
    "line", [b"{", b"\xff\xfe", b"", b"[]", b"7", b'{"version": 1', b'{"id": "0"}', b'{"version": 2}']
)
@pytest.mark.parametrize("place", [1, 2, 3])
def test_corrupt_line_is_refused_by_its_number(line: bytes, place: int, tmp_path: Path) -> None:
    """A whole line that is no branch record was not torn by a kill: reading and resuming name it, and touch nothing."""
    write(tmp_path, branch(number=0), branch(number=1))
    log = tmp_path / "branches.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines.insert(place - 1, line + b"\n")
    log.write_bytes(b"".join(lines))
    for attempt in (lambda: RunFolder(tmp_path), lambda: RunFolder(tmp_path)):
        with pytest.raises(RunFolderError, match=rf"branches.jsonl:{place} "):
            attempt()
    assert log.read_bytes() == b"".join(lines)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    """The message names each setting that differs, with both values, and nothing else."""
    write(tmp_path, branch())
    other = {"kind": "explore", "settings": {"seed": 1, "limits": {"max_depth": 2}, "tasks": ["a"], "new": "x" * 200}}
    with pytest.raises(ConfigError) as refused:
        RunFolder(tmp_path).open(other)
    message = str(refused.value)
    assert "settings.seed: 0 there, 1 now" in message
    assert "settings.limits.max_depth: 4 there, 2 now" in message
    assert "settings.new: None there, 'xxx" in message
    assert "tasks" not in message
    assert len(message) < 500 + len(str(tmp_path))
    write(tmp_path, branch(number=1))  # the refusal gave the lock back


def test_settings_are_compared_as_they_are_saved(tmp_path: Path) -> None:
    """A tuple is a list on disk: the same command resumes."""
    for _ in range(2):
        with RunFolder(tmp_path).open({"kind": "explore", "settings": {"sizes": (1, 2)}}):
            pass


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ('{"version": 9}', "version 9; this release reads")]
)
def test_unreadable_config_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """A configuration of another release, or none at all, is never overwritten."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunFolderError, match=message):
        RunFolder(tmp_path).open(CONFIG)
    assert (tmp_path / "config.json").read_text() == text


def test_second_writer_is_refused(tmp_path: Path) -> None:
    """In this process and in another one; the message names who holds the folder; afterwards it is free."""
    code = (
        "import sys; from leafe_graph.tree.run_folder import RunFolder\n"
        "try: RunFolder(sys.argv[1]).open({}).close()\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    with RunFolder(tmp_path).open(CONFIG) as run:
        with pytest.raises(RunFolderError, match=f"is being written by process {os.getpid()};"):
            RunFolder(tmp_path).open(CONFIG)
        told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert told.stdout.startswith("RunFolderError")
        run.append(branch())
    write(tmp_path, branch(number=1))
    assert len(RunFolder(tmp_path).branches) == 2


def test_path_puts_the_parents_turns_in_front() -> None:
    """Up to each decision point the parent's turns, then one's own, also where a branch rewinds past its own start."""
    tree: Any = {
        "0": {"parent": None, "decision_point": 0, "turns": ["a", "b", "c"]},
        "1": {"parent": "0", "decision_point": 2, "turns": ["d", "e"]},
        "2": {"parent": "1", "decision_point": 3, "turns": ["f"]},
        "3": {"parent": "1", "decision_point": 1, "turns": ["g"]},
        "4": {"parent": "3", "decision_point": 0, "turns": ["h"]},
    }
    paths = {name: "".join(path(tree, name)) for name in tree}  # type: ignore[arg-type]
    assert paths == {"0": "abc", "1": "abde", "2": "abdf", "3": "ag", "4": "h"}


def test_long_chain_of_refinements_has_a_path() -> None:
    """Thousands of restarts, each the child of the last, are no deep recursion."""
    tree: Any = {str(n): {"parent": str(n - 1) if n else None, "decision_point": 0, "turns": [n]} for n in range(5000)}
    assert path(tree, "4999") == [4999]  # type: ignore[comparison-overlap]


def test_log_is_plain_json_lines(tmp_path: Path) -> None:
    """One line a branch, however many line breaks its texts hold."""
    write(tmp_path, branch(), branch(number=1))
    lines = (tmp_path / "branches.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == ["0", "1"]
    assert lines[-1] == b""
