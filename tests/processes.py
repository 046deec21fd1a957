"""Whether a process is there."""

from pathlib import Path


def runs(pid: int) -> bool:
    """Whether the process is there; one that has ended and that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it ends: no such file, or while it is read no such process
        return False
