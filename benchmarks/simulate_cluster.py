"""A model of a large cluster: what limits a run on 1 to 1,000 GPUs, and what each part of the design does to it.

    python benchmarks/simulate_cluster.py

A discrete-event simulation. Tasks are in flight, as many as keep the GPUs busy; each plays its branches one after the
other. A turn takes processor time of its worker, which chooses a server as `BalancedChatModel` does, and then a slot of
that server for as long as its tokens take. A branch that has ended takes processor time of the driver and is on the
disk before the next one begins. So stations are few: workers and the driver (a core each), GPUs, and the disk.

What things cost was measured (`Costs`), but for the GPUs, whose speed is assumed. There is no network, no straggler,
no failure, and no environment that computes.
"""

import argparse
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

from leafe_graph.models.balanced import Servers

GIB = 2**30
DAY = 86_400.0


@dataclass(frozen=True)
class Costs:
    """What things take: processor seconds of one core, unless said otherwise. Each with where it was measured."""

    turns: int = 30
    """Turns a branch; assumed, as in most benchmarks here."""
    branches: int = 5
    """Branches a tree, one after the other; assumed."""
    tokens: float = 100.0
    """Output tokens a turn; assumed."""
    spread: float = 0.5
    """By which part of that they may be fewer or more; assumed."""
    rate: float = 3000.0
    """Output tokens a second of a busy GPU; assumed, a 7B model."""
    slots: int = 64
    """Requests that a GPU answers at once, each at its share of the rate; assumed."""
    in_flight: float = 1.5
    """Tasks in play for each slot: more than one, as servers are never even. A choice of whoever runs it."""
    gpus_a_worker: int = 8
    """How many GPUs one worker's core keeps busy. A choice of whoever runs it."""
    superstep_a_turn: float = 1 / 849
    """A turn with LangGraph's superstep and TreeSaver: benchmarks/graph.py, docs/performance.md, "The table"."""
    superstep_a_branch: float = 1 / 1771
    """A turn where a branch is one superstep: the same table."""
    call: float = 2.5e-3
    """A call over HTTP by OpenAI's client, beyond LangChain's part, which turns have: benchmarks/balance.py."""
    choice: float = 5.5e-6
    """Choosing a server: benchmarks/balance.py."""
    choice_a_server: float = 1.37e-6
    """The same for each server, where all were looked at: benchmarks/balance.py with its --before."""
    dict_a_branch: float = 2.1e-3
    """The driver's part of a branch that comes alone, as a dict: a prototype on Ray, the same machine."""
    batched_branch: float = 0.84e-3
    """The same where its line comes in a batch: benchmarks/simulated_and_real.py, the most of some runs."""
    sync: float = 2.0e-3
    """Seconds of a sync of the log: the median there."""
    kept_whole: float = 71 * GIB / 1e6
    """Bytes of memory a branch, all its texts kept: docs/performance.md, "Large runs", before."""
    kept_outline: float = 0.57 * 1024
    """The same of its outline: docs/performance.md, "Large runs"."""
    memory: float = 128 * GIB
    """Bytes that the driver's machine has; assumed."""


@dataclass(frozen=True)
class Design:
    """Which changes have been made."""

    one_superstep: bool = field(default=False, metadata={"name": "a superstep a branch"})
    actors: bool = field(default=False, metadata={"name": "actors beside the driver"})
    batches: bool = field(default=False, metadata={"name": "encoded lines in batches"})
    group_commit: bool = field(default=False, metadata={"name": "group commit"})
    constant_choice: bool = field(default=False, metadata={"name": "choice in constant time"})
    outlines: bool = field(default=False, metadata={"name": "outlines in memory"})


CHANGES = [each.name for each in fields(Design)]
NAMES: dict[str, str] = {each.name: each.metadata["name"] for each in fields(Design)}
OLD, BUILT = Design(), Design(**dict.fromkeys(CHANGES, True))

Visits = Generator[tuple["Station", float], None, None]
"""What a task does: the station that it goes to next, and for how many seconds it needs it."""


