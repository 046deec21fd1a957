"""The log of a large run: in files of a bounded size, with no more than an outline of each branch in memory."""

import errno
import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from test_store import CONFIG, branch
from trees import turn
from worlds import forest, wandering_reply

from leafe_graph import explore
from leafe_graph.errors import RunFolderError
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree import log as log_of_runs
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

KILLED = """
import os, random, signal, sys, time
from leafe_graph.tree.run_folder import RunFolder
from test_store import CONFIG, branch

out, moments = sys.argv[1], random.Random(0)

def life(told):
    with RunFolder(out, shard_bytes=900).open(CONFIG) as run:
        for number in range(len(run.outlines), 400):
            run.append(branch(f"task {number % 7}", number))
            os.write(told, b".")

for _ in range(25):
    logged, told = os.pipe()
    child = os.fork()
    if not child:
        life(told)
        os._exit(0)
    os.close(told)
    os.read(logged, 1)  # nothing, should all have been logged by now
    time.sleep(moments.uniform(0, 0.004))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(logged)
life(os.open(os.devnull, os.O_WRONLY))
"""
"""Lives that each log some branches and are killed, and a last one that logs what is left."""


def write(folder: Path, *branches: Branch, shard_bytes: int = 1) -> RunFolder:
    """A run of these branches, a file each unless there is more room in one."""
    with RunFolder(folder, shard_bytes=shard_bytes).open(CONFIG) as run:
        for record in branches:
            run.append(record)
    return run


