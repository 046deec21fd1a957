"""Files and folders: written whole or not at all, one writer a folder, and where what is made once is kept."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError, RunFolderError


def lock_folder(folder: Path) -> IO[bytes]:
    """Become a folder's only writer, until the file is closed or the process ends; the folder is made.

    Raises:
        RunFolderError: another process writes to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "a+b")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().decode() or "?"
        lock.close()
        raise RunFolderError(
            f"{folder} is being written by process {owner}; wait for it, stop it, or choose another folder"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


def refuse_other_settings(
    folder: Path, known: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raise `ConfigError`, naming what differs, unless both settings of a folder are the same.

    What a folder does not know was added since: it had its default then.
    """
    if changes := ", ".join(_differences(known, now, defaults)):
        raise ConfigError(
            f"{folder} holds a run with other settings ({changes}); give the same ones to resume it, or choose another "
            "folder"
        )


def save_json(file: Path, data: Mapping[str, Any]) -> Path:
    """The data as a file, whole or not at all; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    replace_file(file, lambda new: new.write_text(text, encoding="utf-8"))
    return file


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then put it in its place at once."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _differences(
    known: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """What two configurations do not share, by dotted name."""
    for key in sorted({*known, *now}):
        a, b, default = known.get(key, defaults.get(key)), now.get(key), defaults.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, default if isinstance(default, dict) else {}, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}: {_short(a)} there, {_short(b)} now"


def full_disk(folder: Path, error: BaseException) -> RunFolderError | None:
    """What to tell the user if the error is that of a full disk, the operating system's or SQLite's."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "disk is full" in str(error)
    advice = "Every branch that was logged is safe: make room, then run the same command again to go on"
    if not full or advice in str(error):
        return None
    return RunFolderError(f"{folder} cannot be written: {error}. {advice}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def cache_dir() -> Path:
    """``LEAFE_CACHE``, else ``leafe-graph`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    if chosen := os.environ.get("LEAFE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leafe-graph"


def beside(folder: Path, suffix: str) -> Path:
    """``eval/base.json`` for the samples in ``eval/base``: where an evaluation's result lies."""
    return folder.with_name(folder.name + suffix)
