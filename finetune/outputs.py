"""What a training leaves: the adapter as PEFT saves it, or the model as transformers does.

A file or folder is moved into place whole, and one that was made from other weights does not outlive them.
"""

import filecmp
import os
import shutil
from pathlib import Path
from typing import Any

from leafe_graph.errors import ConfigError
from leafe_graph.files import writing
from leafe_graph.models.adapters import note_base

WEIGHTS = "model.safetensors"


def save_adapter(model: Any, out: Path, *, folder: str, dtype: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json as PEFT does.

    Other weights than those that are there take with them what was made of the old ones: merged/ and GGUF files.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {k: v.detach().to("cpu", getattr(torch, dtype)).contiguous() for k, v in state.items()}
    config = model.peft_config["default"]
    config.base_model_name_or_path, was_inference = folder, config.inference_mode
    config.inference_mode = True
    for name, value in vars(config).items():
        if isinstance(value, set):  # whose order is another in each process
            setattr(config, name, sorted(value))
    with writing(out):
        config.save_pretrained(str(out))
    config.inference_mode = was_inference
    new = out / "adapter_model.tmp"
    with writing(out):
        save_file(tensors, new, metadata={"format": "pt"})
    _put(new, out / "adapter_model.safetensors")
    note_base(out, folder)


def save_model(model: Any, out: Path, *, tokenizer: Any) -> None:
    """Write a folder of transformers': configuration, tokenizer with its chat template, and the weights last."""
    aside = out / "model.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    with writing(out):
        model.save_pretrained(aside, max_shard_size="1TB")  # one file, which can be put in its place at once
        tokenizer.save_pretrained(aside)
        for file in sorted(aside.iterdir()):
            if file.name != WEIGHTS:
                os.replace(file, out / file.name)
    _put(aside / WEIGHTS, out / WEIGHTS)
    aside.rmdir()


def check_kind(out: Path, *, tune: str, folder: str) -> None:
    """See that neither an adapter nor a model comes to lie beside the other: transformers would load one for the other.

    Raises:
        ConfigError: it would, or the base model itself lies there.
    """
    if tune == "full" and out.resolve() == Path(folder).resolve():
        raise ConfigError(f"out is the folder of the model that is trained, {out}: choose another one")
    other, kind = ("adapter_config.json", "an adapter") if tune == "full" else (WEIGHTS, "a whole model")
    if (out / other).exists():
        raise ConfigError(f'{out} holds {kind}, which tune="{tune}" would lie beside: choose another out')


def _put(new: Path, weights: Path) -> None:
    """Put weights in their place; other ones take with them what was made of the old."""
    out = weights.parent
    if not weights.exists() or not filecmp.cmp(weights, new, shallow=False):
        shutil.rmtree(out / "merged", ignore_errors=True)
        for file in out.glob("model-*.gguf"):
            file.unlink()
    os.replace(new, weights)
