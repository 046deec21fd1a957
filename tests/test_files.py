"""Paths as people name them, places that cannot be written, and file systems without locks."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter
from trees import branch, run_folder, turn

from leafe_graph import ConfigError, RunFolder, RunFolderError, export
from leafe_graph.checkpoint import TreeSaver
from leafe_graph.cli.main import Leafe, main
from leafe_graph.cli.runs import Run
from leafe_graph.envs.sokoban import load_levels
from leafe_graph.evaluation.compare import compare
from leafe_graph.evaluation.plots import plot
from leafe_graph.evaluation.results import Result, TaskResult
from leafe_graph.files import (
    cache_dir,
    check_file,
    check_folder,
    lock_folder,
    path_of,
    replace_file,
    save_json,
    writing,
)
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.rows import read_examples
from leafe_graph.rounds import RunConfig, read_config
from leafe_graph.serve.config import ServerArguments
from leafe_graph.testing import ScriptedModel

LEVEL = "######\n#@$. #\n######\n"
RESULT = Result(policy="p", n=2, tasks=[TaskResult(task_id="a", n=2, c=1)])
WON = [branch("0", [turn("start", "up")], "success")]
UP = ScriptedModel(reply=lambda messages, seed: "up")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another folder in which one stands."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


# ---- ~


def settings() -> Iterator[tuple[type[BaseModel], str]]:
    """Every setting that is a path, of every command and every section."""
    commands = [next(iter(get_args(field.annotation))) for field in Leafe.model_fields.values()]
    for model in (*commands, TrainConfig, RunConfig, ServerArguments):
        for name, field in model.model_fields.items():
            if "Path" in str(field.rebuild_annotation()) and not isinstance(field.annotation, type(BaseModel)):
                yield model, name


def test_home_is_expanded_in_every_setting_that_is_a_path(home: Path) -> None:
    """Whether it is a flag with ``=``, a line of a file or an argument; lists of paths too."""
    (home / "x").touch()
    found = list(settings())
    assert {"out", "adapter", "levels", "data", "eval_data", "config", "run", "checkpoints"} <= {n for _, n in found}
    for model, name in found:
        kind: Any = TypeAdapter(model.model_fields[name].rebuild_annotation(), config={"arbitrary_types_allowed": True})
        listed = "list[" in str(model.model_fields[name].annotation)
        given = kind.validate_python(["~/x"] if listed else "~/x")
        assert (given[0] if listed else given) == home / "x", (model.__name__, name)


def test_home_is_expanded_in_every_function_that_takes_a_path(home: Path) -> None:
    """Python says ``~`` as a file of settings does."""
    run_folder(home / "run", WON)
    (home / "levels.txt").write_text(LEVEL)
    (home / "rounds.yaml").write_text("model: local:smollm2-135m\n")
    assert len(RunFolder("~/run").branches) == 1
    export("~/run", out="~/rows")
    assert len(read_examples([Path("~/rows")])) == 1
    RESULT.save("~/result.json")
    compare(Result.load("~/result.json"), RESULT).save("~/compared.json")
    assert load_levels("~/levels.txt") and read_config("~/rounds.yaml").rounds == 1
    TreeSaver("~/saved.sqlite").close()
    with pytest.raises(ConfigError, match=f"{home}/nowhere is not a Hugging Face model folder"):
        pytest.importorskip("leafe_graph.models.local.chat_model").LocalChatModel(path="~/nowhere")
    kept = {"levels.txt", "rounds.yaml", "run", "rows", "result.json", "compared.json", "saved.sqlite"}
    assert {file.name for file in home.iterdir()} == kept and not list(Path.cwd().iterdir())


def test_home_is_expanded_in_files_and_flags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the word to the folder."""
    run_folder(home / "run", WON)
    Path("train.yaml").write_text("model: m\ndata: [~/run, ~/more]\nout: ~/adapter\n")
    config = TrainConfig(config="train.yaml")  # type: ignore[call-arg,arg-type]
    assert [*config.data, config.out] == [home / "run", home / "more", home / "adapter"]
    assert main(["export", "~/run", "--out=~/rows"]) == 0
    assert (home / "rows" / "examples.jsonl").is_file() and not Path("~").exists()


