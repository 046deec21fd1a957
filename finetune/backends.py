"""The base model with what trains of it: a LoRA adapter from PEFT or from Unsloth, or all of its weights.

Whatever builds the model, rows, masks and loss are the same. All imports of torch and above happen in the functions.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from leafe_graph.errors import ConfigError, MissingDependency, install
from leafe_graph.models.adapters import ends_seen_to, merged
from leafe_graph.models.folders import needs_train_extra

from .config import TrainConfig
from .parallel import processes

log = logging.getLogger(__name__)


def load(config: TrainConfig, folder: str, device: Any) -> tuple[Any, str]:
    """The model on the device, in training mode, with what trains of it, and the backend's name."""
    if config.backend != "peft":
        reason = _import_unsloth()
        if reason is None:
            return _unsloth(config, folder), "unsloth"
        if config.backend == "unsloth":
            raise MissingDependency(
                f"Unsloth cannot be used: {reason}", extra="unsloth", needed_for='backend="unsloth"'
            )
        log.info("training without Unsloth, which cannot be used: %s", reason)
    return _peft(config, folder, device), "peft" if config.tune == "lora" else "transformers"


def start_unsloth_first(config: TrainConfig) -> None:
    """Import Unsloth before transformers and PEFT are imported, if it is to be used: it patches them at import."""
    if config.backend != "peft":
        _import_unsloth()


def _import_unsloth() -> str | None:
    """None when Unsloth can run, else why not."""
    if "unsloth" in sys.modules:
        return None
    from importlib.util import find_spec

    if processes() > 1:
        return f"it trains in one process, {processes()} were launched"
    if find_spec("unsloth") is None:
        return f"it is not installed: {install('unsloth')}"
    if early := [name for name in ("trl", "transformers", "peft") if name in sys.modules]:
        return f"{', '.join(early)} was imported before it and would go unpatched: train in a fresh process"
    os.environ.setdefault("UNSLOTH_RETURN_LOGITS", "1")  # the loss is ours, from logits
    try:
        import unsloth  # noqa: F401
    except NotImplementedError as error:  # its way of saying that there is no accelerator it knows
        return f"it does not run on this machine ({error})"
    except Exception as error:
        return f"its import failed ({type(error).__name__}: {error})"
    return None


def _dtype(config: TrainConfig) -> Any:
    import torch

    small = torch.cuda.is_available() and config.tune == "lora"
    name = config.dtype if config.dtype != "auto" else "bfloat16" if small else "float32"
    return getattr(torch, name)


def _peft(config: TrainConfig, folder: str, device: Any) -> Any:
    with needs_train_extra():
        import torch
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = _dtype(config)
    quantised = {}
    if config.load_in_4bit:
        if not torch.cuda.is_available():
            raise ConfigError("load_in_4bit needs a GPU: leave it off on a CPU")
        quantised["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
        quantised["device_map"] = {"": device}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **quantised)
    if config.tune == "full":
        model = _whole(config, model, folder)
    if not quantised:
        model = model.to(device)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if config.tune == "full":
        return model.train()
    with ends_seen_to():
        if config.adapter is not None:
            return PeftModel.from_pretrained(model, str(config.adapter), is_trainable=True).train()
        lora = LoraConfig(**_lora(config, model), task_type="CAUSAL_LM")
        torch.manual_seed(config.seed)  # as Unsloth does: both start from the same matrices
        with _targets_there_are(config, model):
            return get_peft_model(model, lora).train()


def _whole(config: TrainConfig, model: Any, folder: str) -> Any:
    """The model of which all weights train, the adapter that it starts from merged into them."""
    if config.adapter is not None:
        model = merged(model, config.adapter, folder)
    return model.requires_grad_(True)


def _lora(config: TrainConfig, model: Any) -> dict[str, Any]:
    """A new adapter's settings, by the names that PEFT and Unsloth share."""
    return {
        "r": config.lora_r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _targets(config, model),
        "layers_to_transform": config.layers_to_transform,
    }


def _targets(config: TrainConfig, model: Any) -> str | list[str]:
    """PEFT takes "all-linear" only without `layers_to_transform`: then spell it out."""
    if config.target_modules != "all-linear" or config.layers_to_transform is None:
        return config.target_modules
    return _linear(model)


def _linear(model: Any) -> list[str]:
    """What the linear layers inside of the transformer are called."""
    import torch

    head = model.get_output_embeddings()
    linear = {n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head}
    return sorted({name.rpartition(".")[2] for name in linear})


@contextmanager
def _targets_there_are(config: TrainConfig, model: Any) -> Iterator[None]:
    """Say which layers the model has where PEFT finds none of those that were asked for."""
    names = _linear(model)
    try:
        yield
    except ValueError as error:
        raise ConfigError(
            f"no LoRA on target_modules={config.target_modules!r}, layers_to_transform={config.layers_to_transform}: "
            f"{str(error).rstrip('.')}; this model has {', '.join(names)}"
        ) from error


def _unsloth(config: TrainConfig, folder: str) -> Any:
    import unsloth

    checkpointing = "unsloth" if config.gradient_checkpointing else False
    # A folder with an adapter is loaded together with the base that its adapter_config.json names.
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=folder,
        max_seq_length=config.max_length,
        dtype=_dtype(config),
        load_in_4bit=config.load_in_4bit,
        use_gradient_checkpointing=checkpointing,
        full_finetuning=config.tune == "full",
    )
    if config.tune == "full":
        model = _whole(config, model, folder)
        return unsloth.FastLanguageModel.for_training(model, use_gradient_checkpointing=bool(checkpointing))
    if config.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(config.adapter), is_trainable=True)
        return unsloth.FastLanguageModel.for_training(model, use_gradient_checkpointing=bool(checkpointing))
    with _targets_there_are(config, model):
        return unsloth.FastLanguageModel.get_peft_model(
            model,
            **_lora(config, model),
            bias="none",
            use_gradient_checkpointing=checkpointing,
            random_state=config.seed,
        ).train()


def trainable(model: Any) -> dict[str, Any]:
    """The parameters that train, by name: what a checkpoint holds."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
