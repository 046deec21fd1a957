"""A folder as a world: brought back byte for byte, and nothing of it is ever lost."""

import contextlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import ConfigError, LeafeError, WorldBusy, WorldError
from ...files import path_of
from .store import FILE, FOLDER, LINK, Entry, Known, Status, Store, settled

log = logging.getLogger(__name__)

_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _OPEN | os.O_RDONLY | os.O_DIRECTORY


class Workspace:
    """A folder that tools write to, brought back exactly.

    Contents, ignored files, empty folders, permissions, owners (as far as the process may), times of change, symbolic
    links, repositories in it and its own ``.git``. Not kept: extended attributes, which names are one file (hard links;
    a warning tells), and what is no file, folder or link (sockets, pipes, devices: they are let alone).

    A snapshot reads what has changed since the last one, by what the system says of each file, and keeps every content
    once. A restore touches only what differs; what it replaces is kept first and listed in `replaced`; it replaces
    files and never writes into them, so other names of a file outside the folder stay as they are, and it follows no
    symbolic link. A restore that is killed, or fails, is undone: by itself, else by the next call.

    Call it while nothing writes to the folder: what is mapped into memory by a process that runs may be missed. A
    database that tools keep open belongs elsewhere, as a `SqliteFile` of its own: its connections would go on with the
    file that was replaced.

    Args:
        folder: which is there.
        store: where snapshots are kept, outside of the folder, for this folder alone; None: beside it, with the ending
            ``.leafe``. It has copies of all that was in the folder, so it can be read by the user alone.

    Raises:
        ConfigError: there is no such folder, or the store is inside of it, or it inside of the store.
    """

    durable = True

    def __init__(self, folder: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(os.path.realpath(path_of(folder)))
        place = Path(os.path.realpath(path_of(store))) if store else self.folder.with_name(f"{self.folder.name}.leafe")
        if place.is_relative_to(self.folder) or self.folder.is_relative_to(place):
            raise ConfigError(f"store={place} and folder={self.folder}: one is in the other; choose a store outside")
        if not self.folder.is_dir() and not place.is_dir():
            raise ConfigError(f"{folder} is no folder; make it, or give the one that the tools write to")
        self._store = Store(place, self.folder)
        self._warned = False

    @property
    def place(self) -> Path:
        """The folder: two workspaces of one folder are one world."""
        return self.folder

    @property
    def replaced(self) -> list[str]:
        """Refs of what restores have replaced, oldest first: each can be restored, or forgotten."""
        return self._store.replaced()

    def snapshot(self) -> str:
        """Keep the folder as it is.

        Raises:
            WorldBusy: it is written to at this moment.
            WorldError: something in it cannot be read.
        """
        with self._alone("kept"):
            return self._keep(replaced=False)[0]

    def restore(self, ref: str) -> None:
        """Make the folder what it was.

        Raises:
            WorldLost: there is no such snapshot, or a part of it is missing; the folder is as it was.
            WorldBusy: it is written to at this moment; it is as it was.
            WorldError: something in it cannot be read or written.
        """
        with self._alone("restored"):
            then = self._store.point(ref)
            kept, now = self._keep(replaced=True)
            if now == then:
                self._store.forget(kept)
                return
            log.info("%s goes back to %s; what was there is kept as %s", self.folder, ref, kept)
            self._store.begin(kept)
            try:
                self._swap(now, then)
            except BaseException:
                self._undo()
                raise
            self._store.end()

    def forget(self, ref: str) -> None:
        """Drop a snapshot, and now and then what no other one holds."""
        with self._alone("seen to"):
            self._store.forget(ref)

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        try:
            with self._store.locked():
                self._undo()
                yield
        except LeafeError:
            raise
        except FileNotFoundError as error:
            raise WorldBusy(
                f"{self.folder} cannot be {what}: {error.filename} went away meanwhile; try again"
            ) from error
        except OSError as error:
            raise WorldError(
                f"{self.folder} cannot be {what}: {error.filename or self._store.folder}: {error.strerror}"
            ) from error

    def _undo(self) -> None:
        """Bring back what a restore that was killed or failed has begun to replace; also that loses nothing."""
        if (replaced := self._store.begun()) is not None:
            then = self._store.point(replaced)
            _, now = self._keep(replaced=True)
            self._swap(now, then)
            self._store.end()

    def _keep(self, *, replaced: bool) -> tuple[str, Entry | None]:
        old, new = self._store.index(), dict[int, Known]()
        with self._parent() as parent:
            try:
                found = os.stat(self.folder.name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                top = None
            else:
                if not stat.S_ISDIR(found.st_mode):
                    raise WorldError(f"{self.folder} is no folder any more; move what is there away")
                top = self._seen(parent, self.folder.name, str(self.folder), found, old, new)
        self._store.set_index(new)
        return self._store.add_point(top, replaced=replaced), top

    @contextlib.contextmanager
    def _parent(self) -> Iterator[int]:
        if os.path.realpath(self.folder) != str(self.folder):
            raise WorldError(
                f"{self.folder} leads to {os.path.realpath(self.folder)} now: a symbolic link was put in its place, "
                "which is not followed; remove it"
            )
        file = os.open(self.folder.parent, _FOLDER)
        try:
            yield file
        finally:
            os.close(file)

    def _seen(
        self,
        folder: int,
        name: str,
        path: str,
        found: os.stat_result,
        old: dict[int, Known],
        new: dict[int, Known],
    ) -> Entry | None:
        """What is under a name in an open folder; kept."""
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            kind, held = FILE, self._content(folder, name, path, found, old, new)
        elif stat.S_ISLNK(found.st_mode):
            kind, held, mode = LINK, os.readlink(name, dir_fd=folder), 0
        elif stat.S_ISDIR(found.st_mode):
            entries = {}
            with _opened(folder, name) as inner, os.scandir(inner) as listed:
                for each in listed:
                    status = each.stat(follow_symlinks=False)
                    entry = self._seen(inner, each.name, f"{path}/{each.name}", status, old, new)
                    if entry is not None:
                        entries[each.name] = entry
            kind, held = FOLDER, self._store.put_entries(entries)
        else:
            return None
        return Entry(kind, mode, found.st_uid, found.st_gid, found.st_mtime_ns, held)

    def _content(
        self, folder: int, name: str, path: str, found: os.stat_result, old: dict[int, Known], new: dict[int, Known]
    ) -> str:
        """The digest of a file's content, which is read unless it was before."""
        status = Status.of(found)
        known = old.get(found.st_ino)
        if found.st_nlink > 1 and not self._warned:
            self._warned = True
            log.warning("%s has %d names (hard links): a restore makes those it writes separate", path, found.st_nlink)
        if known is None or known.status != status or not known.sure:
            began = time.time_ns()
            try:
                file = os.open(name, _OPEN | os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
            except OSError as error:
                error.filename = path
                raise
            try:
                held = self._store.put_file(file, found.st_size)
                if Status.of(os.fstat(file)) != status:
                    raise WorldBusy(f"{path} is written to while {self.folder} is kept; let the tools end first")
            finally:
                os.close(file)
            known = Known(status, held, settled(status, began))
        new[found.st_ino] = known
        return known.held

    def _swap(self, now: Entry | None, then: Entry | None) -> None:
        name = self.folder.name
        with self._parent() as parent:
            self._turn(parent, str(self.folder.parent), {name: now} if now else {}, {name: then} if then else {})

    def _turn(self, folder: int, path: str, now: dict[str, Entry], then: dict[str, Entry]) -> None:
        """Make the entries of an open folder others."""
        for name, entry in now.items():
            other = then.get(name)
            if other is None or (entry.kind != other.kind and FOLDER in (entry.kind, other.kind)):
                self._remove(folder, name, f"{path}/{name}", entry)
        for name, entry in then.items():
            before, here = now.get(name), f"{path}/{name}"
            if before == entry:
                continue
            if before is not None and (before.kind == FOLDER) != (entry.kind == FOLDER):
                before = None  # it was removed
            if before is None:
                self._vacant(folder, name, here)
            elif before.kind != FOLDER:
                self._unchanged(folder, name, here, before)
            if entry.kind == FOLDER:
                if before is None:
                    os.mkdir(name, 0o700, dir_fd=folder)
                with _opened(folder, name, write=True) as inner:
                    held = self._store.entries(before.held) if before else {}
                    if before is None or before.held != entry.held:
                        self._turn(inner, here, held, self._store.entries(entry.held))
                    _dress(inner, entry)
            else:
                self._put(folder, name, entry)

    def _remove(self, folder: int, name: str, path: str, entry: Entry) -> None:
        """Remove what was kept, and nothing else."""
        if entry.kind != FOLDER:
            self._unchanged(folder, name, path, entry)
            os.unlink(name, dir_fd=folder)
            return
        with _opened(folder, name, write=True) as inner:
            for each, held in self._store.entries(entry.held).items():
                self._remove(inner, each, f"{path}/{each}", held)
            for each in os.listdir(inner):
                self._vacant(inner, each, f"{path}/{each}")
        os.rmdir(name, dir_fd=folder)

    def _vacant(self, folder: int, name: str, path: str) -> None:
        """See to it that nothing is under a name: what holds no data is removed."""
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
                raise WorldBusy(f"{path} was made while {self.folder} is restored; let the tools end first")
            os.unlink(name, dir_fd=folder)

    def _unchanged(self, folder: int, name: str, path: str, entry: Entry) -> None:
        """See to it that what is replaced is what was kept."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            same = entry.kind == LINK and os.readlink(name, dir_fd=folder) == entry.held
        else:  # its ctime changes when another of its names is removed
            known = self._store.index().get(found.st_ino)
            same = known is not None and known.held == entry.held and known.status[:3] == Status.of(found)[:3]
        if not same:
            raise WorldBusy(f"{path} is written to while {self.folder} is restored; let the tools end first")

    def _put(self, folder: int, name: str, entry: Entry) -> None:
        """A file or link, in its place at once; never written into what is there, which may have names elsewhere."""
        temporary = f".leafe-{secrets.token_hex(8)}.tmp"
        try:
            if entry.kind == LINK:
                os.symlink(entry.held, temporary, dir_fd=folder)
                with contextlib.suppress(PermissionError):
                    os.chown(temporary, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
                os.utime(temporary, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)
            else:
                file = os.open(temporary, _OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                try:
                    self._store.write_out(entry.held, file)
                    _dress(file, entry)
                finally:
                    os.close(file)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


@contextlib.contextmanager
def _opened(folder: int, name: str, *, write: bool = False) -> Iterator[int]:
    """A folder in an open folder, which no symbolic link leads out of."""
    file = os.open(name, _FOLDER, dir_fd=folder)
    try:
        if write and (mode := stat.S_IMODE(os.fstat(file).st_mode)) & 0o700 != 0o700:
            os.fchmod(file, mode | 0o700)
        yield file
    finally:
        os.close(file)


def _dress(file: int, entry: Entry) -> None:
    """Owner, permissions and times of an open file or folder; an owner that is set takes permissions away."""
    with contextlib.suppress(PermissionError):
        os.chown(file, entry.uid, entry.gid)
    os.fchmod(file, entry.mode)
    os.utime(file, ns=(entry.mtime, entry.mtime))