def test_home_of_nobody_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; and variables of the environment may begin with ``~`` as well."""
    with pytest.raises(ConfigError, match=r"~nobody-here-42/x: "):
        path_of("~nobody-here-42/x")
    monkeypatch.setenv("LEAFE_CACHE", "~/cache")
    assert cache_dir() == home / "cache"


# ---- places that cannot be written


def explore(out: str) -> list[str]:
    """A run of one turn."""
    return ["explore", "--model", "python:test_files:UP", "--tasks", "1", "--max-turns", "1", "--out", out]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (explore("afile"), "afile cannot be written: there is a file, expected a folder"),
        (explore("afile/below"), "afile/below cannot be written: a part of its path is a file, expected folders"),
        (explore("/dev/null"), "/dev/null cannot be written: there is a file, expected a folder"),
        (explore("/proc/nowhere/x"), "/proc/nowhere/x cannot be written: No such file or directory"),
        (["eval", *explore("fine")[1:]], "fine.json cannot be written: there is a folder, expected a file"),
        (["export", "run", "--out", "afile"], "afile cannot be written: there is a file, expected a folder"),
        (["export", "run", "--out", "more"], "more/examples.parquet cannot be written: there is a folder, expected a"),
        (["export", "run", "--out", "rows"], "rows/README.md cannot be written: there is a folder, expected a file"),
        (["demonstrate", "--tasks", "1", "--out", "afolder"], "afolder cannot be written: there is a folder, expected"),
        (
            ["demonstrate", "--tasks", "1", "--out", "pipe"],
            "pipe cannot be written: there is a device",
        ),
        (["compare", "r.json", "r.json", "--out", "afolder"], "afolder cannot be written: there is a folder, expected"),
        (["compare", "r.json", "r.json", "--out", "/dev/null"], "/dev/null cannot be written: there is a device"),
        (
            ["train", "--model", "m", "--data", "run", "--out", "afile"],
            "afile cannot be written: there is a file, expected a folder",
        ),
        (["run", "rounds.yaml", "--out", "afile"], "out: afile cannot be written: there is a file, expected a folder"),
        (["run", "rounds.yaml", "--dry-run", "--out", "afile"], "out: afile cannot be written: there is a file"),
        (["demo", "--out", "afile"], "afile cannot be written: there is a file, expected a folder"),
        (["report", "run"], "run/report.html cannot be written: there is a folder, expected a file"),
        (["show", "afile"], "afile has no branches to show"),
        (["report", "afile"], "afile is not a run folder"),
        (["compare", "binary", "r.json"], "binary is no text in UTF-8"),
        (["run", "nope.yaml"], "nope.yaml: there is no such file"),
        (["run", "afolder"], "afolder: it is a folder, expected a file"),
        ([*explore("new"), "--levels", "afolder"], "--levels: it is a folder, expected a file, got 'afolder'"),
    ],
)
def test_what_cannot_be_written_or_read_is_told_in_one_line(
    command: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is played, trained or made; what is there stays as it is."""
    monkeypatch.chdir(tmp_path)
    for folder in ("afolder", "fine.json", "rows/README.md", "more/examples.parquet", "run/report.html"):
        Path(folder).mkdir(parents=True)
    Path("afile").write_text("mine")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    Path("rounds.yaml").write_text("model: local:smollm2-135m\n")
    os.mkfifo("pipe")
    RESULT.save("r.json")
    run_folder(Path("run"), WON)
    before = sorted(Path().rglob("*"))
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"leafe: {says}") and err.count("\n") == 1, err
    assert sorted(Path().rglob("*")) == before and Path("afile").read_text() == "mine"
    assert Path("pipe").is_fifo() and Path("/dev/null").is_char_device()


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that everybody can look into, owned by who runs the tests; not below a folder of theirs alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, which no permission stops; what else runs the tests has none."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_folders_of_another_user_are_told_in_one_line(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading goes on where that is allowed."""
    run, secret = str(theirs / "run"), str(theirs / "secret")
    for folder in (run, secret):
        run_folder(Path(folder), WON)
    Path(secret, "branches.jsonl").chmod(0)
    Path(run).chmod(0o555)
    with as_nobody():
        for command in (["report", run], ["export", run], ["prune", run], explore(run), explore(f"{run}/x")):
            assert main(command) == 2
            err = capsys.readouterr().err
            assert "cannot be written: Permission denied" in err and run in err and err.count("\n") == 1, err
        assert main(["show", run]) == 0
        capsys.readouterr()
        assert main(["show", secret]) == 2
        assert capsys.readouterr().err == f"leafe: {secret}/branches.jsonl: Permission denied\n"
    Path(run).chmod(0o755)


