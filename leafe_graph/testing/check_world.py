"""A world's contract as a check that anybody can run on their own world."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..env.worlds.protocol import World
from ..errors import ConfigError, WorldError, WorldLost

_UNKNOWN = "no-such-snapshot"


def check_world(make: Callable[[], World], change: Callable[[int], object], look: Callable[[], Any]) -> None:
    """Prove that what a world's snapshots keep comes back, whatever has happened since.

    Looking after each restore: back and forth between states, twice the same, after changes, after others were
    forgotten, by another instance, in other threads. A ref that is unknown or forgotten is a `WorldLost` that changes
    nothing.

    Args:
        make: opens the world whenever it is called, on one and the same thing: ``lambda: Workspace(folder, store)``.
        change: what a tool would do to it; another thing for every number.
        look: what is there now, as anything that can be compared: the text of all files, the rows of all tables.

    Raises:
        WorldError: which property does not hold, what was expected and what came.
        ConfigError: the changes cannot be told apart by looking.
    """
    with ThreadPoolExecutor(1) as thread:
        _Check(make, change, look, thread).run()


class _Check:
    """The checks; every call of the world is in a thread, as an event loop makes it."""

    def __init__(
        self, make: Callable[[], World], change: Callable[[int], object], look: Callable[[], Any], pool: Any
    ) -> None:
        self.make, self.change, self.look, self.thread = make, change, look, pool
        self.world = make()
        self.changes = 0

    def run(self) -> None:
        if not isinstance(self.world, World) or not isinstance(self.world.durable, bool):
            raise WorldError(
                f"{type(self.world).__name__} is no World: expected durable, a bool, and snapshot, restore and forget"
            )
        known: dict[str, Any] = {}
        for _ in range(4):
            self.keep(known)
            self.alter()
        for ref in [*known, *reversed(known)]:
            self.back(ref, known[ref], "restored in turn")
        first, second, third, _ = known
        for where in ("restored", "restored again, after changes"):
            self.back(first, known[first], where)
            self.alter()
        self.keep(known)
        self.back(third, known[third], "restored after a snapshot of what came of another one")
        self.back(third, known[third], "restored where nothing has changed")
        self.forget(second, known)
        self.lost(_UNKNOWN, "an unknown ref")
        for ref in known:
            self.alter()
            self.back(ref, known[ref], "restored after another one was forgotten")
        self.anew(known)
        for ref in [*known]:
            self.forget(ref, known)

    def alter(self) -> None:
        before, self.changes = self.look(), self.changes + 1
        self.change(self.changes)
        if self.look() == before:
            raise ConfigError(f"change({self.changes}) changed nothing that look() shows; expected a change each time")

    def keep(self, known: dict[str, Any]) -> None:
        before = self.look()
        ref = self.call("snapshot")
        if not isinstance(ref, str) or not ref or ref in known:
            self.fail("snapshot", "a ref of its own, a str", repr(ref))
        self.same(before, "snapshot: what is there")
        known[ref] = before

    def back(self, ref: str, then: Any, where: str) -> None:
        self.call("restore", ref)
        self.same(then, where)

    def forget(self, ref: str, known: dict[str, Any]) -> None:
        del known[ref]
        now = self.look()
        for time in ("forgotten", "forgotten twice"):
            self.call("forget", ref)
            self.same(now, f"{time}: what is there")
        self.lost(ref, "a forgotten ref")

    def lost(self, ref: str, what: str) -> None:
        now = self.look()
        try:
            self.thread.submit(self.world.restore, ref).result()
        except WorldLost:
            self.same(now, f"{what} restored: what is there")
        except Exception as error:
            self.fail(f"{what} restored", "WorldLost", f"{type(error).__name__}: {error}")
        else:
            self.fail(f"{what} restored", "WorldLost", "nothing raised")

    def anew(self, known: dict[str, Any]) -> None:
        """As after a restart, as far as one process can tell."""
        old, self.world = self.world, self.make()
        for ref in known:
            self.alter()
            if old.durable:
                self.back(ref, known[ref], "restored by another instance")
            elif self.world is not old:
                self.lost(ref, "a ref of another instance, though durable is False,")
        if not old.durable:
            self.world = old

    def call(self, method: str, *args: Any) -> Any:
        with self.no_raise(f"{method}({', '.join(map(repr, args))})"):
            return self.thread.submit(getattr(self.world, method), *args).result()

    def same(self, expected: Any, where: str) -> None:
        if (actual := self.look()) != expected:
            self.fail(where, repr(expected), repr(actual))

    def fail(self, where: str, expected: str, actual: str) -> Any:
        raise WorldError(f"{type(self.world).__name__}, {where}:\n  expected {expected}\n  got      {actual}")

    @contextmanager
    def no_raise(self, where: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise WorldError(f"{type(self.world).__name__}, {where}: raised {type(error).__name__}: {error}") from error
