"""Python objects as worlds, the check of a world, and one episode at a time in each."""

import copy
import random
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from leafe_graph import STATELESS, ConfigError, PyObject, World, WorldBusy, WorldError, WorldLost
from leafe_graph.env.worlds import occupy, vacate
from leafe_graph.testing import check_world


@dataclass
class Account:
    """A thing with attributes."""

    name: str
    entries: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Frozen, and its attributes in slots."""

    members: list[int]


class Slotted:
    """An attribute of a slot may be missing."""

    __slots__ = ("first", "second")


def test_every_object_inside_stays_the_very_one() -> None:
    """A tool that took a part out long ago sees what is restored."""
    account = Account("ann", [1])
    data: dict[str, Any] = {"users": {"ann": account}, "pair": (account, [1]), "seen": {1, 2}}
    data["itself"] = data
    users, entries = data["users"], account.entries
    world = PyObject(data)
    ref = world.snapshot()
    account.entries.append(2)
    account.name = "bob"
    account.extra = True  # type: ignore[attr-defined]
    users.clear()
    data["users"] = {}
    data["seen"].add(3)
    data["pair"][1].append(2)
    del data["itself"]
    world.restore(ref)
    assert data["users"] is users and users["ann"] is account and account.entries is entries
    assert data["itself"] is data and data["pair"][0] is account
    assert (vars(account), data["seen"], data["pair"][1]) == ({"name": "ann", "entries": [1]}, {1, 2}, [1])


def test_a_snapshot_is_apart_from_what_was_restored_from_it() -> None:
    """So it can be restored again after more changes."""
    data = {"rows": [[1], (2, [3])]}
    world = PyObject(data)
    ref = world.snapshot()
    for _ in range(3):
        world.restore(ref)
        assert data == {"rows": [[1], (2, [3])]}
        data["rows"][0].append(9)  # type: ignore[union-attr]
        data["rows"][1][1].append(9)  # type: ignore[index,union-attr]


def test_containers_of_the_library_keep_what_they_are() -> None:
    """Order, default, counts, length, the state of a random generator, slots."""
    slotted = Slotted()
    slotted.first = 1
    data: dict[str, Any] = {
        "ordered": OrderedDict(a=1, b=2),
        "default": defaultdict(list, a=[1]),
        "counter": Counter("aab"),
        "deque": deque([1, 2], maxlen=2),
        "bytes": bytearray(b"ab"),
        "draw": random.Random(7),
        "slotted": slotted,
        "fixed": Fixed([1]),
    }
    before = {name: data[name] for name in data}
    told = copy.deepcopy(data)
    world = PyObject(data)
    ref = world.snapshot()
    data["ordered"].move_to_end("a")
    data["default"]["b"].append(1)
    data["counter"].update("abc")
    data["deque"].append(3)
    data["bytes"].extend(b"c")
    data["draw"].random()
    data["fixed"].members.append(2)
    del slotted.first
    slotted.second = 2
    world.restore(ref)
    assert all(data[name] is before[name] for name in before)
    assert [*data["ordered"]] == ["a", "b"] and data["default"] == {"a": [1]} and data["counter"] == told["counter"]
    assert data["deque"] == told["deque"] and data["bytes"] == b"ab" and data["fixed"] == Fixed([1])
    assert data["draw"].random() == told["draw"].random()
    assert slotted.first == 1 and not hasattr(slotted, "second")


def test_keys_that_are_hashed_by_attributes_are_found_again() -> None:
    """Attributes come back before the dicts and sets that they are filed by."""

    @dataclass(unsafe_hash=True)
    class Key:
        number: int

    key = Key(1)
    data = {key: "a"}
    world = PyObject(data)
    ref = world.snapshot()
    key.number = 2
    world.restore(ref)
    assert data[Key(1)] == "a" and next(iter(data)) is key


@pytest.mark.parametrize("given", [1, "text", (1, 2), frozenset(), int, None])
def test_what_cannot_be_changed_in_place_is_refused(given: object) -> None:
    """The tools would go on with the old one."""
    with pytest.raises(ConfigError, match="expected a dict, list"):
        PyObject(given)


def test_what_cannot_be_copied_is_told() -> None:
    """Locks, files and connections are no data."""
    with pytest.raises(WorldError, match=r"a dict cannot be kept.*lock.*data alone"):
        PyObject({"lock": threading.Lock()}).snapshot()


def test_a_ref_of_another_process_is_lost() -> None:
    """And says why."""
    world = PyObject({})
    assert isinstance(world, World) and not world.durable
    ref = world.snapshot()
    with pytest.raises(WorldLost, match="died with its process"):
        PyObject({}).restore(ref)


def test_no_worlds_on_purpose_is_not_the_same_as_none_given() -> None:
    """Both are empty."""
    assert [*STATELESS] == [] and STATELESS is not () and repr(STATELESS) == "STATELESS"  # noqa: F632


def test_python_objects_keep_the_contract() -> None:
    """Of a dict of lists, and of an object."""
    data: dict[int, list[int]] = {}
    check_world(
        lambda: PyObject(data), lambda number: data.setdefault(number % 3, []).append(number), lambda: str(data)
    )
    account = Account("ann")
    check_world(lambda: PyObject(account), account.entries.append, lambda: list(account.entries))


class Wrong(PyObject):
    """A world with a fault."""

    def __init__(self, data: list[int], fault: str) -> None:
        super().__init__(data)
        self.data, self.fault = data, fault

    def snapshot(self) -> str:
        """Not apart from the data, or altering it."""
        ref = super().snapshot()
        if self.fault == "alters":
            self.data.append(0)
        return "same" if self.fault == "same ref" else ref

    def restore(self, ref: str) -> None:
        """Nothing, too much, or quietly nothing where it is lost."""
        if self.fault == "nothing" and ref in self._kept:
            return
        if self.fault == "quiet" and ref not in self._kept:
            return
        if self.fault == "clears":
            self.data.clear()
        if self.fault == "raises":
            raise RuntimeError("no disk")
        super().restore(ref)

    def forget(self, ref: str) -> None:
        """Everything, or not at all."""
        if self.fault == "forgets all":
            self._kept.clear()
        if self.fault != "keeps":
            super().forget(ref)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("alters", "snapshot: what is there"),
        ("same ref", "a ref of its own"),
        ("nothing", "restored in turn"),
        ("quiet", "a forgotten ref restored:\n  expected WorldLost\n  got      nothing raised"),
        ("clears", "a forgotten ref restored: what is there"),
        ("raises", "raised RuntimeError: no disk"),
        ("forgets all", "raised WorldLost"),
        ("keeps", "a forgotten ref restored"),
    ],
)
def test_a_fault_of_a_world_is_found(fault: str, says: str) -> None:
    """And told with the property that does not hold."""
    data: list[int] = []
    with pytest.raises(WorldError) as caught:
        check_world(lambda: Wrong(data, fault), data.append, lambda: list(data))
    assert says in str(caught.value)


def test_a_check_that_cannot_see_is_refused() -> None:
    """And so is what is no world."""
    with pytest.raises(ConfigError, match=r"change\(1\) changed nothing"):
        check_world(lambda: PyObject({}), lambda number: None, lambda: 0)
    with pytest.raises(WorldError, match="object is no World"):
        check_world(object, lambda number: None, lambda: 0)  # type: ignore[arg-type,return-value]


def test_two_episodes_do_not_share_a_world() -> None:
    """Unless the one is what was left of the other; two worlds of one object are one."""
    data: dict[str, int] = {}
    world = PyObject(data)
    occupy(world, "a")
    occupy(world, "a")
    for other in (world, PyObject(data)):
        with pytest.raises(WorldBusy, match="in use by 'a', asked for by 'b'"):
            occupy(other, "b")
        vacate(other, "b")  # has nothing to leave
    occupy(PyObject({}), "b")
    vacate(world, "a")
    occupy(world, "b")
    vacate(world, "b")


class Placed(PyObject):
    """A world of a folder."""

    place: Path = Path()


def test_another_process_does_not_share_a_folder(tmp_path: Path) -> None:
    """Nothing is written for it, and the end of the process frees it."""
    world = Placed({})
    world.place = tmp_path
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(WorldBusy, match="in use by another process"):
            occupy(world, "a")
        process.communicate(b"\n")
    occupy(world, "a")
    assert not [*tmp_path.iterdir()]
    vacate(world, "a")
