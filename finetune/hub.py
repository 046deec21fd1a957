"""Uploading what a training saved to the Hugging Face hub, and what is not to leave this machine with it."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError, LeafeError
from leafe_graph.models.connection import told
from leafe_graph.models.identity import CONFIG, TEMPLATE, TOKENIZER

from .card import ADAPTER, MODEL, base_name
from .outputs import WEIGHTS

WHOLE = (WEIGHTS, *CONFIG, *TOKENIZER, *TEMPLATE)
"""Files of a model that was trained whole."""
UPLOADED = ("adapter_model.safetensors", *WHOLE, "metrics.jsonl", "loss.png", "merged/*", "model-*.gguf")
"""Besides README.md and adapter_config.json. Checkpoints stay here, and train_config.json, which has our paths."""


def check_hub(repo: str) -> None:
    """See that an upload can be tried at all; nothing is asked of the hub yet.

    Raises:
        ConfigError: there is no token, the hub is switched off, or it takes no such name.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"push_to_hub: {error}") from error
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("push_to_hub: HF_HUB_OFFLINE is set; unset it, or leave push_to_hub out")
    if get_token() is None:
        raise ConfigError('push_to_hub: no token for the Hugging Face hub: run "hf auth login", or set HF_TOKEN')


def push(out: Path, repo: str, *, model: str) -> str:
    """Upload the files of ``out`` in one commit, to a private repository unless it is there; the repository's address.

    Files of an earlier upload that ``out`` has none of go: a merged model of other weights must not stand beside these.

    Raises:
        LeafeError: it failed, for whatever reason.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    held = {file.relative_to(out).as_posix(): file for pattern in UPLOADED for file in out.glob(pattern)}
    files: dict[str, Any] = {name: str(file) for name, file in held.items() if file.is_file()}
    if (adapter := out / "adapter_config.json").exists():
        config = json.loads(adapter.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base_name(model)[0]  # in the folder it is a path on this machine
        files[adapter.name] = json.dumps(config, indent=2).encode()
    card = (out / "README.md").read_text(encoding="utf-8")
    files["README.md"] = card.replace(ADAPTER, repo).replace(MODEL, repo).encode()
    try:
        api = HfApi()
        url = str(api.create_repo(repo, private=True, exist_ok=True))
        changes: list[Any] = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        old = {name for name in api.list_repo_files(repo) if any(fnmatch(name, pattern) for pattern in UPLOADED)}
        changes += [CommitOperationDelete(name) for name in sorted(old - files.keys())]
        api.create_commit(repo, changes, commit_message="Upload by leafe-graph")
    except Exception as error:  # no connection, no permission, a full quota, a changed protocol ...
        raise LeafeError(
            f"the upload to {repo} failed ({told(error)}). Nothing is lost: all lies in {out}, and "
            "the same command again uploads it without training anew"
        ) from error
    return url
