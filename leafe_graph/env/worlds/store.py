"""What a workspace keeps outside its folder: contents by their digest, and snapshots that name them."""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigError, WorldLost
from ...files import save_json

FILE, LINK, FOLDER = "file", "link", "folder"
VERSION = 1
_CHUNK = 1 << 20
_hash = partial(blake2b, digest_size=20)
_REF = re.compile(r"[0-9a-f]+-[0-9a-f]{12}")


class Entry(NamedTuple):
    """One name in a folder."""

    kind: str
    """`FILE`, `LINK` or `FOLDER`."""
    mode: int
    """Permissions; 0 of a link, which has none."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds."""
    held: str
    """The digest of a file's content or of a folder's entries; what a link says."""


class Status(NamedTuple):
    """What the system says of a file: it was not written to as long as this stays the same."""

    dev: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Status":
        """Of a file that was looked up."""
        return cls(found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


_TICK, _SECOND = 50_000_000, 1_000_000_000


def settled(status: Status, when: int) -> bool:
    """Whether a change after that time is seen: one in the same tick of the clock as the last one leaves no trace.

    Some file systems tick in seconds.
    """
    return status.ctime + (_TICK if status.ctime % _SECOND else 2 * _SECOND) < when


class Known(NamedTuple):
    """A file that was read."""

    status: Status
    held: str
    sure: bool
    """Whether it was `settled` when it was read."""


class Store:
    """A folder of its own, of which every file is written whole or not at all.

    ::

        objects/ab/cdef…   contents of files, and entries of folders as JSON
        points/REF         a snapshot: its top entry, and whether it was replaced by a restore
        index.json         which files were read already; without it they are read again
        restoring.json     a restore that is under way
        workspace.json     the folder that all this is of
    """

    def __init__(self, folder: Path, of: Path) -> None:
        self.folder, self.of = folder, of
        self._index_file: tuple[int, int] | None = None
        self._index: dict[int, Known] = {}
        self._forgotten = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in it, among threads and processes."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it has copies of what may be secret
        with open(self.folder / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._check_owner()
            yield

    def _check_owner(self) -> None:
        file = self.folder / "workspace.json"
        with contextlib.suppress(FileNotFoundError):
            told = json.loads(file.read_text(encoding="utf-8"))
            if told["version"] != VERSION or told["folder"] != str(self.of):
                raise ConfigError(
                    f"{self.folder} has snapshots of {told['folder']} (format {told['version']}), expected those of "
                    f"{self.of} (format {VERSION}); give each folder a store of its own, or mend {file.name} if it was "
                    "moved"
                )
            return
        save_json(file, {"version": VERSION, "folder": str(self.of)})

    def put(self, data: bytes) -> str:
        """Keep bytes; their digest."""
        digest = _hash(data).hexdigest()
        if not self.has(digest):
            with self._new() as (file, name):
                _write(file, data)
            self._settle(name, digest)
        return digest

    def put_file(self, source: int, size: int) -> str:
        """Keep what an open file holds from where it stands, about so many bytes; its digest."""
        if size <= _CHUNK:
            data = b"".join(_chunks(source))
            return self.put(data)
        hashed = _hash()
        with self._new() as (file, name):
            for chunk in _chunks(source):
                hashed.update(chunk)
                _write(file, chunk)
        self._settle(name, hashed.hexdigest())
        return hashed.hexdigest()

    def take(self, file: Path) -> str:
        """Keep a file of the same file system by moving it here; its digest."""
        with open(file, "rb") as source:
            digest = file_digest(source, _hash).hexdigest()
        self._settle(str(file), digest)
        return digest

    def has(self, digest: str) -> bool:
        """Whether a content is kept."""
        return os.path.exists(self._object(digest))

    def path(self, digest: str) -> str:
        """Where a content lies, to be read there.

        Raises:
            WorldLost: it is not there, or not what it was.
        """
        hashed = _hash()
        for chunk in self._read(digest):
            hashed.update(chunk)
        self._same(digest, hashed.hexdigest())
        return self._object(digest)

    def write_out(self, digest: str, target: int) -> None:
        """Write what is kept into an open file.

        Raises:
            WorldLost: it is not there, or not what it was.
        """
        hashed = _hash()
        for chunk in self._read(digest):
            hashed.update(chunk)
            _write(target, chunk)
        self._same(digest, hashed.hexdigest())

    def entries(self, digest: str) -> dict[str, Entry]:
        """What a folder held, by name.

        Raises:
            WorldLost: it is not there, or not what it was.
        """
        data = b"".join(self._read(digest))
        self._same(digest, _hash(data).hexdigest())
        return {name: Entry(*entry) for name, entry in json.loads(data).items()}

    def put_entries(self, entries: dict[str, Entry]) -> str:
        """Keep what a folder holds; its digest."""
        return self.put(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode())

    def add_point(self, top: Entry | None, *, replaced: bool) -> str:
        """A ref for a snapshot."""
        (self.folder / "points").mkdir(exist_ok=True)
        ref = f"{time.time_ns():016x}-{top.held[:12] if top else '0' * 12}"
        save_json(self._point(ref), {"top": top, "replaced": replaced})
        return ref

    def point(self, ref: str) -> Entry | None:
        """The top entry of a snapshot; None where there was no folder.

        Raises:
            WorldLost: there is no such snapshot.
        """
        try:
            top = json.loads(self._point(ref).read_text(encoding="utf-8"))["top"]
        except FileNotFoundError:
            raise WorldLost(
                f"{self.folder} has no snapshot {ref!r}: it was forgotten, or is of another store"
            ) from None
        except (ValueError, KeyError) as error:
            raise WorldLost(f"{self._point(ref)} is damaged: {error!r}") from error
        return None if top is None else Entry(*top)

    def replaced(self) -> list[str]:
        """The snapshots of what restores have replaced, oldest first."""
        return [ref for ref in self.refs() if json.loads(self._point(ref).read_text(encoding="utf-8"))["replaced"]]

    def refs(self) -> list[str]:
        """All snapshots, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.folder / "points") if _REF.fullmatch(name))
        return []

    def forget(self, ref: str) -> None:
        """Forget a snapshot, if it is there; what it alone held goes when as many are forgotten as are left."""
        with contextlib.suppress(FileNotFoundError, WorldLost):
            self._point(ref).unlink()
            self._forgotten += 1
            left = len(self.refs())
            if not left or self._forgotten > max(left, 16):
                self._forgotten = 0
                self._sweep()

    def begin(self, replaced: str) -> None:
        """A restore is under way that replaces this snapshot."""
        save_json(self.folder / "restoring.json", {"replaced": replaced})

    def begun(self) -> str | None:
        """What the restore that is under way, or was killed, replaces."""
        with contextlib.suppress(FileNotFoundError):
            ref: str = json.loads((self.folder / "restoring.json").read_text(encoding="utf-8"))["replaced"]
            return ref
        return None

    def end(self) -> None:
        """No restore is under way any more."""
        (self.folder / "restoring.json").unlink(missing_ok=True)

    def index(self) -> dict[int, Known]:
        """The files that were read already, by inode: as this process knows them, unless another one has written."""
        with contextlib.suppress(FileNotFoundError):
            if (written := self._index_written()) != self._index_file:
                self._index, self._index_file = {}, written
                with contextlib.suppress(ValueError, TypeError):
                    told = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
                    self._index = {inode: Known(Status(*status), held, True) for inode, status, held in told}
        return self._index

    def set_index(self, index: dict[int, Known]) -> None:
        """Remember files; in the file, too, when many have changed: what is not in there is only read again."""
        old, self._index = self._index, index
        if sum(old.get(inode) != known for inode, known in index.items()) * 20 > len(index):
            self._save_index()

    def _save_index(self) -> None:
        told = [(inode, known.status, known.held) for inode, known in self._index.items() if known.sure]
        temporary = self.folder / "index.tmp"
        temporary.write_text(json.dumps(told, separators=(",", ":")), encoding="utf-8")
        os.replace(temporary, self.folder / "index.json")
        self._index_file = self._index_written()

    def _index_written(self) -> tuple[int, int]:
        found = os.stat(self.folder / "index.json")
        return found.st_ino, found.st_mtime_ns

    def _sweep(self) -> None:
        """Delete what no snapshot holds."""
        held: set[str] = set()
        for ref in self.refs():
            if (top := self.point(ref)) is not None:
                self._mark(top, held)
        for place in (self.folder / "objects").glob("*/*"):
            if place.parent.name + place.name not in held:
                place.unlink()
        self._index = {inode: known for inode, known in self.index().items() if known.held in held}
        self._save_index()

    def _mark(self, entry: Entry, held: set[str]) -> None:
        if entry.held not in held and entry.kind != LINK:
            held.add(entry.held)
            if entry.kind == FOLDER:
                for each in self.entries(entry.held).values():
                    self._mark(each, held)

    def _object(self, digest: str) -> str:
        return f"{self.folder}/objects/{digest[:2]}/{digest[2:]}"

    def _point(self, ref: str) -> Path:
        if not _REF.fullmatch(ref):
            raise WorldLost(f"{ref!r} is no snapshot of a Workspace; expected what snapshot() gave")
        return self.folder / "points" / ref

    @contextlib.contextmanager
    def _new(self) -> Iterator[tuple[int, str]]:
        """A file to be written: in the lock there is only one at a time, so what a kill left is written anew."""
        name = f"{self.folder}/object.tmp"
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            yield file, name
        finally:
            os.close(file)

    def _settle(self, name: str, digest: str) -> None:
        place = self._object(digest)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.replace(name, place)

    def _read(self, digest: str) -> Iterator[bytes]:
        try:
            file = os.open(self._object(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise WorldLost(f"{self.folder} lacks {digest}: somebody has deleted it") from None
        try:
            yield from _chunks(file)
        finally:
            os.close(file)

    def _same(self, expected: str, actual: str) -> None:
        if actual != expected:
            raise WorldLost(f"{self._object(expected)} is damaged: its digest is {actual}")


def _chunks(file: int) -> Iterator[bytes]:
    while chunk := os.read(file, _CHUNK):
        yield chunk


def _write(file: int, data: bytes) -> None:
    view: Any = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
