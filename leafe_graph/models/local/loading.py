"""A local model's folder as weights and tokenizer, and which version of it that is."""

from pathlib import Path
from typing import Any

from ...errors import ConfigError, MissingDependency
from ..adapters import merged


def load(path: str, adapters: tuple[str, ...]) -> tuple[Any, Any]:
    """Model in evaluation mode with its adapters merged, and tokenizer."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if adapters:
            import peft  # noqa: F401
    except ImportError as error:
        raise MissingDependency(extra="hf", needed_for="a local model") from error
    tokenizer = AutoTokenizer.from_pretrained(path)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer in {path} has no chat template, which turns messages into a prompt; "
            "set tokenizer.chat_template and save it there"
        )
    cuda = torch.cuda.is_available()
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto" if cuda else torch.float32)
    for folder in adapters:  # merged: twice as fast as an adapter beside the weights
        model = merged(model, folder, path)
    return model.to("cuda" if cuda else "cpu").eval(), tokenizer


def version(folder: str) -> tuple[Any, ...]:
    """Another one whenever a file of the folder has changed: a moment's work, where digests take seconds."""
    stats = ((file.name, file.stat()) for file in sorted(Path(folder).iterdir()) if file.is_file())
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats)
