"""The Hugging Face hub: whether something can be uploaded, and the upload, of models and of datasets."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from ..errors import ConfigError, LeafeError, MissingDependency
from .connection import told

Repo = Annotated[str, StringConstraints(pattern=r"^[^/\s]+/[^/\s]+$")]
"""A repository's name, ``OWNER/NAME``."""


def check_hub(repo: str) -> None:
    """See that an upload can be tried at all; nothing is asked of the hub yet.

    Raises:
        ConfigError: there is no token, the hub is switched off, or it takes no such name.
        MissingDependency: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import constants, get_token
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ImportError as error:
        raise MissingDependency(extra="hf", needed_for="uploading to the Hugging Face hub") from error
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"push_to_hub: {error}") from error
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("push_to_hub: HF_HUB_OFFLINE is set; unset it, or leave push_to_hub out")
    if get_token() is None:
        raise ConfigError('push_to_hub: no token for the Hugging Face hub: run "hf auth login", or set HF_TOKEN')


def upload(
    repo: str,
    files: Mapping[str, str | bytes],
    *,
    kind: Literal["model", "dataset"],
    ours: Sequence[str],
    kept: Path,
    again: str,
) -> str:
    """Upload files in one commit, to a private repository unless it is there; the repository's address.

    Args:
        repo: its name, ``OWNER/NAME``.
        files: by their names there: the path of each, or what is in it.
        kind: of the repository.
        ours: patterns of what an earlier upload may have left; what ``files`` has not goes.
        kept: where the files lie, for the message of what failed.
        again: what the same command does then, for that message.

    Raises:
        LeafeError: it failed, for whatever reason.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    try:
        api = HfApi()
        url = str(api.create_repo(repo, repo_type=kind, private=True, exist_ok=True))
        changes: list[Any] = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        there = api.list_repo_files(repo, repo_type=kind)
        old = {name for name in there if any(fnmatch(name, pattern) for pattern in ours)}
        changes += [CommitOperationDelete(name) for name in sorted(old - files.keys())]
        api.create_commit(repo, changes, repo_type=kind, commit_message="Upload by leafe-graph")
    except Exception as error:  # no connection, no permission, a full quota, a changed protocol ...
        raise LeafeError(
            f"the upload to {repo} failed ({told(error)}). Nothing is lost: all lies in {kept}, and the same command "
            f"again {again}"
        ) from error
    return url
