"""What a run of rounds names and would not find, seen before hours of work: folders, files, modules, options."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..envs.catalog import check_options
from ..errors import ConfigError, LeafeError, MissingDependency
from ..files import check_folder, holding, path_of
from ..finetune.rows import example_files
from ..importing import attribute
from ..methods import METHODS
from ..models.folders import model_folder
from ..models.identity import adapter_config
from ..models.spec import ModelSpec
from ..phases.resolve import texts
from ..strategies import STRATEGIES
from .config import RunConfig


def absent(config: RunConfig) -> Iterator[str]:
    """A line for each setting that names what is not there. Nothing is loaded, fetched or made.

    Not looked for: names on the hub, and what is no matter of names, such as packages that are not installed.
    """
    looks: dict[str, Callable[[], Any]] = {
        "out": lambda: check_folder(config.out),
        "model": lambda: _model(config.model),
        "adapter": lambda: _adapter(start_adapter(config.adapter)),
        "method": lambda: METHODS.class_of(config.method),
        "explore.strategy": lambda: STRATEGIES.of(config.explore.strategy),
        "explore.reflector": lambda: _model(config.explore.reflector),
        "explore.prompts": lambda: texts(config.explore.prompts),
        "eval.prompts": lambda: texts(config.eval.prompts),
        "export.other_prompts": lambda: texts(config.export.other_prompts),
        "explore.env_options": lambda: check_options(config.explore.env, config.explore.env_options),
        "eval.env_options": lambda: check_options(config.eval.env, config.eval.env_options),
        "train.eval_data": lambda: [example_files(path) for path in config.train.eval_data or ()],
        "serve.python": lambda: _file(None if config.serve is None else config.serve.python),
    }
    for name, look in looks.items():
        try:
            look()
        except MissingDependency:
            continue
        except LeafeError as error:
            yield f"{name}: {error}"


def start_adapter(adapter: str | None) -> Path | None:
    """The folder of the adapter that a run starts from: named itself, or by MODULE:ATTRIBUTE.

    Raises:
        ConfigError: nothing of that name is a path.
    """
    if adapter is None or ":" not in adapter:
        return None if adapter is None else path_of(adapter)
    found = attribute(adapter, "adapter")
    if not isinstance(found, str | Path):
        raise ConfigError(f"adapter {adapter!r} is {found!r}; expected the path of a PEFT folder")
    return path_of(found)


def _model(spec: str | None) -> None:
    said = ModelSpec.parse(spec or "")
    if said.kind == "python":
        attribute(said.name, "model")
    elif spec and said.kind in ("local", None) and not (said.embedded and said.folder is None):
        folder = Path(model_folder(spec))
        if folder.is_dir():  # else a name on the hub
            holding(folder, "a Hugging Face model folder", ("config.json",))


def _adapter(folder: Path | None) -> None:
    if folder is not None:
        adapter_config(folder)


def _file(path: str | Path | None) -> None:
    if path is not None and not path_of(path).is_file():
        raise ConfigError(f"there is no file {path}")
