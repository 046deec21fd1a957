"""The folders of models: where a spec's lies, its tokenizer, base and adapter in one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependency
from .adapters import merged
from .spec import EMBEDDED, ModelSpec


@contextmanager
def needs_train_extra() -> Iterator[None]:
    """Turn a failing import into the error that names what to install."""
    try:
        yield
    except ImportError as error:
        raise MissingDependency(extra="train", needed_for="training") from error


def model_folder(spec: str) -> str:
    """What `from_pretrained` takes for a model spec: a folder where it names one, else a hub name.

    Raises:
        ConfigError: there is no such folder, or it names a model whose weights are elsewhere.
    """
    said = ModelSpec.parse(spec)
    if said.folder:
        return str(said.folder.resolve())
    if said.kind in ("vllm", "openai", "python"):
        raise ConfigError(
            f"{spec!r} names a model by where it answers, but its weights are needed; expected a Hugging Face folder, "
            f'a name on the hub, or "local:{EMBEDDED}"'
        )
    if said.embedded:
        from .embedded import embedded_model_path

        return str(embedded_model_path())
    if said.kind == "local" or said.weights.startswith((".", "/", "~")):
        raise ConfigError(f'no model folder at {said.weights}; expected a Hugging Face folder or "local:{EMBEDDED}"')
    return said.weights


def load_tokenizer(folder: str) -> Any:
    """The model's tokenizer, which must have a chat template."""
    with needs_train_extra():
        from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {folder} has no chat template: rows are chat messages and need one")
    return tokenizer


def stop_ids(folder: str, tokenizer: Any) -> set[int]:
    """Ids that end a message: the tokenizer's eos, and those at which generation stops."""
    from transformers import GenerationConfig

    ids = {tokenizer.eos_token_id}
    with suppress(OSError):  # a model without generation_config.json
        eos = GenerationConfig.from_pretrained(folder).eos_token_id
        ids |= {eos} if isinstance(eos, int) else set(eos or [])
    return ids - {None}


def save_merged(out: Path, *, folder: str, tokenizer: Any, dtype: str) -> Path:
    """Write ``out/merged``: base plus the adapter *as saved*, in one folder for plain transformers."""
    target, building = out / "merged", out / "merged.tmp"
    merge(out, building, folder=folder, tokenizer=tokenizer, dtype=dtype)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)
    return target


def merge(adapter: Path, target: Path, *, folder: str, tokenizer: Any, dtype: str) -> None:
    """Write base plus adapter to ``target``; what is there goes."""
    import torch
    from transformers import AutoModelForCausalLM

    model = merged(AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)), adapter, folder)
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``--max-lora-rank``."""
