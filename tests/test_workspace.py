"""A folder as a world: whatever was done to it, it comes back exactly, and nothing else is touched."""

import contextlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from leafe_graph import ConfigError, Workspace, WorldBusy, WorldError, WorldLost
from leafe_graph.env.worlds import occupy, store, vacate
from leafe_graph.testing import check_world


def look(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that is in a folder, itself included: kind, permissions, owner, times, contents."""
    found = {}
    for top, folders, files in os.walk(folder):
        for path in [top, *(os.path.join(top, name) for name in folders + files)]:
            seen = os.lstat(path)
            held: Any = None
            if stat.S_ISLNK(seen.st_mode):
                held = os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    held = file.read()
            found[os.path.relpath(path, folder)] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, held)
    return found


def kept(world: Workspace) -> int:
    """How many contents the store has."""
    return len([*(world._store.folder / "objects").glob("*/*")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path / "work"
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "empty").mkdir()
    (folder / "inner" / ".git").mkdir(parents=True)
    (folder / "inner" / ".git" / "HEAD").write_text("ref: refs/heads/other\n")
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("nowhere")
    return folder


NAMES = st.sampled_from(["a", "b", ".git", os.fsdecode(b"\xff\n"), "ä"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: os.path.join(*names))
EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            "write write write mkdir mkdir link out hard chmod touch remove rename pipe sneak point point".split()
        ),
        PATHS,
        PATHS,
        st.integers(0, 7),
    ),
    max_size=25,
)


def edit(what: str, path: Path, other: Path, number: int, outside: Path) -> None:
    """One thing that a tool does; the operating system may refuse it."""
    if path.is_fifo() and what in ("write", "sneak"):
        return  # it would wait for a reader
    if what == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * (number * 200_000 if number == 7 else number))
    elif what == "sneak":  # the same length and time as before
        before = os.lstat(path)
        path.write_bytes(b"%d" % number * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "mkdir":
        path.mkdir(parents=True)
    elif what == "link":
        path.symlink_to(other)
    elif what == "out":
        path.symlink_to(outside / ("folder" if number % 2 else "folder/file"))
    elif what == "hard":
        os.link(outside / "folder" / "file" if number % 2 else other, path)
    elif what == "chmod" and not path.is_symlink():
        path.chmod([0o600, 0o644, 0o755, 0o500, 0o000, 0o1777, 0o4755, 0o200][number])
    elif what == "touch":
        os.utime(path, ns=(1, number * 1_000_000_001), follow_symlinks=False)
    elif what == "remove":
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif what == "rename":
        path.rename(other)
    elif what == "pipe":
        os.mkfifo(path)


def through_a_link(path: Path, root: Path) -> bool:
    """Whether a part of the path above its last one leads elsewhere: tools of the test stay inside."""
    return any(each.is_symlink() for each in path.parents if each.is_relative_to(root))


def without_pipes(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """What is kept."""
    return {name: seen for name, seen in found.items() if not stat.S_ISFIFO(seen[0])}


@settings(
    max_examples=200,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes here
)
@given(edits=EDITS, order=st.lists(st.integers(0, 30), max_size=5))
def test_what_was_there_comes_back_whatever_was_done(edits: Any, order: list[int]) -> None:
    """Byte for byte, mode for mode, time for time; nothing outside has changed, and what was replaced is kept."""
    with tempfile.TemporaryDirectory() as top:
        root, outside = Path(top, "work"), Path(top, "outside")
        root.mkdir()
        (outside / "folder").mkdir(parents=True)
        (outside / "folder" / "file").write_text("outside")
        world = Workspace(root, Path(top, "store"))
        points = [(world.snapshot(), look(root))]
        for what, path, other, number in edits:
            paths = root / path, root / other
            if what == "point":
                points.append((world.snapshot(), without_pipes(look(root))))
            elif not any(through_a_link(each, root) or (each.is_symlink() and what in "write sneak") for each in paths):
                with contextlib.suppress(OSError):
                    edit(what, *paths, number, outside)
        before = look(outside), os.lstat(top).st_mtime_ns
        last = without_pipes(look(root))
        for number in order:
            ref, then = points[number % len(points)]
            world.restore(ref)
            assert without_pipes(look(root)) == then
        assert (look(outside), os.lstat(top).st_mtime_ns) == before
        for ref in world.replaced[:1]:
            world.restore(ref)
            assert without_pipes(look(root)) == last


def test_a_folder_keeps_the_contract(folder: Path) -> None:
    """As every world."""

    def change(number: int) -> None:
        (folder / "empty").rmdir() if (folder / "empty").exists() else (folder / "empty").mkdir()
        (folder / ".git" / "HEAD").write_text(str(number))

    check_world(lambda: Workspace(folder), change, lambda: look(folder))


def test_only_what_has_changed_is_read_and_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stays the very files."""
    world = Workspace(folder)
    world.snapshot()
    opened: list[str] = []
    real = os.open

    def opening(path: Any, *args: Any, **more: Any) -> int:
        opened.append(str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(store, "_TICK", 10**15)  # within a tick a file may change without a trace
    world.snapshot()
    assert {"HEAD", "run.sh"} < {*opened}
    monkeypatch.setattr(store, "_TICK", -(10**15))
    first = world.snapshot()
    opened.clear()
    (folder / "new").write_text("new")
    world.snapshot()
    assert "new" in opened and not {"HEAD", "run.sh"} & {*opened}
    monkeypatch.undo()
    (folder / "run.sh").write_text("false\n")
    inodes = [os.stat(folder / name).st_ino for name in (".git/HEAD", "inner/.git/HEAD", "run.sh")]
    world.restore(first)
    again = [os.stat(folder / name).st_ino for name in (".git/HEAD", "inner/.git/HEAD", "run.sh")]
    assert inodes[:2] == again[:2] and inodes[2] != again[2]
    assert not (folder / "new").exists()


def test_equal_contents_are_kept_once_and_forgotten_ones_go(folder: Path) -> None:
    """A store is empty again when all its snapshots are forgotten."""
    world = Workspace(folder)
    refs = [world.snapshot()]
    before = kept(world)
    refs.append(world.snapshot())
    assert kept(world) == before
    for number in range(40):
        (folder / "run.sh").write_text(str(number))
        refs.append(world.snapshot())
    for ref in refs[1:-1]:
        world.forget(ref)
    assert before < kept(world) < before + 2 * 20
    world.restore(refs[0])
    assert (folder / "run.sh").read_text() == "true\n"
    for ref in [refs[0], refs[-1], *world.replaced]:
        world.forget(ref)
    assert kept(world) == 0
    world.restore(world.snapshot())


def test_what_another_process_has_swept_is_kept_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go by what it has read before."""
    monkeypatch.setattr(store, "_TICK", -(10**15))
    world, other = Workspace(folder), Workspace(folder)
    world.snapshot()
    for ref in world._store.refs():
        other.forget(ref)
    assert kept(world) == 0
    ref, then = world.snapshot(), look(folder)
    shutil.rmtree(folder)
    other.restore(ref)
    assert look(folder) == then


def test_other_names_of_a_file_stay_as_they_are(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store of packages that the folder has hard links to is not written to, and a warning tells."""
    world = Workspace(folder)
    package = tmp_path / "package"
    package.write_text("theirs")
    os.link(package, folder / "package")
    ref = world.snapshot()
    assert "2 names (hard links)" in caplog.text
    (folder / "package").chmod(0o600)
    os.utime(package, ns=(5, 5))
    before = look(tmp_path)["package"]
    world.restore(ref)
    assert look(tmp_path)["package"] == before
    assert (folder / "package").stat().st_mode & 0o777 == 0o644


def test_a_folder_behind_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """An agent put a link in the folder's place, or in one inside."""
    world = Workspace(folder)
    (folder / "empty" / "file").write_text("ours")
    ref = world.snapshot()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("theirs")
    shutil.rmtree(folder / "empty")
    (folder / "empty").symlink_to(elsewhere)
    world.restore(ref)
    assert (folder / "empty" / "file").read_text() == "ours" and (elsewhere / "file").read_text() == "theirs"
    folder.rename(tmp_path / "moved")
    folder.symlink_to(elsewhere)
    for call in (world.snapshot, lambda: world.restore(ref)):
        with pytest.raises(WorldError, match="symbolic link was put in its place"):
            call()
    assert look(elsewhere)["file"][4] == b"theirs"


def test_a_folder_that_was_removed_comes_back(folder: Path) -> None:
    """And goes again."""
    world = Workspace(folder)
    ref, then = world.snapshot(), look(folder)
    shutil.rmtree(folder)
    none = world.snapshot()
    world.restore(ref)
    assert look(folder) == then
    Workspace(folder).restore(none)
    assert not folder.exists()


def test_what_holds_no_data_is_in_nobodys_way(folder: Path) -> None:
    """A pipe is left alone, unless something else was there, or its folder goes."""
    world = Workspace(folder)
    ref, then = world.snapshot(), look(folder)
    os.mkfifo(folder / "pipe")
    shutil.rmtree(folder / "empty")
    os.mkfifo(folder / "empty")
    (folder / "new").mkdir()
    os.mkfifo(folder / "new" / "pipe")
    world.restore(ref)
    assert stat.S_ISFIFO(os.stat(folder / "pipe").st_mode)
    assert without_pipes(look(folder)).keys() == then.keys()


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of somebody who is bound by permissions, which root is not, and this process as that one."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "work")
        folder.mkdir()
        if os.geteuid() != 0:
            yield folder
            return
        os.chown(top, 65534, 65534)
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_folders_that_cannot_be_written_are_no_hindrance(nobody: Path) -> None:
    """As caches of modules are; what cannot be read is told."""
    (nobody / "locked" / "inner").mkdir(parents=True)
    (nobody / "locked" / "inner" / "file").write_text("a")
    (nobody / "locked" / "inner").chmod(0o555)
    (nobody / "locked").chmod(0o555)
    world = Workspace(nobody)
    empty = world.snapshot()
    ref, then = world.snapshot(), look(nobody)
    for path in (nobody / "locked", nobody / "locked" / "inner"):
        path.chmod(0o755)
    (nobody / "locked" / "inner" / "file").unlink()
    (nobody / "locked" / "inner").chmod(0o555)
    world.restore(ref)
    assert look(nobody) == then
    nobody.joinpath("new").mkdir()
    (nobody / "new" / "file").write_text("b")
    (nobody / "new").chmod(0o500)
    world.restore(empty)
    assert look(nobody) == then
    (nobody / "secret").write_text("c")
    (nobody / "secret").chmod(0)
    with pytest.raises(WorldError, match=r"cannot be kept: .*secret: Permission denied"):
        world.snapshot()


class Killed(BaseException):
    """The process is no more."""


_CALLS = ("rename", "replace", "unlink", "mkdir", "rmdir", "utime", "symlink", "write", "fchmod", "chown", "makedirs")


@contextlib.contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let so many changes of files happen, and none after."""
    count = [0]

    def counting(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] > number:
                raise Killed
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, counting(getattr(os, name)))
        yield count


def test_a_restore_that_is_killed_anywhere_is_undone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call, in another process, finds the folder as it was; also what was written since the kill is kept."""
    world = Workspace(folder)
    ref, then = world.snapshot(), look(folder)
    shutil.rmtree(folder / "inner")
    (folder / "inner").write_text("a file now")
    (folder / "run.sh").write_text("false\n")
    (folder / "empty" / "new").mkdir(parents=True)
    (folder / "link").unlink()
    last, now = world.snapshot(), look(folder)
    for number in range(1000):
        done = False
        with killed_at(number, monkeypatch), contextlib.suppress(Killed):
            Workspace(folder).restore(ref)
            done = True
        if done:
            break
        between = number % 5 == 0
        if between:
            (folder / "by hand").write_text(str(number))
        Workspace(folder).snapshot()
        if between and (folder / "by hand").exists():  # it was killed before it had begun
            (folder / "by hand").unlink()
            world.restore(last)
        elif between:
            *_, half = world.replaced
            world.restore(half)
            assert (folder / "by hand").read_text() == str(number)
            world.restore(last)
        assert look(folder) == now
    assert number > 20 and look(folder) == then


_RESTORING = """
import sys
from leafe_graph import Workspace
world = Workspace(sys.argv[1])
print(flush=True)
while True:
    for ref in sys.argv[2:]:
        world.restore(ref)
"""


def test_a_process_that_is_killed_leaves_one_state_or_the_other(folder: Path) -> None:
    """With the signal that nothing can see to."""
    world = Workspace(folder)
    for number in range(30):
        (folder / f"file{number}").write_text(str(number))
    refs = {world.snapshot(): look(folder)}
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "file1").mkdir()
    refs[world.snapshot()] = look(folder)
    for wait in (0.013, 0.031, 0.047):
        with subprocess.Popen(
            [sys.executable, "-c", _RESTORING, str(folder), *refs], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        Workspace(folder).snapshot()
        assert look(folder) in refs.values()


def test_a_restore_that_fails_is_undone(folder: Path) -> None:
    """Of a content that somebody has deleted or changed: the folder is as it was."""
    world = Workspace(folder)
    ref = world.snapshot()
    for name in ("run.sh", ".git/HEAD"):
        (folder / name).write_text("changed")
    now = look(folder)
    victim = next(file for file in (world._store.folder / "objects").glob("*/*") if file.read_bytes() == b"true\n")
    victim.write_bytes(b"TRUE\n")
    with pytest.raises(WorldLost, match="is damaged"):
        world.restore(ref)
    assert look(folder) == now
    victim.unlink()
    with pytest.raises(WorldLost, match="somebody has deleted it"):
        world.restore(ref)
    assert look(folder) == now


def test_what_is_written_meanwhile_is_not_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that still runs changes a file after it was kept, or makes one in a folder that goes."""
    world = Workspace(folder)
    ref = world.snapshot()
    (folder / "new").mkdir()
    (folder / "run.sh").write_text("false\n")
    real = world._store.begin

    def late(path: Path) -> None:
        def begin(replaced: str) -> None:
            real(replaced)
            path.write_text("written meanwhile")
            monkeypatch.undo()

        monkeypatch.setattr(world._store, "begin", begin)

    now = world.snapshot()
    for name in ("run.sh", "new/file"):
        world.restore(now)
        late(folder / name)
        with pytest.raises(WorldBusy, match=r"while .* is restored"):
            world.restore(ref)
        found = []
        for each in world.replaced:
            world.restore(each)
            found.append((folder / name).read_text() if (folder / name).exists() else None)
        assert "written meanwhile" in found
    world.restore(ref)
    assert (folder / "run.sh").read_text() == "true\n"


def test_mistakes_are_told(folder: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    for place in (folder, folder / "store", tmp_path):
        with pytest.raises(ConfigError, match="one is in the other"):
            Workspace(folder, place)
    with pytest.raises(ConfigError, match=r"nothing is no folder; make it"):
        Workspace(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"run\.sh is no folder"):
        Workspace(folder / "run.sh", tmp_path / "store")
    world = Workspace(folder, tmp_path / "store")
    ref = world.snapshot()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"has snapshots of .*work .*expected those of .*other"):
        Workspace(other, tmp_path / "store").restore(ref)
    for unknown in ("../../etc/passwd", "", "0123-0123456789ab"):
        with pytest.raises(WorldLost):
            world.restore(unknown)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_a_workspace_is_one_episodes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its store; and a restore says where what it replaced can be found."""
    one, other = Workspace(folder), Workspace(folder, folder.with_name("other"))
    occupy(one, "a")
    with pytest.raises(WorldBusy, match=r"Workspace .*work is in use by 'a'"):
        occupy(other, "b")
    vacate(one, "a")
    occupy(other, "b")
    vacate(other, "b")
    ref = one.snapshot()
    (folder / "run.sh").unlink()
    with caplog.at_level(logging.INFO):
        one.restore(ref)
    assert one.replaced[0] in caplog.text
