"""Files and folders: as people name them, written whole or not at all, one writer a folder, and the cache."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from .errors import ConfigError, LeafeError, RunFolderError


def path_of(given: str | os.PathLike[str]) -> Path:
    """A path as people write it: ``~`` is the home folder, wherever no shell has seen to that.

    Raises:
        ConfigError: ``~NAME`` of nobody here.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{given}: {error}") from error


def _given(path: Any) -> Any:
    return str(path_of(path)) if isinstance(path, str | os.PathLike) else path  # in JSON pydantic takes texts only


def _file(path: Path) -> Path:
    if os.path.isdir(path):
        raise ValueError("it is a folder, expected a file")
    if not os.path.exists(path):  # a pipe is a file, too: a shell's <(…)
        raise ValueError("there is no such file")
    return path


UserPath = Annotated[Path, BeforeValidator(_given)]
"""Type of a setting that is a path, see `path_of`."""
UserFile = Annotated[Path, BeforeValidator(_given), AfterValidator(_file)]
"""The same of a file that must be there."""


def _file_or_address(given: Any) -> Any:
    is_path = isinstance(given, str | os.PathLike) and "://" not in str(given)
    return _file(path_of(given)) if is_path else given


FileOrAddress = Annotated[Path | str, BeforeValidator(_file_or_address)]
"""Type of a setting that is a file that must be there, or the address of a database, which has ``://``."""


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say in a `RunFolderError` what stands in the way of making or writing a place."""
    try:
        yield
    except LeafeError:
        raise
    except OSError as error:
        what = _INSTEAD.get(error.errno or 0) or error.strerror or error
        at = f" ({error.filename})" if error.filename and not str(error.filename).startswith(str(place)) else ""
        raise full_disk(place, error) or RunFolderError(
            f"{place} cannot be written: {what}{at}; choose another place, or see to this one"
        ) from error
    except Exception as error:
        if (full := full_disk(place, error)) is not None:
            raise full from error
        raise


_INSTEAD = {
    errno.EEXIST: "there is a file, expected a folder",
    errno.ENOTDIR: "a part of its path is a file, expected folders",
    errno.EISDIR: "there is a folder, expected a file",
}
"""What the operating system's shortest words leave to be guessed."""


def check_folder(folder: Path) -> Path:
    """The folder, in which files can be made, or which can be made for them; nothing is left of the trial.

    Raises:
        RunFolderError: they cannot.
    """
    with writing(folder):
        there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
        if not there.is_dir():
            raise OSError(errno.EEXIST if there == folder else errno.ENOTDIR, "", str(there))
        with tempfile.TemporaryFile(dir=there):
            pass
    return folder


def check_file(file: Path) -> Path:
    """The file's path, at which one can be written; nothing is left of the trial.

    Raises:
        RunFolderError: it cannot, as where a folder or a device is.
    """
    with writing(file):
        if file.is_dir():
            raise OSError(errno.EISDIR, "")
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "there is a device, expected a file")
        check_folder(_target(file).parent)
    return file


def _target(file: Path) -> Path:
    """The file itself, or what a link leads to."""
    return Path(os.path.realpath(file)) if file.is_symlink() else file


def holding(given: str | os.PathLike[str], what: str, *kinds: Sequence[str]) -> Path:
    """The folder, if it holds one file at least of each of these kinds.

    Args:
        given: the folder as people name it.
        what: it should be.
        kinds: names of files, the usual one of each kind first.

    Raises:
        ConfigError: it does not; the message says what is missing.
    """
    folder = path_of(given)
    for names in kinds:
        if not any((folder / name).is_file() for name in names):
            absent = "it is a file" if folder.exists() else "it does not exist"
            raise ConfigError(f"{given} is not {what}: {f'it has no {names[0]}' if folder.is_dir() else absent}")
    return folder


def make_folder(folder: Path) -> Path:
    """The folder, made if it was not there, in which files can be made.

    Raises:
        RunFolderError: they cannot.
    """
    check_folder(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def lock_folder(folder: Path) -> IO[bytes]:
    """Become a folder's only writer, until the file is closed or the process ends; the folder is made.

    Raises:
        RunFolderError: another process writes to it, it cannot be written, or its file system knows no locks.
    """
    make_folder(folder)
    with writing(folder):
        lock = open(folder / ".lock", "a+b")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().decode() or "?"
        lock.close()
        raise RunFolderError(
            f"{folder} is being written by process {owner}; wait for it, stop it, or choose another folder"
        ) from None
    except OSError as error:
        lock.close()
        if (full := full_disk(folder, error)) is not None:
            raise full from error
        raise RunFolderError(
            f"{folder} cannot be locked ({error.strerror}): nothing would keep a second process from writing to it. "
            "Choose a folder on a local disk, or have this file system mounted with locks (Lustre: -o flock)"
        ) from error
    return lock


def refuse_other_settings(
    folder: Path, known: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raise `ConfigError`, naming what differs, unless both settings of a folder are the same.

    What a folder does not know was added since: it had its default then.
    """
    if changes := ", ".join(differences(known, now, defaults)):
        raise ConfigError(
            f"{folder} holds a run with other settings ({changes}); give the same ones to resume it, or choose another "
            "folder"
        )


def save_json(file: Path, data: Mapping[str, Any]) -> Path:
    """The data as a file, whole or not at all; its folder is made."""
    save_text(file, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return file


def save_text(file: Path, text: str) -> None:
    """The text as a file in UTF-8, whole or not at all; ``?`` for half a surrogate pair, which UTF-8 cannot say."""
    replace_file(file, lambda new: new.write_text(text, encoding="utf-8", errors="replace", newline="\n"))


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then put it in its place at once; its folder is made, a link's target replaced.

    Raises:
        RunFolderError: it cannot be written; what was there is as it was.
    """
    real = _target(check_file(file))
    make_folder(real.parent)
    temporary = real.with_name(f".{real.name}.{os.getpid()}.tmp")
    with writing(file):
        try:
            write(temporary)
            os.replace(temporary, real)
        finally:
            with contextlib.suppress(OSError):  # of a name that cannot be
                temporary.unlink(missing_ok=True)


def differences(
    known: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """What two configurations do not share, by dotted name."""
    for key in sorted({*known, *now}):
        a, b, default = known.get(key, defaults.get(key)), now.get(key), defaults.get(key)
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(isinstance(x, dict) for x in a + b):
            a, b = ({str(i): each for i, each in enumerate(many)} for many in (a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, default if isinstance(default, dict) else {}, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}: {_short(a)} there, {_short(b)} now"


def full_disk(folder: Path, error: BaseException) -> RunFolderError | None:
    """What to tell the user if the error is that of a full disk: the operating system's, SQLite's or safetensors'."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = full or any(words in str(error) for words in ("disk is full", "No space left on device"))
    advice = "What was logged or saved is safe: make room, then run the same command again to go on"
    if not full or advice in str(error):
        return None
    return RunFolderError(f"{folder} cannot be written: {error}. {advice}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def cache_dir() -> Path:
    """``LEAFE_CACHE``, else ``leafe-graph`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    if chosen := os.environ.get("LEAFE_CACHE"):
        return path_of(chosen)
    return path_of(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "leafe-graph"


def beside(folder: Path, suffix: str) -> Path:
    """``eval/base.json`` for the samples in ``eval/base``: where an evaluation's result lies."""
    return folder.with_name(folder.name + suffix)
