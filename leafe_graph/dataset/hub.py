"""Uploading rows to the Hugging Face hub, and what is not to leave this machine with them."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..models.hub import upload
from .formats import FILES

_OURS = ("examples*.jsonl", "examples*.parquet", *FILES)
"""What an earlier upload may have left."""
_PLACES = re.compile(r'@https?://[^"]*(?=")|(?<=[":])(?:~?/[^/"\s]+)*/(?=[^/"\s]+")')
"""In the settings that a card tells: a server's address, and the folders before a file's name."""


def push_rows(folder: Path, names: Iterable[str], repo: str) -> str:
    """Upload an export's files in one commit, to a private dataset unless it is there; the dataset's address.

    Raises:
        LeafeError: it failed, for whatever reason.
    """
    files: dict[str, str | bytes] = {name: str(folder / name) for name in names}
    files["README.md"] = _PLACES.sub("", (folder / "README.md").read_text(encoding="utf-8")).encode()
    return upload(repo, files, kind="dataset", ours=_OURS, kept=folder, again="uploads it")
