"""Adapters as a server takes them: named by their weights, copied, or merged into the base."""

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..models.identity import adapter_config, adapter_files, adapter_identity, identity


def refuse_unserved(adapter: Path, rank: int) -> None:
    """See that vLLM takes it as LoRA requests beside the base: told before a server is started.

    Raises:
        ConfigError: its rank is higher than ``rank``, or it has what vLLM's LoRA has not.
    """
    held = adapter_config(adapter)
    highest = lora_rank(held)
    if highest > rank:
        raise ConfigError(
            f"the adapter {adapter} has rank {highest}, the server takes up to {rank}: give max_lora_rank={highest}"
        )
    kinds = {"use_dora": "DoRA", "modules_to_save": "modules_to_save", "trainable_token_indices": "trained tokens"}
    has = [what for name, what in kinds.items() if held.get(name)]
    if held.get("bias", "none") != "none":
        has.append("bias")
    if has:
        raise ConfigError(
            f"the adapter {adapter} has {', '.join(has)}, which vLLM's LoRA does not take: give merge=True"
        )


def lora_rank(config: dict[str, Any]) -> int:
    """The highest rank in an adapter_config.json."""
    return max([int(config.get("r") or 0), *map(int, (config.get("rank_pattern") or {}).values())])


def fits(adapter: Path, base: str) -> None:
    """See that the adapter fits the base, where that is at hand with what it takes to see it.

    Raises:
        ConfigError: it does not; the message names keys.
    """
    if (Path(base) / "config.json").is_file() and all(map(find_spec, ("torch", "transformers", "peft"))):
        from ..models.adapters import check_adapter

        check_adapter(adapter, base)


def served_name(base: str) -> str:
    """What requests call a base: a hub's name, or a folder's with a digest of what is in it."""
    folder = Path(base)
    if not folder.is_dir():
        return base
    return f"{folder.name}-{_short(identity(base)['base'])}" if (folder / "config.json").is_file() else folder.name


def copied(adapter: Path, name: str, folder: Path, *, base: str | None = None) -> tuple[str, Path]:
    """What the adapter is called, and the folder of its copy in ``folder``; ``base``: where it is merged into that."""
    parts = [adapter_identity(adapter), *([identity(base)["base"]] if base else [])]
    called = f"{name}-{_short(parts)}"
    copy = folder / called
    copy.mkdir(parents=True, exist_ok=True)
    for file in adapter_files(adapter):
        shutil.copy(file, copy)
    return called, copy


def _short(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def merged(adapter: Path, base: str) -> Path:
    """The folder of the base with the adapter in its weights."""
    from ..models.folders import load_tokenizer, save_merged

    done = adapter / "merged"
    if done.is_dir():  # moved into place whole, under the name of its weights
        return done
    return save_merged(adapter, folder=base, tokenizer=load_tokenizer(base), dtype="float32")
