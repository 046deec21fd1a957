"""Trees that grow on a cluster: the driver's side, which hands tasks out and gives the branches that come back.

What the log has is what happened: a tree whose worker died is handed out again with its logged branches. Of each worker
one stream is read, so one that was believed dead tells nothing more.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from ..agent.context import Outage
from ..budget import Ledger, is_spent
from ..errors import ModelError, WorkersLost
from ..settings import Limits
from ..strategies import Strategy, next_request
from ..tree.branches import played
from ..tree.log import Entry
from ..tree.run_folder import RunFolder
from ..types import Branch, Task
from .actors import Actors, ready
from .handed import Hand, Tree
from .kit import Job
from .leases import Amounts, Purse
from .players import unplayed_branch

log = logging.getLogger(__name__)

DEATHS = 3
"""Workers that a task may take with it; for the last one it is alone there, so that no other is to blame."""
WINDOW = 16
"""Messages of a worker that may wait to be read."""


class Cluster:
    """Where branches come from that actors play; see `leafe_graph.exploration.grow.Source`.

    Args:
        actors: of which one at least is ready.
        run: the log.
        strategy: which branch comes next.
        limits: bounds of a tree.
        total: the run's account.
        outage: told of calls that fail or do not.
        halted: whether to begin no other branch.
        on_news: called when trees in play have gone on.
    """

    def __init__(
        self,
        actors: Actors,
        *,
        run: RunFolder,
        strategy: Strategy,
        limits: Limits,
        total: Ledger,
        outage: Outage,
        halted: Callable[[], bool],
        on_news: Callable[[], None],
    ) -> None:
        self._hands = [Hand(actor, slots) for actor, slots in zip(actors.started, actors.slots, strict=True)]
        self._actors, self._run, self._strategy, self._limits = actors, run, strategy, limits
        self._outage, self._halted, self._on_news = outage, halted, on_news
        self._purse, self._leasing = Purse(total, len(self._hands)), asyncio.Lock()
        self._waiting: deque[Tree] = deque()
        self._suspects: deque[Tree] = deque()
        self._error: Exception | None = None
        self._dealing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned: set[str] = set()
        self._seen = time.monotonic()
        self.at_once = 2 * sum(actors.slots)
        """Trees that may be begun at once: those in play, and as many that wait where they will be."""
        self.calls: dict[str, int] = {}
        """Model calls of the trees in play, by task, some seconds ago."""

    async def __aenter__(self) -> "Cluster":
        for hand in self._hands:
            self._begin(self._serve(hand))
        self._begin(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def grow(self, task: Task, ledger: Ledger) -> AsyncIterator[Branch | Entry]:
        """See `leafe_graph.exploration.grow.Source`."""
        deaths, lost = 0, False
        while not (self._halted() or is_spent(ledger)):
            if self._error is not None:
                raise self._error
            branches = [*played(self._run.trees.get(task["id"], {})).values()]
            request = next_request(self._strategy, branches, self._limits)
            if request is None:
                return
            if deaths == DEATHS:
                yield unplayed_branch(
                    task,
                    branches,
                    request,
                    f"its worker died, {DEATHS} times in a row: of a lack of memory, or of a crash of the environment",
                )
                return
            tree = Tree(task, branches, ledger, suspect=deaths == DEATHS - 1)
            if tree.suspect:
                self._suspects.append(tree)
            elif lost:
                self._waiting.appendleft(tree)
            else:
                self._waiting.append(tree)
            self._deal_soon()
            try:
                while isinstance(news := await tree.news.get(), Entry):
                    deaths = 0
                    yield news
            finally:
                self._withdraw(tree)
            if isinstance(news, Exception):
                raise news
            if news is None:
                return
            deaths, lost = deaths + news, True

    # ---- handing out

    def _deal_soon(self) -> None:
        """Hand out what waits once all who are about to ask have asked."""
        if not self._dealing:
            self._dealing = True
            asyncio.get_running_loop().call_soon(self._deal)

    def _deal(self) -> None:
        self._dealing = False
        if self._halted() or self._error is not None:
            return
        try:
            self._deal_out()
        except Exception as error:
            self._fail(error)

    def _deal_out(self) -> None:
        if not (self._waiting or self._suspects):
            return
        everything = len(self._waiting) + sum(len(each.trees) for each in self._hands)
        share = math.ceil(everything / len(self._hands))  # once: dealing changes neither
        for hand in sorted((hand for hand in self._hands if hand.there), key=lambda hand: len(hand.trees)):
            if self._suspects and not hand.trees:
                self._give(hand, [self._suspects.popleft()])
            elif not any(tree.suspect for tree in hand.trees.values()):
                lease = [self._waiting.popleft() for _ in range(self._room(hand, share))]
                self._give(hand, lease)

    def _room(self, hand: Hand, share: int) -> int:
        """How many more it gets: as many as it can play, some that wait there for those to end, and its share."""
        waiting, have = len(self._waiting), len(hand.trees)
        ahead = min(hand.slots, waiting // (2 * len(self._hands)))
        return min(waiting, max(0, min(hand.slots + ahead, share) - have))

    def _give(self, hand: Hand, lease: Sequence[Tree]) -> None:
        if lease:
            hand.trees |= {tree.task["id"]: tree for tree in lease}
            jobs = [Job(tree.task, tree.branches, tree.ledger.spent) for tree in lease]
            self._begin(self._told(hand, hand.actor.take.remote(jobs)))

    async def _told(self, hand: Hand, call: Any) -> None:
        """See that a worker has got what it was told; one that has not begins anew."""
        from ray import kill
        from ray.exceptions import RayError

        life = hand.lives
        try:
            await call
        except RayError:
            if hand.lives == life:  # its stream has not told
                kill(hand.actor, no_restart=False)

    def _withdraw(self, tree: Tree) -> None:
        """Forget a tree, wherever it is."""
        self.calls.pop(tree.task["id"], None)
        for waiting in (self._waiting, self._suspects):
            with suppress(ValueError):
                waiting.remove(tree)

    # ---- the workers

    async def _serve(self, hand: Hand) -> None:
        """Read what a worker says, in all its lives."""
        from ray.exceptions import ActorDiedError, RayError

        replaced = 0
        while True:
            try:
                await ready(hand.actor, check=False)
                stream = hand.actor.play.options(
                    num_returns="streaming", _generator_backpressure_num_objects=WINDOW
                ).remote()
                async for said in stream:
                    parcel = await said
                    if not hand.there:
                        hand.there, replaced = True, 0
                    for kind, *told in parcel:
                        getattr(self, f"_{kind}")(hand, *told)
            except RayError as error:
                for_good = isinstance(error, ActorDiedError) and not hand.there
                self._lost(hand, error)
                if for_good:  # it is not started anew by itself
                    replaced += 1
                    await asyncio.sleep(min(10.0, 0.1 * 2**replaced))
                    hand.actor = self._actors.make(hand.slots)

    def _lost(self, hand: Hand, error: Exception) -> None:
        """A worker has died: what it was handed goes on elsewhere."""
        trees, hand.trees = [*hand.trees.values()], {}
        self._purse.lost(hand)
        if hand.there:
            why = " ".join(str(error).split())[:200]
            log.warning("a worker died, and its %d tasks go on elsewhere: %s", len(trees), why)
        hand.there, hand.lives = False, hand.lives + 1
        hand.gone.set()
        hand.gone = asyncio.Event()
        for at, tree in enumerate(trees):
            tree.news.put_nowait(int(at < hand.slots))

    async def _watch(self) -> None:
        """Pass on that the run is to end; and see that there is a worker."""
        told = False
        while True:
            if self._halted() and not told:
                told = True
                for hand in self._hands:
                    if hand.there:
                        self._begin(self._told(hand, hand.actor.stop.remote()))
                for tree in (*self._waiting, *self._suspects):
                    tree.news.put_nowait(None)
            if any(hand.there for hand in self._hands):
                self._seen = time.monotonic()
            elif time.monotonic() - self._seen > self._actors.timeout:
                self._fail(
                    WorkersLost(
                        f"no worker has been there for {self._actors.timeout:g} seconds. Every branch that ended is in "
                        f"{self._run.folder}. See with ray status what became of the cluster, then run the same again: "
                        "it goes on"
                    )
                )
            await asyncio.sleep(0.1)

    def _fail(self, error: Exception) -> None:
        """End the run with this error."""
        self._error = self._error or error
        for tree in (*self._waiting, *self._suspects, *(tree for hand in self._hands for tree in hand.trees.values())):
            tree.news.put_nowait(self._error)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)

    # ---- what workers say

    def _ready(self, hand: Hand) -> None:
        self._deal_soon()

    def _branch(self, hand: Hand, name: str, entry: Entry) -> None:
        """A branch has ended."""
        tree = hand.trees[name]
        entry.outline.task = tree.task
        if entry.outline.end != "model_error":
            self._outage.answered()
        self._purse.logged(hand, entry.outline.cost)
        tree.ledger.record(**entry.outline.cost)
        tree.news.put_nowait(entry)

    def _finished(self, hand: Hand, name: str) -> None:
        """A tree is done, as far as it can be."""
        hand.trees.pop(name).news.put_nowait(None)
        self._deal_soon()

    def _raised(self, hand: Hand, name: str | None, error: Exception) -> None:
        """Playing a tree has raised what ends the run; without a name the worker itself has."""
        if name is None:
            raise error
        hand.trees.pop(name).news.put_nowait(error)

    def _warning(self, hand: Hand, level: int, text: str) -> None:
        """Once, however many workers say it."""
        if text not in self._warned:
            self._warned.add(text)
            log.log(level, "%s", text)

    def _failed(self, hand: Hand, text: str) -> None:
        self._outage.failed(ModelError(text))

    def _answered(self, hand: Hand) -> None:
        self._outage.answered()

    def _calls(self, hand: Hand, calls: dict[str, int]) -> None:
        self.calls |= {name: number for name, number in calls.items() if name in hand.trees}
        self._on_news()

    def _needs(self, hand: Hand, number: int, amounts: Amounts) -> None:
        self._begin(self._lease(hand, hand.lives, number, amounts))

    async def _lease(self, hand: Hand, life: int, number: int, amounts: Amounts) -> None:
        """Give a worker what it needs of the total budget, also what others hold and do not need; or refuse it."""
        async with self._leasing:  # what is called back is for one
            short = [field for field, least in amounts.items() if self._purse.left(field) < least]
            holders = [other for other in self._hands if other is not hand and other in self._purse.holders(short)]
            await asyncio.gather(*map(self._call_back, holders))
            if hand.lives != life:
                return
            granted = self._purse.lease(hand, amounts)
        await self._told(hand, hand.actor.grant.remote(number, granted))

    async def _call_back(self, hand: Hand) -> None:
        from ray.exceptions import RayError

        async def asked() -> Amounts:
            with suppress(RayError):
                amounts: Amounts = await hand.actor.give_back.remote()
                return amounts
            return {}

        # What a dead one held is there again by itself; and the call would wait for it to be started anew.
        life = hand.lives
        call, gone = asyncio.ensure_future(asked()), asyncio.ensure_future(hand.gone.wait())
        await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
        if call.done() and hand.lives == life:
            self._purse.given_back(hand, call.result())
        call.cancel()
        gone.cancel()
