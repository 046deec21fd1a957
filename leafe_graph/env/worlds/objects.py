"""A Python object as a world: tools that keep their data in memory."""

import copy
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from ...errors import ConfigError, WorldError, WorldLost

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, so all it holds are attributes
_CONTAINERS = (dict, list, set, deque, bytearray)


class PyObject:
    """An object that tools hold, brought back in place: every list, dict, set and object in it stays the very one.

    So a tool that took ``data["users"]`` out of ``data`` long ago sees the restored users, too. What cannot be
    changed in place (tuples, dates, arrays) is put into its holders anew.

    Refs live in this process: ``durable`` is False.

    Args:
        obj: a dict, list, set, deque, bytearray, or an object with attributes.

    Raises:
        ConfigError: it cannot be changed in place.
    """

    durable = False

    def __init__(self, obj: Any) -> None:
        if not _refillable(obj):
            raise ConfigError(
                f"PyObject was given a {type(obj).__name__}, which cannot be changed in place; expected a dict, list, "
                "set or an object with attributes, the very one that the tools hold"
            )
        self._obj = obj
        self._kept: dict[str, list[tuple[Any, Any]]] = {}

    @property
    def place(self) -> object:
        """The object: two worlds of one object are one world."""
        return "object", id(self._obj)

    def snapshot(self) -> str:
        """A deep copy.

        Raises:
            WorldError: something in it cannot be copied.
        """
        memo: dict[int, Any] = {}
        try:
            copy.deepcopy(self._obj, memo)
        except Exception as error:
            raise WorldError(
                f"a {type(self._obj).__name__} cannot be kept: {error}; give PyObject the data alone, without files, "
                "locks and connections"
            ) from error
        # deepcopy keeps what it has copied alive under the memo's own id
        originals = {id(each): each for each in memo.get(id(memo), [])} | {id(self._obj): self._obj}
        pairs = [
            (each, memo[key])
            for key, each in originals.items()
            if key in memo and type(memo[key]) is type(each) and _refillable(each)
        ]
        self._kept[ref := uuid.uuid4().hex] = pairs
        return ref

    def restore(self, ref: str) -> None:
        """Fill every object that was there with what it held then.

        Raises:
            WorldLost: the ref is of another process, or was forgotten.
        """
        if ref not in self._kept:
            raise WorldLost(
                f"there is no snapshot {ref!r} of this {type(self._obj).__name__}: it was forgotten, or died with its "
                "process, since PyObject keeps them in memory"
            )
        pairs = self._kept[ref]
        memo = {id(kept): original for original, kept in pairs}  # copies what is kept, but for what it was a copy of
        fills = [_fill(original, kept, memo) for original, kept in pairs]
        for fill in sorted(fills, key=lambda fill: fill[0]):
            fill[1]()

    def forget(self, ref: str) -> None:
        """Drop the copy."""
        self._kept.pop(ref, None)


def _refillable(obj: Any) -> bool:
    """Whether all that it holds can be put into the object that is there."""
    if isinstance(obj, type) or callable(getattr(obj, "__func__", None)):
        return False
    if isinstance(obj, _CONTAINERS) or hasattr(obj, "__setstate__"):
        return True
    return all(base is object or base.__flags__ & _HEAP_TYPE for base in type(obj).__mro__)


def _fill(obj: Any, kept: Any, memo: dict[int, Any]) -> tuple[int, Callable[[], None]]:
    """Prepare to put into an object what is kept of it: when, and how.

    Attributes come first, since keys and members may be hashed by them. Methods are the object's own, as `copy` does
    it: an OrderedDict has more to do than a dict.
    """
    held: Any
    if isinstance(obj, dict):
        held = [(copy.deepcopy(key, memo), copy.deepcopy(value, memo)) for key, value in kept.items()]
    elif isinstance(obj, _CONTAINERS):
        held = [copy.deepcopy(each, memo) for each in kept]
    own = hasattr(obj, "__setstate__") and _own_state(kept) is not None
    state = copy.deepcopy(_own_state(kept) if own else _attributes(kept), memo)

    def fill() -> None:
        if isinstance(obj, dict):
            obj.clear()
            for key, value in held:
                obj[key] = value
        elif isinstance(obj, set):
            obj.clear()
            obj.update(held)
        elif isinstance(obj, list | deque | bytearray):
            obj.clear()
            obj.extend(held)
        if own:
            obj.__setstate__(state)
        else:
            _set_attributes(obj, *state)

    return isinstance(obj, _CONTAINERS), fill


def _own_state(obj: Any) -> Any:
    """What its class says is its state, as `copy` asks for it."""
    reduced = obj.__reduce_ex__(4)
    return reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None


def _attributes(obj: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those in its ``__dict__``, and those in slots."""
    state = object.__getstate__(obj)
    named, slots = state if isinstance(state, tuple) else (state, None)
    return dict(named or {}), slots or {}


def _set_attributes(obj: Any, named: dict[str, Any], slots: dict[str, Any]) -> None:
    """Exactly these; past ``__setattr__``, since frozen dataclasses have one."""
    for name in _attributes(obj)[1].keys() - slots.keys():
        object.__delattr__(obj, name)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)
    if hasattr(obj, "__dict__"):
        obj.__dict__.clear()
        obj.__dict__.update(named)
