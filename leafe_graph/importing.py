"""From a name to what it names."""

import sys
from importlib import import_module
from typing import Any

from .errors import ConfigError


def _see_this_folder() -> None:
    if "" not in sys.path:
        sys.path.append("")  # as `python -m` has it: modules of the folder one stands in


def attribute(path: str, what: str) -> Any:
    """What MODULE:ATTRIBUTE names; ``what`` it is meant to be, for the error."""
    _see_this_folder()
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} {path!r} cannot be found ({error}); expected MODULE:ATTRIBUTE") from error
