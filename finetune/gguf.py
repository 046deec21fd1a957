"""GGUF files, for llama.cpp, Ollama and what is built on them: base and adapter, made by llama.cpp's own converter.

The converter is a script that needs no compiling, ``convert_hf_to_gguf.py``, in a checkout of llama.cpp. It is looked
for in the folder that ``LLAMA_CPP`` names, on ``PATH``, and where Unsloth keeps its llama.cpp. A script that a package
put on ``PATH`` may not run alone (llama.cpp issue 23171: its other half stays behind), so each is tried on the model's
tokenizer before the training. Unsloth's own ``save_pretrained_gguf`` runs such a script, too, but where it finds none
it installs system packages and downloads or compiles llama.cpp, so it is not called.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from leafe_graph.errors import LeafeError, MissingDependency
from leafe_graph.files import path_of
from leafe_graph.models.folders import merge

from .config import TrainResult

log = logging.getLogger(__name__)

SCRIPT = "convert_hf_to_gguf.py"
INSTALL = """\
  git clone --depth 1 https://github.com/ggml-org/llama.cpp
  export LLAMA_CPP=$PWD/llama.cpp
  pip install sentencepiece"""
"""Commands that install the converter; it uses this interpreter's torch and transformers."""


def converter_for(folder: str, tokenizer: Any) -> Path:
    """The first converter that knows the model's architecture and tokenizer: it has written a GGUF file of these alone.

    Raises:
        MissingDependency: there is none; the message has what each said, and what to install.
    """
    from transformers import AutoConfig

    said = []
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        AutoConfig.from_pretrained(folder).save_pretrained(model)
        tokenizer.save_pretrained(model)
        for script in _scripts():
            try:
                _run(script, model, Path(temporary) / "vocabulary.gguf", "--vocab-only")
            except LeafeError as error:
                said.append(f"\n{error}")
            else:
                return script
    raise MissingDependency(
        f"no converter for a GGUF file of this model: {SCRIPT} of llama.cpp is needed, in the folder LLAMA_CPP or on "
        f"PATH. To install it:\n{INSTALL}" + "".join(said),
        needed_for="gguf",
    )


def save_gguf(result: TrainResult, converter: Path, *, folder: str, tokenizer: Any, dtype: str) -> None:
    """Write ``result.gguf`` from the whole model: as it was trained, as it was merged, or merged for it in ``dtype``.

    Raises:
        LeafeError: the converter failed.
    """
    target = result.gguf
    if target is None or target.exists():  # that of other weights went with them
        return
    aside = target.with_name("gguf.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        whole = result.model or result.merged or aside / "merged"
        if result.adapter and not result.merged:
            merge(result.adapter, whole, folder=folder, tokenizer=tokenizer, dtype=dtype)
        kind = target.stem.removeprefix("model-").lower()
        log.info("converting to GGUF by %s", converter)
        _run(converter, whole, aside / target.name, "--outtype", kind, "--model-name", f"{Path(folder).name}-leafe")
        os.replace(aside / target.name, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _scripts() -> list[Path]:
    unsloth = os.environ.get("UNSLOTH_LLAMA_CPP_PATH") or Path.home() / ".unsloth" / "llama.cpp"
    folders = [os.environ.get("LLAMA_CPP"), *os.get_exec_path(), unsloth]
    files = [path_of(folder) / SCRIPT for folder in folders if folder]
    return list(dict.fromkeys(file.resolve() for file in files if file.is_file()))


def _run(script: Path, model: Path, outfile: Path, *flags: str) -> None:
    command = [sys.executable, str(script), str(model), "--outfile", str(outfile), *flags]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not outfile.is_file():
        told = "\n".join(done.stderr.strip().splitlines()[-4:])
        raise LeafeError(f"{script} failed on {model} (exit code {done.returncode}):\n{told}")
