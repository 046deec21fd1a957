"""Where a run of rounds keeps what."""

from pathlib import Path

from .config import RunConfig

PHASES = ("explore", "export", "train", "eval")
"""Of a round, in order."""


def _mark(folder: Path, phase: str) -> Path:
    return folder / "done" / f"{phase}.json"


def _folder(config: RunConfig, number: int) -> Path:
    return config.out / f"round-{number}"


def _result(folder: Path) -> Path:
    """The JSON that the evaluation of a round writes."""
    return folder / "eval" / f"{folder.name}.json"


def _adapter(config: RunConfig, number: int) -> Path:
    return _folder(config, number) / "adapter"