def files(folder: Path) -> list[str]:
    """The log's files."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.jsonl"))


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    """The first is called as the only one of a small run; all are read as one log, in its order."""
    records = [branch("a"), branch("b"), branch("a", 1)]
    run = write(tmp_path, *records)
    assert files(tmp_path) == ["branches.jsonl", "branches/000001.jsonl", "branches/000002.jsonl"]
    for seen in (run, RunFolder(tmp_path)):
        assert seen.branches == records and seen.branches[1:] == records[1:]
        assert {task: [*tree.values()] for task, tree in seen.trees.items()} == {"a": records[::2], "b": [records[1]]}


def test_a_log_of_one_file_goes_on_in_others(tmp_path: Path) -> None:
    """As one that an earlier release wrote; and it may go on with other sizes."""
    records = [branch(number=number) for number in range(4)]
    write(tmp_path, *records[:2], shard_bytes=10**6)
    write(tmp_path, records[2])
    write(tmp_path, records[3], shard_bytes=10**6)
    assert files(tmp_path) == ["branches.jsonl", "branches/000001.jsonl"]
    assert RunFolder(tmp_path).branches == records


def test_rollovers_survive_kills(tmp_path: Path) -> None:
    """Killed at many moments, the log has each branch once and in order, in files that are full but for the last."""
    where = {"cwd": Path(__file__).parent, "timeout": 120}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run")], check=True, **where)  # type: ignore[call-overload]
    run = RunFolder(tmp_path / "run")
    assert run.branches == [branch(f"task {number % 7}", number) for number in range(400)]
    sizes = [(run.folder / name).stat().st_size for name in files(run.folder)]
    assert len(sizes) > 25 and all(900 <= size < 1800 for size in sizes[:-1])


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_torn_in_the_last_file_is_cut_off(cut: int, tmp_path: Path) -> None:
    """That branch is done again, and the others are as they were; so too where nothing of it is left."""
    write(tmp_path, *(branch(number=number) for number in range(3)))
    last = tmp_path / "branches/000002.jsonl"
    whole = last.read_bytes()
    for left in (whole[:-cut], b""):
        last.write_bytes(left)
        assert [each["id"] for each in RunFolder(tmp_path).branches] == ["0", "1"]
        write(tmp_path, branch(number=2))
        assert last.read_bytes() == whole


@pytest.mark.parametrize("name", ["branches.jsonl", "branches/000001.jsonl"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    """What was logged after it is no run without it."""
    write(tmp_path, *(branch(number=number) for number in range(3)))
    (tmp_path / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing, and the log goes on after it: restore it"):
        RunFolder(tmp_path)


def test_a_closed_file_that_ends_within_a_line_is_refused(tmp_path: Path) -> None:
    """No kill tears it: what was in it is lost, and is not done again unnoticed."""
    write(tmp_path, *(branch(number=number) for number in range(3)))
    middle = tmp_path / "branches/000001.jsonl"
    middle.write_bytes(middle.read_bytes()[:-5])
    with pytest.raises(RunFolderError, match=r"branches/000001.jsonl ends within a line, and the log goes on after"):
        RunFolder(tmp_path)


def test_a_bad_line_is_named_with_its_file(tmp_path: Path) -> None:
    """As it is in a log of one file."""
    write(tmp_path, branch(), branch(number=1))
    with open(tmp_path / "branches/000001.jsonl", "ab") as log:
        log.write(b'{"version": 1}\n')
    with pytest.raises(RunFolderError, match=r"branches/000001.jsonl:2 is not a branch record: it has no 'cost'"):
        RunFolder(tmp_path)


def test_a_branch_whose_line_was_changed_is_not_mistaken_for_another(tmp_path: Path) -> None:
    """Branches are read when they are asked for: what is no longer in its place is an error."""
    run = write(tmp_path, branch("a"), branch("b"))
    first, second = tmp_path / "branches.jsonl", tmp_path / "branches/000001.jsonl"
    first.write_bytes(second.read_bytes())
    with pytest.raises(RunFolderError, match="no longer has branch 0 of task 'a' in its place"):
        run.branches[0]
    first.unlink()
    with pytest.raises(RunFolderError, match=r"branches.jsonl cannot be read any more: No such file"):
        run.trees["a"]


def test_a_folder_that_was_removed_is_begun_anew(tmp_path: Path) -> None:
    """What is opened again knows what is there now, not what was."""
    run = write(tmp_path / "run", branch("a"), branch("b"))
    shutil.rmtree(run.folder)
    with run.open(CONFIG):
        assert run.branches == []
        run.append(branch("a", end="success"))
        assert (len(run.logged), run.solved) == (1, {"a"})
    assert RunFolder(run.folder).branches == run.branches


def test_texts_are_not_kept_in_memory(tmp_path: Path) -> None:
    """Opening a run of two megabytes takes a quarter of that, and so does going through its trees."""
    long = [turn("seen " * 400, "done " * 100)] * 8
    write(tmp_path, *(branch(f"t{n}", turns=long) for n in range(100)), shard_bytes=10**6)
    assert sum((tmp_path / name).stat().st_size for name in files(tmp_path)) > 2e6

    def peak() -> int:
        tracemalloc.start()
        run = RunFolder(tmp_path)
        assert sum(len(tree["0"]["turns"]) for tree in run.trees.values()) == 800
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert min(peak() for _ in range(3)) < 5e5  # in one of them Python's own table of names may grow by megabytes


def test_names_are_once_in_memory_also_of_branches_from_other_processes(tmp_path: Path) -> None:
    """There are few of them, and many branches."""
    log = RunFolder(tmp_path)
    for number in (10, 11):
        written = branch("t", number, parent="12")
        log.add(pickle.loads(pickle.dumps(log_of_runs.encoded(written).outline)))
    first, second = log.outlines
    assert first.end is second.end and first.parent is second.parent and first.id is sys.intern("10")


def test_lines_grow_with_what_turns_add(tmp_path: Path) -> None:
    """Prompts that go on as the ones before them are written once, and are whole where they are read."""
    system: Any = {"role": "system", "content": "Be brief.", "x": 1}
    asked: list[Any] = [system, {"role": "user", "content": "Go."}]
    ids = [*range(100)]
    turns = []
    for number in range(40):
        said = turn(f"seen {number}", "go", prompt_token_ids=[*ids], token_ids=[7, number])
        said["request"] = {"messages": [*asked], "tools": [{"type": "function", "function": {"name": "walk"}}]}
        turns.append(said)
        asked += [{"role": "assistant", "content": "go"}, {"role": "tool", "content": f"{number} steps"}]
        ids += [7, number, *range(100)]
    odd: list[Any] = [json.loads(json.dumps(each)) for each in turns[:6]]
    del odd[1]["message"]["prompt_token_ids"], odd[2]["request"]  # one that tells no ids; one that asked otherwise
    odd[3]["request"]["messages"] = [system | {"x": True}, *odd[3]["request"]["messages"][1:]]
    odd[4]["request"]["tools"], odd[5]["message"]["prompt_token_ids"] = [], [5]
    records = [branch(turns=turns), branch(number=1, turns=odd), branch(number=2, turns=turns[:1])]
    write(tmp_path, *records)
    assert RunFolder(tmp_path).branches == records
    assert [json.dumps(each) for each in RunFolder(tmp_path).branches[1]["turns"][3]["request"]["messages"]] == [
        json.dumps(each) for each in odd[3]["request"]["messages"]
    ]
    lines = [(tmp_path / name).read_bytes() for name in files(tmp_path)]
    assert [json.loads(line)["version"] for line in lines] == [2, 2, 1]
    assert len(lines[0]) < 0.1 * len(json.dumps(records[0]))


def test_a_run_in_many_files_is_resumed(tmp_path: Path) -> None:
    """The same trees as in one file, also where the last files had not been written yet."""

    def play(name: str, **how: Any) -> RunFolder:
        limits, out = Limits(max_branches=4, max_depth=2), tmp_path / name
        return explore(
            ScriptedModel(reply=wandering_reply), GridWorld, grid_tasks(3), out=out, limits=limits, max_turns=7, **how
        )

    whole, many = play("whole", checkpointer="memory"), play("many", checkpointer="memory", shard_bytes=1)
    assert forest(many.branches) == forest(whole.branches)
    log = files(many.folder)
    assert 5 < len(log) <= len(whole.branches)
    for name in log[-3:]:
        (many.folder / name).unlink()
    assert len(RunFolder(many.folder).branches) <= len(whole.branches) - 3
    assert forest(play("many", checkpointer="memory", shard_bytes=1).branches) == forest(whole.branches)


RICH = [
    branch("a", turns=[turn("seen", "go"), turn("more", "go", valid=None, token_ids=[1, 2])]),
    branch("b", error="ValueError: née", divergence={"turn": 1, "expected": "x", "actual": "y"}, experience="Go on."),
    branch("a", 1, parent="0", decision_point=1, depth=1, turns=[turn("seen", "go") | {"node": "writer"}]),
    branch("b", turns=[turn("seen", "up")], end="success"),
]
"""Branches with what only some have; the second one was played again."""


def whole(record: Branch) -> Branch:
    """With all fields that `explore` writes."""
    more: Any = {"depth": 0, "experience": None, "reflection": None, "reflections": []}
    return {**more, "error": None, "return_": 0.5, "thread_id": None, **record}


def test_closed_files_become_parquet(tmp_path: Path) -> None:
    """The last one stays and grows; the run reads as before, is gone on with, and other tools read the rows."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='pip install ".[train]"')
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    records = [whole(record) for record in RICH]
    before = write(tmp_path, *records)
    told = [vars_of(each) for each in before.outlines]
    run = RunFolder(tmp_path)
    assert run.compact() == (3, [])
    names = ["branches/000000.parquet", "branches/000001.parquet", "branches/000002.parquet", "branches/000003.jsonl"]
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("0*.*")) == names and not files(tmp_path)[1:]
    for seen in (run, RunFolder(tmp_path)):
        assert [*seen.logged] == records and [*seen.superseded] == records[1:2]
        assert [vars_of(each) for each in seen.outlines] == told
        assert {task: [*tree.values()] for task, tree in seen.trees.items()} == {
            "a": records[:3:2],
            "b": records[3:],
        }
    last = write(tmp_path, whole(branch("c")))
    assert last.branches[-1]["task"]["id"] == "c" and last.compact() == (1, []) and last.compact() == (0, [])
    table = parquet.read_table(tmp_path / "branches/000000.parquet", columns=["task_id", "end", "played"])
    assert table.to_pylist() == [{"task_id": "a", "end": "failure", "played": 2}]
    rows = datasets.load_dataset("parquet", data_files=f"{tmp_path}/branches/*.parquet", split="train", streaming=True)
    assert [row["turns"][0]["content"] for row in rows if row["turns"]] == ["go", "go", "up"]


