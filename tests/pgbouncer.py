"""A real PgBouncer for the tests, on a free port of 127.0.0.1, before a server that they have started."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postgres import Server, free_port, unprivileged

MISSING = "no PgBouncer is installed; on Debian: apt-get install pgbouncer"


def program() -> str | None:
    """The pooler: on the path, or where Debian puts it."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooler(binary: str, server: Server, *, connections: int) -> Iterator[int]:
    """Transaction pooling over so many connections to the server; the port, while it runs."""
    folder = Path(tempfile.mkdtemp(prefix="leafe-pgbouncer-"))
    port, file = free_port(), folder / "pgbouncer.ini"
    file.write_text(f"""
[databases]
* = host=127.0.0.1 port={server.port} user=tests
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
logfile = {folder / "log"}
""")
    as_whom = {}
    if os.geteuid() == 0:  # it refuses to run as root
        uid, gid = unprivileged()
        os.chown(folder, uid, gid)
        as_whom = {"user": uid, "group": gid, "extra_groups": []}
    running = subprocess.Popen([binary, "-q", str(file)], cwd=folder, **as_whom)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert running.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        yield port
    finally:
        running.terminate()
        running.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
