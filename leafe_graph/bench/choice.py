"""What is there of the cells, and with which setting a method is compared: the best on the tasks to choose by."""

from functools import cache
from pathlib import Path

from ..evaluation.results import Result
from ..rounds.folder import mark
from .config import BenchConfig, Cell


def has_learned(bench: BenchConfig, cell: Cell) -> bool:
    """Whether a cell's policy is there."""
    return not bench.entries[cell.entry].learns or mark(bench.folder(cell), "learn").exists()


def can_begin(bench: BenchConfig, cell: Cell) -> bool:
    """Whether the policy that a cell starts from is there."""
    start = bench.entries[cell.entry].start
    if start is None:
        return True
    setting = chosen(bench, start)
    if setting is None:
        return False
    before = Cell(start, setting, cell.seed)
    return has_learned(bench, before) and can_begin(bench, before)


def is_judged(bench: BenchConfig, cell: Cell, panel: str) -> bool:
    """Whether a cell's result is there, and still that of what the cell starts from."""
    return (bench.folder(cell) / f"{panel}.json").exists() and can_begin(bench, cell)


def result(bench: BenchConfig, cell: Cell, panel: str) -> Result:
    """How a cell's policy was judged."""
    return Result.load(bench.folder(cell) / f"{panel}.json")


def candidates(bench: BenchConfig, name: str) -> list[Cell]:
    """The cells that an entry's setting is chosen from; none where there is nothing to choose."""
    entry = bench.entries[name]
    settings = range(len(bench.grid(name)))
    if entry.choice is not None or bench.tune is None or len(settings) < 2:
        return []
    return [Cell(name, setting, bench.seeds_of(name)[0]) for setting in settings]


def scores(bench: BenchConfig, name: str) -> list[float | None]:
    """Pass@k of each of an entry's settings on the tasks to choose by; None for those that are not judged yet."""
    if bench.tune is None:
        return []
    k = bench.tune.k
    return [
        _score(bench.folder(cell) / "tune.json", k) if is_judged(bench, cell, "tune") else None
        for cell in candidates(bench, name)
    ]


def _score(file: Path, k: int) -> float:
    stat = file.stat()
    return _score_of(file, stat.st_ino, stat.st_mtime_ns, stat.st_size, k)


@cache
def _score_of(file: Path, inode: int, changed: int, size: int, k: int) -> float:
    """Read once, though every look at what can begin asks for it; a file that was written anew is another."""
    return Result.load(file).pass_at(k, resamples=1).mean


def chosen(bench: BenchConfig, name: str) -> int | None:
    """The place in the grid of the setting that an entry is compared with; None while that is not known."""
    entry = bench.entries[name]
    if entry.choice is not None:
        return chosen(bench, entry.choice)
    found = scores(bench, name)
    known = [score for score in found if score is not None]
    if len(known) < len(found):
        return None
    return found.index(max(known)) if known else 0


def cells(bench: BenchConfig, name: str) -> list[Cell]:
    """The cells that an entry is compared by, one for each seed; none while its setting is not chosen."""
    setting = chosen(bench, name)
    return [] if setting is None else [Cell(name, setting, seed) for seed in bench.seeds_of(name)]