def vars_of(outline: Any) -> dict[str, Any]:
    """All of an outline but where its branch is."""
    return {name: getattr(outline, name) for name in outline.__slots__ if name != "place"}


def test_a_kill_while_files_become_parquet_loses_nothing(tmp_path: Path) -> None:
    """Lines that are there beside their rows are as good as gone; a table that is not whole is no name of the log's."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    records = [whole(record) for record in RICH]
    write(tmp_path, *records)
    lines = (tmp_path / "branches.jsonl").read_bytes()
    assert RunFolder(tmp_path).compact()[0] == 3
    (tmp_path / "branches.jsonl").write_bytes(lines)
    (tmp_path / "branches/.000003.parquet.7.tmp").write_bytes(b"PAR1")
    assert [*RunFolder(tmp_path).logged] == records
    assert RunFolder(tmp_path).compact() == (1, []) and [*RunFolder(tmp_path).logged] == records
    assert not [*tmp_path.glob("branches/.*")]
    (tmp_path / "branches/000001.parquet").write_bytes(b"no table")
    with pytest.raises(RunFolderError, match=r"branches/000001.parquet is no part of a run's log"):
        RunFolder(tmp_path)


def test_a_file_that_becomes_parquet_while_it_is_looked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There were no rows yet, then there are no lines any more: its branches are not left out."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    records = [whole(record) for record in RICH]
    write(tmp_path, *records)
    exists, compacted = Path.exists, []

    def late(path: Path) -> bool:
        there = exists(path)
        if path.name == "000001.parquet" and not compacted:
            compacted.append(path)
            RunFolder(tmp_path).compact()
        return there

    monkeypatch.setattr(Path, "exists", late)
    run = RunFolder(tmp_path)
    assert compacted and len(run.logged) == 4
    assert run.logged[1:] == records[1:]
    with pytest.raises(RunFolderError, match=r"branches.jsonl cannot be read any more: .*; open the run again"):
        run.logged[0]  # it was read before


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_others_wrote_to_and_made_parquet_of_is_opened_as_it_is(killed: bool, tmp_path: Path) -> None:
    """With what its first file got since it was read, and with all branches in their places."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    records = [whole(branch(number=number)) for number in range(5)]
    write(tmp_path, records[0], shard_bytes=10**6)
    early = RunFolder(tmp_path)
    write(tmp_path, *records[1:3], shard_bytes=10**6)
    write(tmp_path, *records[3:])
    late, lines = RunFolder(tmp_path), (tmp_path / "branches.jsonl").read_bytes()
    assert RunFolder(tmp_path).compact() == (2, [])
    if killed:
        (tmp_path / "branches.jsonl").write_bytes(lines)
    for run in (early, late):
        with run.open(CONFIG):
            assert run.branches == records


def test_a_disk_that_is_full_when_files_become_parquet_leaves_a_run_that_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are Parquet by then are found there, by the same object."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    records, made = [whole(record) for record in RICH], []
    run, compacted = write(tmp_path, *records), log_of_runs._compact

    def once(lines: Path, new: Path) -> None:
        if made:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(compacted(lines, new))  # type: ignore[func-returns-value]

    monkeypatch.setattr(log_of_runs, "_compact", once)
    with pytest.raises(RunFolderError, match="No space left on device"):
        run.compact()
    assert run.logged == records and files(tmp_path)[0] == "branches/000001.jsonl"


def test_what_a_table_cannot_hold_stays_in_lines(tmp_path: Path) -> None:
    """Such as a record of other tools, or one with whole numbers beyond 64 bits."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    odd = whole(branch("b"))
    odd["cost"] |= {"env_steps": 2**70}
    records = [whole(branch("a")), odd, branch("c"), whole(branch("d"))]
    write(tmp_path, *records)
    done, refused = RunFolder(tmp_path).compact()
    assert done == 1 and [line.split(" stays")[0] for line in refused] == [
        str(tmp_path / f"branches/00000{number}.jsonl") for number in (1, 2)
    ]
    assert [*RunFolder(tmp_path).logged] == records
