"""What tells one model from another: digests of what it is made of, wherever that lies and whatever it is called.

A run, an evaluation and a training belong to these. Files are read whole, since a size or a time of change proves
nothing: once a process, shards side by side, which costs about what loading them does.
What is behind an address tells its name alone: its weights are not known, and none are claimed.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import holding, path_of
from ..parsing import load_json, read_text

Digests = dict[str, Any]
"""``{"base": {"weights": …, "config": …, "tokenizer": …}, "adapters": [{"weights": …, "config": …}]}``"""

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Of a model's folder, the first kind that is there: as transformers looks for them."""
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
"""Of an adapter's folder, the first that is there: as PEFT looks for them."""
CONFIG = ("config.json", "generation_config.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
TEMPLATE = ("chat_template*", "chat_templates/*")
VOLATILE = {"transformers_version", "peft_version", "_name_or_path", "name_or_path", "base_model_name_or_path"}
"""What configurations say of who wrote them and where: not what the model is."""
SETTLED = 2.0
"""Seconds after which a file that is changed again has another time of change, on any file system in use."""
SECRET = re.compile(
    r"(api|private)[_-]?key|authorization|cookie|credential|headers|passw|secret|"
    r"(^|(access|api|auth|bearer|hf|session)[_-]?)token$",
    re.IGNORECASE,
)
"""Names of values that are nobody's business and tell no model from another."""

_known: dict[tuple[Any, ...], str] = {}


def identity(folder: str, adapters: Sequence[str] = ()) -> Digests:
    """Digests of a model's folder, or the commit of a name on the hub, and of the adapters on it.

    Raises:
        ConfigError: an adapter's folder holds no adapter.
    """
    return {"base": _base(folder), "adapters": [adapter_identity(each) for each in adapters]}


def adapter_files(adapter: str | Path) -> tuple[Path, Path]:
    """Configuration and weights in a PEFT folder.

    Raises:
        ConfigError: it is none; without weights PEFT would ask the hub for them.
    """
    folder = holding(adapter, "a PEFT adapter folder", ("adapter_config.json",), ADAPTER)
    return folder / "adapter_config.json", next(folder / name for name in ADAPTER if (folder / name).is_file())


def adapter_config(adapter: str | Path) -> dict[str, Any]:
    """What a PEFT folder says of the adapter in it.

    Raises:
        ConfigError: it is none, or its configuration cannot be read.
    """
    file, _ = adapter_files(adapter)
    held = load_json(read_text(file), str(file))
    if not isinstance(held, dict):
        raise ConfigError(f"{file} holds {type(held).__name__}, expected an object of JSON")
    return held


def adapter_identity(adapter: str | Path) -> dict[str, str]:
    """Digests of a PEFT folder: of its weights, and of how they are applied.

    Raises:
        ConfigError: it is none.
    """
    config, weights = adapter_files(adapter)
    return {"weights": file_digest(weights)[:16], "config": file_digest(config)[:16]}


def digest_of_weights(folder: Path) -> str | None:
    """Digest of the weights in a folder, an adapter's or a model's; None where it holds none."""
    for kind in (ADAPTER[0], *WEIGHTS):
        if files := sorted(folder.glob(kind)):
            return file_digest(files[0]) if len(files) == 1 else _digest(folder, (kind,))
    return None


def _base(folder: str) -> dict[str, str]:
    path = path_of(folder)
    if not path.is_dir():
        from transformers import AutoConfig

        # A commit is the hub's own digest of all files.
        return {"hub": folder, "commit": str(getattr(AutoConfig.from_pretrained(folder), "_commit_hash", None))}
    weights = next((kind for kind in WEIGHTS if any(path.glob(kind))), WEIGHTS[0])
    return {
        "weights": _digest(path, (weights,)),
        "config": _digest(path, CONFIG),
        "tokenizer": _digest(path, TOKENIZER),
        "template": _digest(path, TEMPLATE),
    }


def _digest(folder: Path, patterns: Sequence[str]) -> str:
    """Of the files that match, whatever the folder is called; 16 hexadecimal digits. Of one file it is its SHA-256."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    if len(files) == 1:
        return file_digest(files[0])[:16]
    with ThreadPoolExecutor(max_workers=8) as threads:
        each = [f"{file.name} {digest}\n" for file, digest in zip(files, threads.map(file_digest, files), strict=True)]
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file; of a configuration, of what it says.

    A file is read once a process, unless it has changed: it is known by name, size, inode and times, of which that of
    the last change (ctime) cannot be set back. One that is younger than a clock can tell is read again.
    """
    seen = file.stat()
    key = (str(file), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    if key in _known:
        return _known[key]
    if file.suffix == ".json" and file.name.endswith("config.json"):
        digest = hashlib.sha256(_plain(file.read_bytes())).hexdigest()
    else:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if abs(time.time() - max(seen.st_mtime, seen.st_ctime)) > SETTLED:
        _known[key] = digest
    return digest


def _plain(data: bytes) -> bytes:
    """A configuration without what is volatile in it."""
    try:
        said = json.loads(data)
    except ValueError:
        return data
    if not isinstance(said, dict):
        return data
    return json.dumps({k: v for k, v in said.items() if k not in VOLATILE}, sort_keys=True).encode()


# ---- chat models, and what is wrapped around them


def described(thing: Any) -> Any:
    """What tells a chat model, bound and wrapped ones included, from another: JSON without secrets.

    Of a chat model its class and LangChain's identifying parameters; of a binding, fallback, retry, sequence or
    configurable model its own settings with the models inside; of a function its name.
    """
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.runnables import Runnable
    from pydantic import BaseModel, SecretBytes, SecretStr

    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): described(value) for key, value in thing.items() if not SECRET.search(str(key))}
    if isinstance(thing, set | frozenset):
        return sorted(map(described, thing), key=repr)
    if isinstance(thing, Sequence) and not isinstance(thing, bytes | bytearray):
        return [described(each) for each in thing]
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return {"class": thing.__qualname__, "schema": thing.model_json_schema()}
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    named = {"class": type(thing).__name__}
    if isinstance(thing, BaseLanguageModel):
        told = described(dict(thing._identifying_params))
        if hasattr(thing, "digests"):  # they tell more
            told.pop("version", None)
        return named | told
    if isinstance(thing, SecretStr | SecretBytes) or not isinstance(thing, BaseModel | Runnable):
        return named
    fields = type(thing).model_fields if isinstance(thing, BaseModel) else vars(thing)
    own = {name: getattr(thing, name) for name in fields}
    if isinstance(thing, Runnable) and "config" in own:  # tags, callbacks and the like make no other model
        own["config"] = {key: value for key, value in (own["config"] or {}).items() if key == "configurable"}
    return named | {name: told for name, told in described(own).items() if told or told == 0}


def digests(thing: Any) -> list[Digests]:
    """Those of all models inside a bound or wrapped one, or of itself, that know their weights.

    Such a model has a method ``digests()``; one behind an address has none.
    """
    from langchain_core.runnables import Runnable

    if callable(known := getattr(type(thing), "digests", None)):
        return [known(thing)]
    if isinstance(thing, Runnable):
        thing = vars(thing)
    if isinstance(thing, Mapping):
        thing = [*thing.values()]
    return [each for part in thing for each in digests(part)] if isinstance(thing, list | tuple) else []
