"""Adapters as a server takes them: named by their weights, copied, or merged into the base."""

import hashlib
import json
import shutil
from pathlib import Path

from ..errors import ConfigError
from ..files import path_of


def adapter_folder(path: str | Path) -> Path:
    """The absolute path of a PEFT adapter's folder.

    Raises:
        ConfigError: it is none.
    """
    folder = path_of(path).resolve()
    if not (folder / "adapter_config.json").is_file() or not list(folder.glob("adapter_model.*")):
        raise ConfigError(f"{path} is not a PEFT adapter folder (adapter_config.json and adapter_model.safetensors)")
    return folder


def copied(adapter: Path, name: str, folder: Path) -> tuple[str, Path]:
    """What the adapter is called, and the folder of its copy in ``folder``."""
    weights = sorted(adapter.glob("adapter_model.*"))
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps([config.get("r"), config.get("lora_alpha")]).encode())
    for file in weights:
        digest.update(file.read_bytes())
    called = f"{name}-{digest.hexdigest()[:12]}"
    copy = folder / called
    copy.mkdir(parents=True, exist_ok=True)
    for file in (adapter / "adapter_config.json", *weights):
        shutil.copy(file, copy)
    return called, copy


def merged(adapter: Path, base: str) -> Path:
    """The folder of the base with the adapter in its weights."""
    from ..models.folders import load_tokenizer, save_merged

    done = adapter / "merged"
    if done.is_dir():  # moved into place whole, under the name of its weights
        return done
    return save_merged(adapter, folder=base, tokenizer=load_tokenizer(base), dtype="float32")
