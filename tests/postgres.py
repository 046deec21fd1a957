"""A real PostgreSQL server for the tests: in a temporary folder, on a free port of 127.0.0.1, not as root."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MISSING = "no PostgreSQL server is installed (initdb and pg_ctl); on Debian: apt-get install postgresql"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian puts the newest; None where there is none."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server:
    """A running server; each test gets a database of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count()

    def address(self, database: str = "postgres") -> str:
        """Where it listens."""
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty database."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address(name)


@contextmanager
def server(binaries: Path, *, settings: str = "-c fsync=off -c shared_buffers=16MB") -> Iterator[Server]:
    """Started, and stopped when left; by default fast and forgetful."""
    folder = Path(tempfile.mkdtemp(prefix="leafe-postgres-"))
    as_whom: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:  # it refuses to run as root
        uid, gid = unprivileged()
        os.chown(folder, uid, gid)
        as_whom |= {"user": uid, "group": gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"

    def run(program: str, *args: str) -> None:
        command = [str(binaries / program), "-D", str(data), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, **as_whom)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}")

    try:
        run("initdb", "--no-sync", "--auth=trust", "--username=tests", "--encoding=UTF8", "--locale=C")
        port = free_port()
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c max_connections=20 {settings}"
        # Not through a pipe: the server would keep it open.
        command = [str(binaries / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-t", "120", "-o", options, "start"]
        subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=180, **as_whom
        )
        try:
            yield Server(port)
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unprivileged() -> tuple[int, int]:
    """A user and a group that are not root's."""
    import pwd

    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    raise RuntimeError("PostgreSQL cannot run as root, and there is neither a user postgres nor nobody")


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
