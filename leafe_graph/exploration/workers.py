"""A worker on a cluster: an actor that grows the trees it is handed, and sends their branches as lines of the log.

It plays in a thread and an event loop of its own, so that it hears what it is told however busy that is.
"""

import asyncio
import logging
import os
import pickle
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from ..agent.context import Context
from ..agent.model_calls import innermost
from ..budget import Ledger
from ..checkpoint.open import open_points, open_saver
from ..env.pool import EnvPool
from ..errors import ConfigError, LeafeError
from ..importing import __version__
from ..models.ready import check_model
from ..tree.log import encoded
from .grow import Worker
from .kit import Job, Kit, made
from .leases import Amounts, Leased
from .outbox import Event, Outbox, ToldOutage, Warnings
from .players import player_of


class Grower:
    """The actor. Nothing is made before `prepare`, whose errors are those of the run.

    No method is a coroutine: Ray would call them all in one event loop, where one that waits keeps the others waiting.

    Args:
        kit: a `Kit`, packed.
        slots: trees grown at once.
        path: where the driver imports from.
        version: the driver's release of this package.
    """

    def __init__(self, kit: bytes, slots: int, path: Sequence[str], version: str) -> None:
        self._kit, self._slots, self._path, self._version = kit, slots, path, version
        self._garden: Garden | None = None
        self._preparing = threading.Lock()
        self._streams = False

    def prepare(self, check: bool) -> None:
        """Make ready to grow trees; ``check``: see that the model can be asked.

        Raises:
            ConfigError: something of the run cannot be had here.
            ModelError: the model cannot be asked.
        """
        with self._preparing:  # it may be asked twice at once
            if self._garden is None:
                self._garden = Garden(self._unpacked(), self._slots, check=check)
        self._garden.wait()

    def play(self) -> Iterator[list[Event]]:
        """What it says, for as long as it lives. The driver reads one such stream a worker."""
        if self._streams:  # it was believed dead, and its trees grow elsewhere: begin anew
            os._exit(1)
        self._streams = True
        yield [("ready",)]
        yield from self._grown.outbox.parcels()

    def take(self, jobs: Sequence[Job]) -> None:
        """Grow these trees, in their order."""
        self._grown.take(jobs)

    def stop(self) -> None:
        """Finish the branches that are being played, and begin no other."""
        self._grown.stopped.set()

    def grant(self, number: int, amounts: Amounts) -> None:
        """See `Leased`."""
        self._grown.total.grant(number, amounts)

    def give_back(self) -> Amounts:
        """See `Leased`."""
        return self._grown.total.give_back()

    @property
    def _grown(self) -> "Garden":
        assert self._garden is not None, "prepare() comes first"
        return self._garden

    def _unpacked(self) -> Kit:
        if self._version != __version__:
            raise ConfigError(
                f"a worker has leafe-graph {__version__}, and the run is of {self._version}: install the same release "
                "on every node"
            )
        sys.path[:] = dict.fromkeys([*self._path, *sys.path])  # in its order: names mean the same here
        try:
            kit: Kit = pickle.loads(self._kit)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"a worker cannot import what the run is made of ({error}): install it on every node, or name it in "
                'Workers(runtime_env={"working_dir": …})'
            ) from error
        return kit


class Garden:
    """Trees that grow in an event loop and a thread of their own.

    Args:
        kit: what they are grown with.
        slots: how many at once.
        check: whether to see first that the model can be asked.
    """

    def __init__(self, kit: Kit, slots: int, *, check: bool) -> None:
        self._kit, self._slots = kit, slots
        self.outbox = Outbox(*kit.batch, beat=self._calls)
        self.stopped = threading.Event()
        self.total = Leased(kit.total_budget, lambda *needed: self.outbox.say("needs", *needed, now=True))
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._ledgers: dict[str, Ledger] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wait = 0
        """Trees that wait for others to be done."""
        threading.Thread(target=self._run, args=(check,), daemon=True, name="garden").start()

    def wait(self) -> None:
        """Return when trees can be grown; raise why they cannot."""
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def take(self, jobs: Sequence[Job]) -> None:
        """See `Grower`."""
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def _begin(self, jobs: Sequence[Job]) -> None:
        self._wait += len(jobs)
        for job in jobs:
            task = asyncio.create_task(self._grow(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _run(self, check: bool) -> None:
        try:
            asyncio.run(self._live(check))
        except BaseException as error:
            self._error = _portable(error)
            self.outbox.say("raised", None, self._error, now=True)
            self._ready.set()

    async def _live(self, check: bool) -> None:
        kit = self._kit
        logging.getLogger("leafe_graph").addHandler(Warnings(self.outbox))
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(self._slots))
        self._places = asyncio.Semaphore(self._slots)
        policy = made(kit.model, "model")
        critic = policy if kit.reflector is None else made(kit.reflector, "reflector")
        for each in [policy, critic][: 1 + (critic is not policy and kit.strategy.reflects)]:
            if check:
                await asyncio.to_thread(check_model, innermost(each))
        async with AsyncExitStack() as stack:
            named = kit.checkpointer
            saver = None if named is None else await open_saver(named, stack, interval=kit.interval)
            points = open_points(saver, stack, file=None)
            context = Context(
                policy=policy,
                reflector=critic,
                envs=stack.enter_context(EnvPool(kit.env, size=2 * self._slots)),
                prompts=kit.prompts,
                play=kit.play,
                retry=kit.retry,
                fork=True,
                outage=ToldOutage(self.outbox),
                budget=kit.budget,
            )
            self._worker = Worker(
                player=player_of(context, points, kit.strategy, durability=kit.durability),
                context=context,
                strategy=kit.strategy,
                limits=kit.limits,
                points=points,
                halted=self.stopped.is_set,
            )
            self._ready.set()
            await asyncio.Event().wait()

    async def _grow(self, job: Job) -> None:
        name = job.task["id"]
        async with self._places:
            self._wait -= 1
            ledger = self._ledgers[name] = Ledger(self._kit.budget, spent=job.spent, parent=self.total)
            try:
                async for branch in self._worker.grow(job.task, {each["id"]: each for each in job.tree}, ledger):
                    entry = encoded(branch)
                    entry.outline.task = {"id": name, "instruction": ""}  # the driver has it
                    self.outbox.say("branch", name, entry, size=len(entry.line))
            except Exception as error:
                self.outbox.say("raised", name, _portable(error), now=True)
            else:
                self.outbox.say("finished", name, now=not self._wait)
            finally:
                del self._ledgers[name]

    def _calls(self) -> Event | None:
        """How many calls of the model each tree in play has come to."""
        calls = {name: ledger.spent["model_calls"] for name, ledger in [*self._ledgers.items()]}
        return ("calls", calls) if calls else None


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same, for another process."""
    if isinstance(error, LeafeError):
        return error
    import traceback

    told = RuntimeError(f"{type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