class Clock:
    """The time of a simulation, and what happens at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Have this happen then."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), do))

    def run(self, until: float = math.inf) -> None:
        """Let happen what is due until then."""
        while self._due and self._due[0][0] <= until:
            self.now, _, do = heapq.heappop(self._due)
            do()
        if until < math.inf:
            self.now = until


class Station:
    """Servers that answer who comes, in that order.

    Args:
        clock: the simulation's.
        servers: how many it answers at once.
        together: all that wait are answered at once, in the time of one.
    """

    def __init__(self, clock: Clock, servers: int = 1, *, together: bool = False) -> None:
        self._clock, self.servers, self._together = clock, servers, together
        self._waiting: deque[tuple[Visits, float, float]] = deque()
        self._busy = self._there = 0
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self._since = self._last = self._clock.now
        self._busy_area = self._there_area = self.stayed = 0.0
        self.served = 0

    def come(self, task: Visits, seconds: float) -> None:
        """A task comes and needs so long; then it goes on."""
        self._note()
        self._there += 1
        self._waiting.append((task, seconds, self._clock.now))
        self._serve()

    def means(self) -> tuple[float, float]:
        """Busy servers over all; and tasks that wait or are answered."""
        self._note()
        seconds = self._clock.now - self._since
        return self._busy_area / seconds / self.servers, self._there_area / seconds

    def _note(self) -> None:
        seconds = self._clock.now - self._last
        self._busy_area += self._busy * seconds
        self._there_area += self._there * seconds
        self._last = self._clock.now

    def _serve(self) -> None:
        while self._waiting and self._busy < self.servers:
            taken = [self._waiting.popleft() for _ in range(len(self._waiting) if self._together else 1)]
            self._busy += 1
            self._clock.after(max(seconds for _, seconds, _ in taken), lambda taken=taken: self._done(taken))

    def _done(self, taken: list[tuple[Visits, float, float]]) -> None:
        self._note()
        self._busy -= 1
        self._there -= len(taken)
        for task, _, came in taken:
            self.stayed += self._clock.now - came
            self.served += 1
            go_on(task)
        self._serve()


def go_on(task: Visits) -> None:
    """To its next station, or its end."""
    for station, seconds in task:
        station.come(task, seconds)
        return


@dataclass(frozen=True)
class Result:
    """What a simulation came to."""

    branches: float
    """Logged a second."""
    load: dict[str, float]
    """Of the stations of each kind, the share of time that this many branches a second keep them busy."""
    measured: dict[str, float]
    """The same as it was in the time measured, when a queue may still have grown."""
    memory: float
    """Bytes of the driver's memory that a second takes."""
    stations: dict[str, list[Station]]
    """As they were in the end."""
    seconds: float
    """The time measured; of trees that end, until the last one did."""
    ended: list[float]
    """When each branch was on the disk."""
    first: str
    """What saturates first. A disk that syncs for many at once never does: they only become more."""


def needs(design: Design, gpus: int, costs: Costs) -> dict[str, float]:
    """Seconds of each kind of station that a branch needs. A disk that syncs for many at once has no such figure."""
    turn = costs.superstep_a_branch if design.one_superstep else costs.superstep_a_turn
    turn += costs.call + (costs.choice if design.constant_choice else costs.choice_a_server * gpus)
    intake = costs.batched_branch if design.batches else costs.dict_a_branch
    found = {"GPUs": costs.turns * costs.tokens / costs.rate, "workers": costs.turns * turn, "driver": intake}
    if not design.actors:
        found["driver"] = found.pop("workers")
    return found if design.group_commit else found | {"disk": costs.sync}


