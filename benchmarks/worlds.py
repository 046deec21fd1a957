"""A folder as a world: what a decision point and a restore cost, against a plain copy and a shadow git repository.

python benchmarks/worlds.py --files 30 3000 30000

Each way keeps the folder, then, at every round, the folder with some files edited, one made, one deleted and one folder
removed, and goes back to it after as many edits more. Ways take turns within a round. `exact` compares all of the
folder, times and permissions included, with what it was.
"""

import argparse
import os
import random
import resource
import shutil
import stat
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from leafe_graph import Workspace


class Way(Protocol):
    """A way to keep a folder."""

    def snapshot(self) -> str:
        """Keep it."""
        ...

    def restore(self, ref: str) -> None:
        """Bring it back."""
        ...


class Copy:
    """All of it copied, and copied back."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store, self.count = folder, store, 0

    def snapshot(self) -> str:
        """A copy."""
        self.count += 1
        shutil.copytree(self.folder, self.store / str(self.count), symlinks=True)
        return str(self.count)

    def restore(self, ref: str) -> None:
        """The copy back."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.store / ref, self.folder, symlinks=True)


class ShadowGit:
    """A repository outside of the folder that has it as its work tree."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.command = ["git", f"--git-dir={store}", f"--work-tree={folder}", "-c", "user.name=a", "-c", "user.email=a"]
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        """Run it in the folder."""
        return subprocess.run(
            [*self.command, *words], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def snapshot(self) -> str:
        """A commit of everything, ignored files too."""
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", "point")
        return self.git("rev-parse", "HEAD")

    def restore(self, ref: str) -> None:
        """The commit's tree, and nothing else."""
        self.git("add", "--all", "--force")  # else what is new stays
        self.git("reset", "--hard", "--quiet", ref)
        self.git("clean", "-ffdxq")


WAYS: dict[str, Callable[[Path, Path], Way]] = {"`Workspace`": Workspace, "copy": Copy, "shadow git": ShadowGit}


def fill(folder: Path, files: int) -> None:
    """Texts of 2 kB on average, 30 in a folder, one folder empty."""
    draw = random.Random(files)
    for number in range(files):
        file = folder / f"part{number // 900}" / f"folder{number // 30}" / f"file{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw.randbytes(draw.randrange(4000)).hex().encode()[: draw.randrange(4000)])
    (folder / "empty").mkdir(parents=True)


def edit(folder: Path, draw: random.Random) -> None:
    """What a tool call or two do."""
    files = sorted(folder.rglob("*.txt"))
    for file in draw.sample(files, 4):
        file.write_text(str(draw.random()))
    files[0].unlink()
    (folder / f"new{draw.random()}").write_text("new")
    if len(files) > 100:
        shutil.rmtree(draw.choice(files[1:]).parent)


def look(folder: Path) -> dict[str, Any]:
    """All that is in a folder."""
    found = {}
    for top, folders, files in os.walk(folder):
        for path in [top, *(os.path.join(top, name) for name in folders + files)]:
            seen = os.lstat(path)
            held = Path(path).read_bytes() if stat.S_ISREG(seen.st_mode) else None
            found[os.path.relpath(path, folder)] = (seen.st_mode, seen.st_mtime_ns, held)
    return found


def timed(call: Callable[[], Any], times: dict[str, list[tuple[float, float]]], what: str) -> Any:
    """The call's result; its seconds by the clock and of the processor, git's included."""

    def cpu() -> float:
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in used)

    began, busy = time.perf_counter(), cpu()
    result = call()
    times.setdefault(what, []).append((time.perf_counter() - began, cpu() - busy))
    return result


def measure(files: int, rounds: int, top: Path) -> None:
    """One size: a row for each way."""
    ways: dict[str, tuple[Path, Way]] = {}
    times: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in WAYS}
    exact = dict.fromkeys(WAYS, True)
    for name, way in WAYS.items():
        folder, store = top / name / "work", top / name / "store"
        fill(folder, files)
        store.mkdir()
        ways[name] = folder, way(folder, store)
    time.sleep(0.2)  # files that were written a moment ago are read twice
    for name, (_, world) in ways.items():
        timed(world.snapshot, times[name], "first point")
    for number in range(rounds):
        for name, (folder, world) in ways.items():
            edit(folder, random.Random(number))
            then = look(folder)
            ref = timed(world.snapshot, times[name], "point")
            edit(folder, random.Random(1000 + number))
            timed(lambda world=world, ref=ref: world.restore(ref), times[name], "restore")  # type: ignore[misc]
            exact[name] &= look(folder) == then
    for name in WAYS:
        cells = []
        for what in ("first point", "point", "restore"):
            clock, busy = (statistics.median(each) for each in zip(*times[name][what], strict=True))
            cells.append(f"{1000 * clock:,.0f} ({1000 * busy:,.0f})")
        store = top / name / "store"
        size = sum(path.lstat().st_size for path in store.rglob("*") if not path.is_dir()) / 2**20
        print(
            f"| {files:,} | {name} | {' | '.join(cells)} | {size:,.1f} | {'yes' if exact[name] else 'no'} |", flush=True
        )


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[30, 3000, 30_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work, on the disk to measure; else a temporary folder")
    arguments = parser.parse_args()
    print("| files | | first point, ms (CPU) | point, ms (CPU) | restore, ms (CPU) | kept, MiB | exact |")
    print("|---:|---|---:|---:|---:|---:|---|", flush=True)
    for files in arguments.files:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as top:
            measure(files, arguments.rounds, Path(top))


if __name__ == "__main__":
    main()
