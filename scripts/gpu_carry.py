"""The wheels that `gpu_check.py --wheels` takes: ours, and those of the packages that it was tested with here.

Carried is what leafe-graph needs beside torch, transformers, peft, accelerate, what these require themselves, and what
else is said to be there. Packages that are wanted beside it come with what they need, or not at all.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
THERE = ("torch", "transformers", "peft", "accelerate")
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "leafe_graph", "envs", "finetune")
PLATFORMS = [f"manylinux{which}_x86_64" for which in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "1")]


def carry(folder: Path, wanted: Sequence[str], *, there: Sequence[str], mib: float, python: str) -> int:
    """Fill an empty folder with at most so many MiB of wheels for that Python; print how large they are."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name a new one")
    known = {canonicalize_name(name) for name in (*there, *THERE)} | {*required(*THERE)}
    taken = closure(["leafe-graph"], python) - known
    with tempfile.TemporaryDirectory() as temporary:
        aside = Path(temporary, "ours")
        build(aside)
        fetch(taken - {"leafe-graph"}, aside, python)
        if size(aside) > mib:
            sys.exit(f"what leafe-graph needs takes {size(aside):.1f} MiB, more than {mib:g}")
        told = [("leafe-graph and what it needs", size(aside), "taken")]
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        for name in wanted:
            aside = Path(temporary, name)
            own = closure([name], python) - known - taken
            fetch(own, aside, python)
            fits = size(folder) + size(aside) <= mib
            told.append((f"{name} ({', '.join(sorted(own))})", size(aside), "taken" if fits else "left out"))
            if fits:
                shutil.copytree(aside, folder, dirs_exist_ok=True)
                taken |= own
    print("| wheels | MiB | |\n|---|---:|---|")
    for what, large, became in told:
        print(f"| {what} | {large:.1f} | {became} |")
    print(f"\n{len([*folder.iterdir()])} wheels, {size(folder):.1f} MiB, in {folder}")
    return 0


def required(*names: str, python: str = "3.12") -> set[str]:
    """What installed packages require themselves; nothing of those that are not installed."""
    found = set()
    for name in names:
        asked = Requirement(name)
        try:
            lines = distribution(asked.name).requires or []
        except PackageNotFoundError:
            continue
        for each in map(Requirement, lines):
            where = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64"}
            if each.marker is None or any(each.marker.evaluate(where | {"extra": e}) for e in asked.extras or {""}):
                found.add(canonicalize_name(each.name) + (f"[{','.join(each.extras)}]" if each.extras else ""))
    return found


def closure(names: Collection[str], python: str) -> set[str]:
    """Packages with all that they need, as far as they are installed here."""
    found, ahead = set[str](), [*names]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += required(name, python=python)
    return {canonicalize_name(Requirement(name).name) for name in found}


def build(folder: Path) -> None:
    """Our wheel, from a copy: nothing is left behind in the checkout, and nothing that was left there is packed."""
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCE:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(copy, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy)
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
        subprocess.run([*pip, copy], check=True)


def fetch(names: Collection[str], folder: Path, python: str) -> None:
    """Wheels of packages in the versions that are installed here, the newest of those that are not."""
    folder.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    pip += ["--python-version", python, "--implementation", "cp", *(f"--platform={each}" for each in PLATFORMS)]
    if names:
        subprocess.run([*pip, *map(pinned, sorted(names))], check=True)


def pinned(name: str) -> str:
    """A package in its version here."""
    try:
        return f"{name}=={distribution(name).version}"
    except PackageNotFoundError:
        return name


def size(folder: Path) -> float:
    """MiB of the files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 2**20
