"""From a name to what it names."""

import sys
from importlib import import_module
from typing import Any

from .errors import ConfigError


def see_this_folder() -> None:
    """Let modules of the folder that one stands in be imported, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.append("")


def attribute(path: str, what: str) -> Any:
    """What MODULE:ATTRIBUTE names; ``what`` it is meant to be, for the error."""
    see_this_folder()
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} {path!r} cannot be found ({error}); expected MODULE:ATTRIBUTE") from error