def simulate(
    design: Design,
    gpus: int,
    costs: Costs = Costs(),
    *,
    workers: int | None = None,
    tasks: int | None = None,
    seconds: float | None = None,
    trees: Iterable[Sequence[int]] | None = None,
) -> Result:
    """One cluster for a while.

    Args:
        design: which changes have been made.
        gpus: model servers.
        costs: what things take.
        workers: actors; enough for the GPUs unless given.
        tasks: in play; ``costs.in_flight`` for each slot unless given.
        seconds: how long to measure, after a fifth of that or three answers; unless given, until branches are many.
        trees: the turns of each tree's branches, and the simulation ends with them; without, they never end.
    """
    drawn, clock = random.Random(0), Clock()
    workers = workers or math.ceil(gpus / costs.gpus_a_worker)
    tasks = tasks or max(1, round(gpus * costs.slots * costs.in_flight))
    driver, disk = Station(clock), Station(clock, together=design.group_commit)
    players = [Station(clock) for _ in range(workers)] if design.actors else [driver]
    servers = {f"gpu-{number}": Station(clock, costs.slots) for number in range(gpus)}
    needed = needs(design, gpus, costs)
    turn = needed["workers" if design.actors else "driver"] / costs.turns
    answer = costs.tokens * costs.slots / costs.rate
    choosing = [Servers([*servers]) for _ in players]
    for number, chosen in enumerate(choosing):
        chosen._random.seed(number)
    ended: list[float] = []
    ends = iter(trees) if trees is not None else None
    names = itertools.count()

    def endless() -> Iterator[list[int]]:
        """The first branch is in its middle, as are the tasks of a run that has begun long ago."""
        yield [drawn.randint(1, costs.turns)]
        while True:
            yield [costs.turns] * costs.branches

    def play(player: Station, chosen: Servers) -> Visits:
        begins = ends is None
        for tree in endless() if ends is None else ends:
            key = str(next(names))
            for turns in tree:
                for _ in range(turns):
                    if not begins:
                        yield player, turn
                    url = chosen.take(key)
                    yield servers[url], answer * drawn.uniform(1 - costs.spread, 1 + costs.spread)
                    chosen.give_back(url, well=True)
                    begins = False
                if design.actors:
                    yield driver, needed["driver"]
                yield disk, costs.sync
                ended.append(clock.now)

    for number in range(tasks):
        go_on(play(players[number % len(players)], choosing[number % len(players)]))
    stations = {"GPUs": [*servers.values()], "driver": [driver], "disk": [disk]}
    if design.actors:
        stations["workers"] = players
    if ends is None:
        seconds = seconds or max(10.0, 600 * max(each / len(stations[kind]) for kind, each in needed.items()))
        clock.run(max(seconds / 5, 3 * answer))
        for station in itertools.chain(*stations.values()):
            station.forget()
        ended.clear()
        clock.run(clock.now + seconds)
    else:
        clock.run()
        seconds = clock.now
    rate = len(ended) / seconds
    measured = {kind: sum(each.means()[0] for each in group) / len(group) for kind, group in stations.items()}
    load = measured | {kind: min(1.0, rate * each / len(stations[kind])) for kind, each in needed.items()}
    kept = costs.kept_outline if design.outlines else costs.kept_whole
    first = max(needed, key=load.__getitem__)
    return Result(rate, load, measured, rate * kept, stations, seconds, ended, first)


def row(name: str, result: Result, costs: Costs) -> str:
    """A line of a table."""
    full = costs.memory / result.memory
    first = result.first + (f"; memory, after {full / 3600:,.1f} h" if full < DAY else "")
    return (
        f"| {name} | {result.branches:,.{int(result.branches < 10)}f} | {result.load['GPUs']:.0%} "
        f"| {result.load.get('workers', 0.0):.0%} | {result.load['driver']:.0%} | {result.load['disk']:.0%} "
        f"| {result.memory * DAY / GIB:,.1f} | {first} |"
    )


HEAD = "| branches/s | GPUs | workers | driver | disk | driver's memory after a day, GiB | what limits it |"
LINE = "|---|" + "---:|" * 6 + "---|"


def sizes(costs: Costs, numbers: Sequence[int]) -> Iterator[str]:
    """The table of sizes, line by line: the design of before, and as built."""
    yield from (f"| GPUs, design {HEAD}", LINE)
    for gpus in numbers:
        yield row(f"{gpus:,}, before", simulate(OLD, gpus, costs), costs)
        yield row(f"{gpus:,}, as built", simulate(BUILT, gpus, costs), costs)


def changes(costs: Costs, gpus: int) -> Iterator[str]:
    """The table of changes at one size: each by itself, and all but each."""
    yield from (f"| {gpus:,} GPUs {HEAD}", LINE)
    yield row("before", simulate(OLD, gpus, costs), costs)
    for name in CHANGES:
        yield row(f"and {NAMES[name]}", simulate(replace(OLD, **{name: True}), gpus, costs), costs)
    for name in CHANGES:
        yield row(f"as built, without {NAMES[name]}", simulate(replace(BUILT, **{name: False}), gpus, costs), costs)
    yield row("as built", simulate(BUILT, gpus, costs), costs)


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="*", default=[1, 8, 64, 256, 1000])
    for name, value in asdict(Costs()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    gpus = given.pop("gpus")
    for line in itertools.chain(sizes(costs := Costs(**given), gpus), [""], changes(costs, max(gpus))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