def test_trials_leave_nothing(tmp_path: Path) -> None:
    """A place is looked at, not made."""
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_file(tmp_path / "a" / "c.json") == tmp_path / "a" / "c.json"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "make room, then run the same command again"),
        (errno.EDQUOT, "make room, then run the same command again"),
        (errno.EROFS, "Read-only file system; choose another place"),
    ],
)
def test_a_file_that_cannot_be_replaced_is_as_it_was(number: int, says: str, tmp_path: Path) -> None:
    """Whatever the system refuses in the middle; nothing is left beside it."""
    save_json(tmp_path / "f.json", {"a": 1})

    def fail(new: Path) -> None:
        new.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunFolderError, match=rf"f\.json cannot be written: .*{says}"):
        replace_file(tmp_path / "f.json", fail)
    assert [file.name for file in tmp_path.iterdir()] == ["f.json"]
    assert "1" in (tmp_path / "f.json").read_text()


def test_a_training_that_meets_a_full_disk_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes: torch, safetensors in words of its own, or we; the checkpoint before it is there."""
    torch = pytest.importorskip("torch")
    from leafe_graph.finetune.checkpoint import State

    optimizer = SimpleNamespace(state_dict=dict)
    State(fingerprint={}).save(tmp_path, {}, optimizer)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    state = State(fingerprint={})
    state.step = 1
    with pytest.raises(RunFolderError, match=r"No space left on device.*run the same command again to go on"):
        state.save(tmp_path, {}, optimizer)
    assert [*tmp_path.glob("step-*.pt")] == [tmp_path / "step-0000000.pt"]
    with pytest.raises(RunFolderError, match="make room"), writing(tmp_path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only a full disk; the log is as it was."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RunFolder(tmp_path).open({"settings": {}}) as run:
        run.append(WON[0])
        with monkeypatch.context() as patch, pytest.raises(RunFolderError, match="Input/output error"):
            patch.setattr(os, "write", fail)
            run.append(WON[0])
    assert len(RunFolder(tmp_path).branches) == 1


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is replaced, and whether that can be is seen before; its folder is made."""
    for target in ("file", "a/b/file"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        save_json(tmp_path / "link", {"a": 1})
        assert (tmp_path / "link").is_symlink() and (tmp_path / target).is_file()
    (tmp_path / "away").symlink_to("file/c")
    with pytest.raises(RunFolderError, match="file cannot be written: there is a file, expected a folder"):
        check_file(tmp_path / "away")


def test_a_file_of_settings_may_be_a_pipe() -> None:
    """As a shell's ``<(…)`` is: it is there, and no folder."""
    reader, writer = os.pipe()
    os.write(writer, b"model: local:m\nrounds: 3\n")
    os.close(writer)
    assert read_config(Run.model_validate({"config": f"/dev/fd/{reader}"}).config).rounds == 3
    os.close(reader)


def test_a_plot_is_whole_or_not_there(tmp_path: Path) -> None:
    """The suffix says the format; a folder in its place is told."""
    pytest.importorskip("matplotlib", reason='pip install ".[report]"')
    assert plot([RESULT], tmp_path / "a" / "curve.svg").read_text().startswith("<?xml")
    (tmp_path / "curve.png").mkdir()
    with pytest.raises(RunFolderError, match="there is a folder, expected a file"):
        plot([RESULT], tmp_path / "curve.png")


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    """A folder, a folder that is not there, another kind of file."""
    (tmp_path / "text").write_text("no database at all, but a text that is long enough to look at" * 10)
    for file in (tmp_path, tmp_path / "nowhere" / "x.sqlite"):
        with pytest.raises(RunFolderError, match="cannot be opened as a SQLite database: unable to open"):
            TreeSaver(file)
    with pytest.raises(RunFolderError, match="text is no readable SQLite database"):
        TreeSaver(tmp_path / "text")


# ---- locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_as_that(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two writers would spoil a run, so it is refused; what is there can be read."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    run_folder(tmp_path / "run", WON)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunFolderError, match=r"cannot be locked \(.*\): nothing would keep a second process") as caught:
        lock_folder(tmp_path / "run")
    assert "Choose a folder on a local disk" in str(caught.value) and "process ?" not in str(caught.value)
    assert main(explore(str(tmp_path / "new"))) == 2
    assert "cannot be locked" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "run")]) == 0
