"""Actors on Ray: started, reached and ended. The only place that knows how Ray is started and what its errors mean."""

import asyncio
import gc
import logging
import math
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, MissingDependency, WorkersLost
from ..importing import __version__
from ..settings import Workers
from .workers import Grower

log = logging.getLogger(__name__)

STORE = 80 * 2**20
"""Bytes of Ray's object store on this machine, about the least that it takes: branches go another way."""
AGAIN = 0.5
"""Seconds before a worker that died before any was ready is asked again whether it is."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Off: Ray listens on 127.0.0.1 alone, as on systems whose firewalls would ask. An address that it is given is taken
for the machine's own otherwise, and it listens everywhere."""


@dataclass(frozen=True)
class Actors:
    """Those of a run, of which one at least is ready."""

    slots: Sequence[int]
    """Trees that each grows at once."""
    started: list[Any]
    """One for each of those."""
    make: Callable[[int], Any]
    """Another one, with so many slots."""
    timeout: float
    """Seconds without any of them before the run gives up."""


@asynccontextmanager
async def started(workers: Workers, kit: bytes, *, concurrency: int, tasks: int) -> AsyncIterator[Actors]:
    """Actors that grow trees, ended with the context.

    Args:
        workers: how many, and where.
        kit: what they make their tools from.
        concurrency: trees grown at once by all of them.
        tasks: how many there are.

    Raises:
        MissingDependency: Ray is not installed.
        ConfigError: the cluster cannot be reached, or something of the run cannot be had there.
        ModelError: the model cannot be asked from there.
        WorkersLost: no actor came up in time.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(extra="ray", needed_for="workers") from error
    number = min(workers.number, concurrency, tasks)
    if number < workers.number:
        log.warning(
            "%d workers are started, not %d: there are %d tasks, and concurrency=%d are played at once",
            *(number, workers.number, tasks, concurrency),
        )
    slots = [concurrency // number + (each < concurrency % number) for each in range(number)]
    ours = not ray.is_initialized()
    gpus = (workers.resources or {}).get("GPU")
    others = {name: amount for name, amount in (workers.resources or {}).items() if name != "GPU"}
    remote: Any = ray.remote(Grower)
    path = [place or os.getcwd() for place in sys.path]
    actors: list[Any] = []

    def make(slots: int) -> Any:
        options = {
            "num_cpus": workers.cpus,
            "num_gpus": gpus,
            "resources": others or None,
            "runtime_env": workers.runtime_env,
            "max_restarts": -1,
            "max_task_retries": 0,  # what is left of a tree is not what it was handed first
            "max_concurrency": 16,
            "scheduling_strategy": "SPREAD",
        }
        actor = remote.options(**{name: value for name, value in options.items() if value is not None}).remote(
            kit, slots, path, __version__
        )
        actors.append(actor)
        return actor

    try:
        if ours:
            await _to_the_end(_connect, workers, number)
        for each in slots:
            make(each)
        await _first(actors, workers)
        yield Actors(slots, actors[:], make, workers.timeout)
    finally:
        for actor in actors:
            ray.kill(actor, no_restart=True)
        if ours:
            await _leave()


async def _to_the_end(work: Callable[..., None], *given: Any) -> None:
    """Do it in a thread, and return, or be cancelled, when that has ended: what it has started can be ended then."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        await asyncio.shield(doing)
    finally:
        await asyncio.wait([doing])


async def _first(actors: Sequence[Any], workers: Workers) -> None:
    """Return when one is ready. One that dies before is waited for again, as later on."""
    from ray.exceptions import RayError

    died = ""

    async def wait(actor: Any) -> None:
        nonlocal died
        while True:
            try:
                return await ready(actor, check=True)
            except RayError as error:
                died = f"; the last one died: {_line(error)}"
                await asyncio.sleep(AGAIN)

    waiting = [asyncio.ensure_future(wait(actor)) for actor in actors]
    try:
        done, _ = await asyncio.wait(waiting, timeout=workers.timeout, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
        if not done:
            raise WorkersLost(
                f"no worker came up within {workers.timeout:g} seconds; each needs {workers.cpus:g} CPUs"
                f"{f' and {workers.resources}' if workers.resources else ''}: see what the cluster has with ray status"
                f"{died}"
            )
    finally:
        for each in waiting:
            each.cancel()


async def ready(actor: Any, *, check: bool) -> None:
    """Return when the actor is ready to grow trees, which may take as long as it is started anew.

    Raises:
        ConfigError: it can never be.
        RayError: it has died.
    """
    from ray.exceptions import ActorDiedError, RayTaskError, RuntimeEnvSetupError

    try:
        await actor.prepare.remote(check)
    except RuntimeEnvSetupError as error:
        raise ConfigError(f"the workers' runtime_env cannot be set up: {_line(error)}") from error
    except ActorDiedError as error:
        if not error._actor_init_failed:
            raise
        raise ConfigError(
            f"a worker cannot be started ({_line(error)}): install this package with its extra ray on every node"
        ) from error
    except RayTaskError as error:
        raise error.cause or error from None


def _line(error: BaseException) -> str:
    """The last line that says something."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1][:400]


def _connect(workers: Workers, number: int) -> None:
    import ray

    quiet: Any = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if workers.address is None:
        more = {name: each * number for name, each in (workers.resources or {}).items() if name != "GPU"}
        with _loopback():
            ray.init(
                address="local",
                num_cpus=math.ceil(workers.cpus * number),
                resources=more or None,
                include_dashboard=False,
                object_store_memory=STORE,
                **quiet,
            )
        return
    if workers.address != "auto":
        host, _, port = workers.address.rpartition(":")
        try:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"nothing answers at {workers.address!r}, where a Ray cluster was expected ({error}): give the address "
                'of its head node, HOST:6379 unless it was started otherwise, or "auto" on a machine that belongs to it'
            ) from error
    try:
        ray.init(address=workers.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = " ".join(str(error).split())[:400]
        raise ConfigError(
            f"the Ray cluster at {workers.address!r} cannot be joined ({said}). See that `ray status` shows it on this "
            "machine, which must belong to it; that Python and Ray have the same versions as there; and, where "
            "`ray start` has turned tokens on, that RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH are "
            "set here"
        ) from error


async def _leave() -> None:
    """End what `_connect` began.

    Ray ends the whole process, with status 1 and without a word, where a reference of its is dropped by one thread
    while ``ray.shutdown`` in another one is between the end of Ray's core and its own. The event loop, which holds the
    calls that are pending, stands still for that moment; and what is garbage, which any thread may collect at any time,
    is collected before.
    """
    import ray
    from ray._private.worker import global_worker

    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    with ThreadPoolExecutor(1) as aside:
        try:
            ending = aside.submit(ray.shutdown)
            while hasattr(global_worker, "core_worker") and not ending.done():
                time.sleep(0.001)
        finally:
            if collects:
                gc.enable()
        await asyncio.wrap_future(ending)


@contextmanager
def _loopback() -> Iterator[None]:
    """Inside, what is started of Ray listens on 127.0.0.1 alone."""
    from ray._private import ray_constants

    before, was = os.environ.get(LOOPBACK), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[LOOPBACK], ray_constants.ENABLE_RAY_CLUSTER = "0", False  # for the processes; and here it has been read
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was
        if before is None:
            del os.environ[LOOPBACK]
        else:
            os.environ[LOOPBACK] = before
