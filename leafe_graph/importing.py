"""From a name to what it names."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from .errors import ConfigError
from .text import did_you_mean

T = TypeVar("T")


def see_this_folder() -> None:
    """Let modules of the folder that one stands in be imported, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.append("")


def attribute(path: str, what: str) -> Any:
    """What MODULE:ATTRIBUTE names; ``what`` it is meant to be, for the error."""
    see_this_folder()
    return _found(path, what)


def _found(path: str, what: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} {path!r} cannot be found ({error}); expected MODULE:ATTRIBUTE") from error


class Named(Generic[T]):
    """A table from names to objects of a kind, each imported when it is asked for; any other is MODULE:ATTRIBUTE.

    Args:
        what: they are, for errors.
        kind: the class of each; the table's may be named in place of an object that needs no arguments.
        table: MODULE:ATTRIBUTE by name.
    """

    def __init__(self, what: str, kind: type[T], table: Mapping[str, str]) -> None:
        self.what, self.kind, self._table = what, kind, dict(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __getitem__(self, name: str) -> T:
        """What a name stands for.

        Raises:
            ConfigError: nothing of this kind is found there.
        """
        return self.of(name)

    def of(self, given: object) -> T:
        """The object that is given itself, by its class or by its name.

        Raises:
            ConfigError: it is of another kind.
        """
        found = self._find(given) if isinstance(given, str) else given
        if isinstance(found, type) and issubclass(found, self.kind):
            found = found()
        if not isinstance(found, self.kind):
            raise ConfigError(f"{self.what} {given!r}: expected a {self.kind.__name__}, its class, or its name")
        return found

    def class_of(self, name: str) -> type[T]:
        """The class that a name stands for, where it is called with arguments.

        Raises:
            ConfigError: no class of this kind is found there.
        """
        found = self._find(name)
        if not (isinstance(found, type) and issubclass(found, self.kind)):
            raise ConfigError(f"{self.what} {name!r} is {found!r}; expected a subclass of {self.kind.__name__}")
        return found

    def known(self, name: str) -> str:
        """The name, for pydantic; nothing is imported yet.

        Raises:
            ValueError: it is none.
        """
        if name not in self._table and ":" not in name:
            raise ValueError(f"expected {self}{did_you_mean(name, self)}")
        return name

    def told(self) -> str:
        """The names with the first line of what each stands for, for help texts."""
        return " ".join(f'"{name}": {(self.class_of(name).__doc__ or "").partition(chr(10))[0]}' for name in self)

    def _find(self, name: str) -> Any:
        own = self._table.get(name)
        if own is None and ":" not in name:
            raise ConfigError(f"{self.what} {name!r}; expected {self}{did_you_mean(name, self)}")
        return attribute(name, self.what) if own is None else _found(own, self.what)

    def __str__(self) -> str:
        return f"one of {', '.join(self._table)}, or MODULE:ATTRIBUTE"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("leafe-graph")
    except PackageNotFoundError:
        return "0+unknown"


__version__ = _version()
"""The installed release; "0+unknown" where the code is not installed."""
