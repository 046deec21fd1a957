"""What a training leaves: the adapter as PEFT saves it, and base and adapter in one model.

A file or folder is moved into place whole, and one that was made from other weights does not outlive them.
"""

import filecmp
import os
import shutil
from pathlib import Path
from typing import Any

from leafe_graph.files import writing
from leafe_graph.models.adapters import note_base


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
    weights, new = out / "adapter_model.safetensors", out / "adapter_model.tmp"
    with writing(out):
        save_file(tensors, new, metadata={"format": "pt"})
    if not weights.exists() or not filecmp.cmp(weights, new, shallow=False):
        shutil.rmtree(out / "merged", ignore_errors=True)
        for file in out.glob("model-*.gguf"):
            file.unlink()
    os.replace(new, weights)
    note_base(out, folder)
