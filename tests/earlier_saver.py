"""What the releases of `TreeSaver`'s formats 1 and 2 left, as they wrote it themselves."""

import shutil
from pathlib import Path


def earlier(version: int, folder: Path) -> Path:
    """Unpack it: ``run``, in which `test_prune.grow` of one task was killed at its tenth call, and ``two.sqlite``.

    The file has checkpoints 4 and 7 of thread 1.
    """
    shutil.unpack_archive(Path(__file__).parent / f"earlier/format-{version}.tar.gz", folder, filter="data")
    return folder
