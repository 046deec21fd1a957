"""Uploading what a training saved to the Hugging Face hub, and what is not to leave this machine with it."""

import json
from pathlib import Path
from typing import Any

from leafe_graph.models.hub import upload
from leafe_graph.models.identity import CONFIG, TEMPLATE, TOKENIZER

from .card import ADAPTER, MODEL, base_name
from .outputs import WEIGHTS

WHOLE = (WEIGHTS, *CONFIG, *TOKENIZER, *TEMPLATE)
"""Files of a model that was trained whole."""
UPLOADED = ("adapter_model.safetensors", *WHOLE, "metrics.jsonl", "loss.png", "merged/*", "model-*.gguf")
"""Besides README.md and adapter_config.json. Checkpoints stay here, and train_config.json, which has our paths."""


def push(out: Path, repo: str, *, model: str) -> str:
    """Upload the files of ``out`` in one commit, to a private repository unless it is there; the repository's address.

    Files of an earlier upload that ``out`` has none of go: a merged model of other weights must not stand beside these.

    Raises:
        LeafeError: it failed, for whatever reason.
    """
    held = {file.relative_to(out).as_posix(): file for pattern in UPLOADED for file in out.glob(pattern)}
    files: dict[str, Any] = {name: str(file) for name, file in held.items() if file.is_file()}
    if (adapter := out / "adapter_config.json").exists():
        config = json.loads(adapter.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base_name(model)[0]  # in the folder it is a path on this machine
        files[adapter.name] = json.dumps(config, indent=2).encode()
    card = (out / "README.md").read_text(encoding="utf-8")
    files["README.md"] = card.replace(ADAPTER, repo).replace(MODEL, repo).encode()
    again = "uploads it without training anew"
    return upload(repo, files, kind="model", ours=UPLOADED, kept=out, again=again)
