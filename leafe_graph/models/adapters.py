"""A LoRA adapter and its base: whether they fit, seen before anything is played, and both in one without a change."""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import path_of, save_json
from .embedded import HUB
from .identity import adapter_config, adapter_identity, identity
from .spec import EMBEDDED

log = logging.getLogger(__name__)

_BASE = "base.json"
"""The file that `note_base` writes. (The order of a safetensors file's metadata differs from write to write.)"""
_told: set[str] = set()
"""What was warned of: an adapter is looked at before a run, and again when it is loaded."""
_SHAPES = re.compile(r"size mismatch for (\S+): .*?Size\(\[([\d, ]+)\]\).*?Size\(\[([\d, ]+)\]\)")


def check_adapter(adapter: str | Path, folder: str) -> list[str]:
    """See that every tensor of an adapter has its place in the base, that none is missing, and that all are numbers.

    PEFT puts it on the model that ``folder`` (or a name on the hub) describes, without the base's weights: what
    ``target_modules``, ``layers_to_transform`` and the like leave out is not missing.

    Returns:
        What is worth a warning, each logged once a process: another base was trained on.

    Raises:
        ConfigError: it does not fit; the message names keys. Or it is no adapter.
    """
    adapter_config(adapter)
    tensors = read_adapter(adapter)
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ConfigError(
            f"the adapter {adapter} holds values that are not numbers (NaN or infinite) in {len(bad)} of its "
            f"{len(tensors)} tensors: {_some(bad)}; train it anew, with a lower learning rate"
        )
    _check_fit(adapter, folder, tensors)
    doubts = _another_base(path_of(adapter), folder)
    for doubt in doubts:
        if doubt not in _told:
            log.warning(doubt)
            _told.add(doubt)
    return doubts


@contextmanager
def ends_seen_to() -> Iterator[None]:
    """Without PEFT's warnings of adapters on tied embeddings: `merged` parts what they have in common."""
    with warnings.catch_warnings():
        for told in ("Model (has|with) `tie_word_embeddings=True`", "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=told)
        yield


def read_adapter(adapter: str | Path) -> dict[str, Any]:
    """The tensors of an adapter's folder, by name."""
    from peft.utils.save_and_load import load_peft_weights
    from safetensors import SafetensorError

    try:
        return dict(load_peft_weights(str(path_of(adapter)), device="cpu"))
    except SafetensorError as error:
        raise ConfigError(f"the adapter {adapter} cannot be read ({error}): was it written whole?") from error


def _check_fit(adapter: str | Path, folder: str, tensors: dict[str, Any]) -> None:
    import torch
    from peft import PeftConfig, get_peft_model
    from peft.utils.save_and_load import set_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = PeftConfig.from_pretrained(str(path_of(adapter)))
    settings.base_model_name_or_path = None  # PEFT would warn of another path
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    say = f"the adapter {adapter} does not fit the base {folder}"
    try:
        with ends_seen_to():
            model = get_peft_model(model, settings, low_cpu_mem_usage=True)
        loaded = set_peft_model_state_dict(model, tensors, low_cpu_mem_usage=True)
    except (KeyError, RuntimeError, ValueError) as error:
        shapes = [
            f"{name} is {tuple(map(int, have.split(',')))}, expected {tuple(map(int, want.split(',')))}"
            for name, have, want in _SHAPES.findall(str(error).replace(".default", ""))
        ]
        raise ConfigError(f"{say}: {_some(shapes or [str(error)])}. Give the base that it was trained on") from error
    tied = "token_adapter" if getattr(model.config, "tie_word_embeddings", False) else "-"  # saved once for both ends
    missing = [n.replace(".default", "") for n in loaded.missing_keys if ".default" in n and tied not in n]
    parts = [
        f"{len(names)} {what}: {_some(names)}"
        for names, what in (
            (loaded.unexpected_keys, f"of its {len(tensors)} tensors have no place in it"),
            (missing, "that it should have are missing"),
        )
        if names
    ]
    if parts:
        raise ConfigError(f"{say}: {'; '.join(parts)}. Give the base that it was trained on, or all of the adapter")


def _another_base(adapter: Path, folder: str) -> list[str]:
    """Whether it was trained on another base: by the digest that our trainer wrote down, else by the base's name."""
    told = trained_on(adapter)
    base = identity(folder)["base"] if told else {}
    if known := [kind for kind in told if kind in base]:
        return [
            f"the adapter {adapter} was trained on another base: the digest of its {kind} is {told[kind]}, that of "
            f"{folder} is {base[kind]}"
            for kind in known
            if told[kind] != base[kind]
        ]
    named = adapter_config(adapter).get("base_model_name_or_path")
    if not named or _name(named) == _name(folder):
        return []
    return [f"the adapter {adapter} names another base ({named}) than {folder}: its shapes fit, but is it the one?"]


def trained_on(adapter: Path) -> dict[str, str]:
    """What `note_base` wrote of the base: ``{"weights": …}`` or ``{"commit": …}``; nothing where it is not of these."""
    file = adapter / _BASE
    told: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    same = told.pop("adapter", None) == adapter_identity(adapter)["weights"]
    return told if same else {}


def note_base(adapter: Path, folder: str) -> None:
    """Write beside an adapter's weights which base they were trained on."""
    base = {kind: value for kind, value in identity(folder)["base"].items() if kind in ("weights", "commit")}
    save_json(adapter / _BASE, {**base, "adapter": adapter_identity(adapter)["weights"]})


def _name(base: str) -> str:
    """What a base is called, without where it lies: a folder's or a repository's last part."""
    path = Path(base)
    if path.parent.name == "snapshots":  # of the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        path = Path(path.parents[1].name.rpartition("--")[2])
    return EMBEDDED if path.name == Path(HUB).name else path.name.lower()


def merged(model: Any, adapter: str | Path, folder: str) -> Any:
    """The base with the adapter in its weights, which then says what both said; ``folder`` is the base's.

    Input and output embedding of a model that ties them are one tensor: where the adapter changes one of them, they
    are parted first, or it would change the other too.

    Raises:
        ConfigError: the adapter does not fit.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    check_adapter(adapter, folder)
    with ends_seen_to():
        both = PeftModel.from_pretrained(model, str(adapter))
    base = both.get_base_model()
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    changed = any(isinstance(end, BaseTunerLayer | AuxiliaryTrainingWrapper) for end in ends)
    if changed:
        first, last = (getattr(e, "original_module", None) or getattr(e, "base_layer", None) or e for e in ends)
        if first.weight is last.weight:
            last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)
    with ends_seen_to():
        whole = both.merge_and_unload()
    if changed:
        one = whole.get_input_embeddings().weight is whole.get_output_embeddings().weight
        for config in (whole.config, whole.config.get_text_config()):
            config.tie_word_embeddings = one
    return whole


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
