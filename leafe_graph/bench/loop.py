"""All cells of a bench, in processes side by side, and the tables of what is there."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, LeafeError
from ..files import check_folder, lock_folder
from ..processes.side_by_side import Job, side_by_side
from ..rounds.absent import absent
from ..rounds.folder import mark
from .cells import claim, judge_cell, learn_cell, learning, play_cell
from .choice import can_begin, candidates, cells, has_learned, is_judged
from .config import BenchConfig, Cell
from .tables import write_tables


def bench(config: BenchConfig, *, only: Sequence[str] = (), at_once: int = 1) -> Path:
    """Play, learn and judge what is missing; the folder with the tables of all that is there.

    Args:
        config: what to compare.
        only: the methods to work on, with those that they need; all unless given.
        at_once: cells that are worked on at the same time, each in a process of its own with its share of the
            processors.

    Raises:
        ConfigError: something that the settings name is not there.
        RunFolderError: another process writes to the folder.
        LeafeError: a cell failed; all others are done, and the tables say what is missing.
    """
    check_folder(config.out)
    wanted = config.only(only) if only else config
    lacking = {
        line for name in wanted.methods for line in absent(wanted.rounds(Cell(name, 0, wanted.seeds_of(name)[0])))
    }
    if lacking:
        raise ConfigError("\n".join(sorted(lacking)))
    with lock_folder(config.out):
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        # Threads that spin while they wait would take the other processes' time.
        environment = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}

        tabled = 0

        def ready() -> Iterator[Job]:
            nonlocal tabled
            for cell, _ in (each for name in config.methods for each in _wanted(config, name)):
                if can_begin(config, cell):  # again each time: what it starts from may be another now
                    claim(config, cell, new=False)
            if (there := len(list(config.out.glob("cells/*/*/*/test.json")))) != tabled:  # tables take a while
                write_tables(config)
                tabled = there
            yield from jobs(wanted, environment)

        failed = side_by_side(ready, at_once)
        write_tables(config)
    if failed:
        told = "\n".join(f"{name}: {why}" for name, why in failed.items())
        raise LeafeError(f"{len(failed)} job(s) failed; the same command does them again and goes on:\n{told}")
    return config.out


def jobs(config: BenchConfig, environment: dict[str, str]) -> Iterator[Job]:
    """What could be done now: the cells in their order, those to choose settings by before the others."""

    def job(name: str, *work: object) -> Job:
        function, *args = work
        file = config.out / "logs" / f"{name.replace(' ', '_').replace('/', '_')}.log"
        return Job(name, function, tuple(args), file, environment)  # type: ignore[arg-type]

    for name in config.methods:
        for cell, panel in _wanted(config, name):
            if is_judged(config, cell, panel) or not can_begin(config, cell):
                continue
            if has_learned(config, cell):
                yield job(f"{panel} {cell}", judge_cell, config, cell, panel)
                continue
            rounds = learning(config, cell)
            played = rounds.played(1)
            if mark(played, rounds.method.phases[0]).exists():
                yield job(f"learn {cell}", learn_cell, config, cell)
            else:  # once for all cells that learn from it
                yield job(f"play {played.name}", play_cell, config, cell)


def _wanted(config: BenchConfig, name: str) -> list[tuple[Cell, str]]:
    """The results that an entry still needs, as far as that is known."""
    tried = [(cell, "tune") for cell in candidates(config, name)]
    return tried + [(cell, "test") for cell in cells(config, name)]
