"""Sampling from a causal language model: many callers, one worker thread, one running batch.

A row of the batch is a *distinct token sequence* with the requests that stand there, so equal prompts are computed once
and part only where their samples do. Each round takes in what has arrived (prefill), then decodes one token for all; a
request that ends is answered at once, and never waits for a longer one. A turn of a short action costs little but its
prefill, which three things keep small: equal rows, shared prefixes, and a bounded memo of next-token logits by exact
sequence. The memo keeps the *distribution*, a pure function of the tokens: every draw is still fresh.
"""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from ...errors import ModelError
from ...processes import daemon
from .batch import Batch, Rows, Stats
from .sampling import Answer, Ids, Memo, Request, Sampling

IDLE_SECONDS = 5.0
"""The worker thread ends after so long without a call; the next call starts another."""
EXIT_SECONDS = 30.0
"""When the interpreter ends, a step of the model that is being computed is waited for so long."""
MEMO_DEPTH = 8
"""Logits of so many new tokens are memoised: a long free text never comes again, and would evict what does."""


class Engine:
    """A model, its running batch and the worker thread that owns them.

    ``load`` gives the model and its tokenizer and is called at first use. At most ``max_batch_size`` requests are
    decoded together; an idle worker starts when no call came for ``batch_window`` seconds; the memo of logits takes at
    most ``memo_bytes``.
    """

    def __init__(
        self, load: Callable[[], tuple[Any, Any]], *, max_batch_size: int, batch_window: float, memo_bytes: int
    ) -> None:
        self._load, self._max_batch_size, self._batch_window = load, max_batch_size, batch_window
        self._memo_bytes = memo_bytes
        self._stats = Stats()
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self._wake = threading.Condition()  # guards what follows
        self._arrived: list[Request] = []
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def stats(self) -> dict[str, int]:
        """The counts so far, see `leafe_graph.models.local.batch.Stats`."""
        return asdict(self._stats)

    def loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer; waits for them the first time."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
                self._memo = Memo(self._memo_bytes)
            return self._loaded

    def submit(self, prompt: Ids, sampling: Sampling) -> "Future[Answer]":
        """Queue a prompt; the future can be cancelled, and raises ModelError when its batch failed."""
        self.loaded()
        request = Request(prompt, sampling)
        with self._wake:
            self._stats.requests += 1
            self._arrived.append(request)
            if self._thread is None:
                self._thread = daemon.start(self._work, name="leafe-local", stop=self._stop, patience=EXIT_SECONDS)
            self._wake.notify()
        return request.future

    def close(self) -> None:
        """Fail what waits, end the thread, and drop the weights; a later call loads them again."""
        if (thread := self._stop()) is not None:
            thread.join()
        with self._loading:
            self._loaded = None

    def _stop(self) -> threading.Thread | None:
        """Ask the thread to end after its present step, failing what waits; the thread, if there is one."""
        with self._wake:
            self._closing = self._thread is not None
            self._wake.notify()
            return self._thread

    # The rest runs on the worker thread.

    def _work(self) -> None:
        import torch

        model, self._tokenizer = self.loaded()
        ends = model.generation_config.eos_token_id
        self._stops = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        batch: Batch = Batch(model, self._stats)
        waiting: list[Request] = []
        with torch.inference_mode():
            while self._gather(batch, waiting):
                try:
                    waiting = self._round(batch, waiting)
                except Exception as error:
                    _fail(batch, waiting, error)
                    batch, waiting = Batch(model, self._stats), []

    def _gather(self, batch: Batch, waiting: list[Request]) -> bool:
        """Add what has arrived to ``waiting``; an idle worker waits until no more come. Whether to go on."""
        with self._wake:
            if not (batch.rows or waiting):
                self._wake.wait_for(lambda: self._arrived or self._closing, IDLE_SECONDS)
                deadline, seen = time.monotonic() + 10 * self._batch_window, 0
                while seen < len(self._arrived) < self._max_batch_size and time.monotonic() < deadline:
                    seen = len(self._arrived)
                    self._wake.wait(self._batch_window)
            waiting += self._arrived
            self._arrived = []
            if self._closing or not (batch.rows or waiting):
                _fail(batch, waiting, RuntimeError("it was closed"))
                self._thread, self._closing = None, False
                return False
            return True

    def _round(self, batch: Batch, waiting: list[Request]) -> list[Request]:
        """Prefill what there is room for, decode one token for all rows; the requests that still wait."""
        room = self._max_batch_size - batch.size()
        groups: Rows = {}
        late: list[Request] = []
        for request in waiting:
            if not self._walk(request):
                continue
            if room > 0:
                groups.setdefault(request.sequence, []).append(request)
                room -= 1
            else:
                late.append(request)
        for chunk in batch.plan(list(groups)):
            if self._closing:  # what is left of the round would only keep who waits for its end
                late += (request for ids in chunk for request in groups[ids])
                continue
            logits, block = batch.prefill(chunk)
            rows, parents = self._sample({ids: groups[ids] for ids in chunk}, logits, late)
            batch.join(rows, parents, block)
        if batch.rows and not self._closing:
            batch.replace(*self._sample(batch.rows, batch.decode(), late))
        return late

    def _sample(self, groups: Rows, logits: Any, late: list[Request]) -> tuple[Rows, list[int]]:
        """Draw a token for every request; the rows that go on, and for each the row of ``groups`` that it continues."""
        rows: Rows = {}
        parents: list[int] = []
        for parent, (ids, group) in enumerate(groups.items()):
            if any(len(request.tokens) < MEMO_DEPTH for request in group):
                self._memo.put(ids, logits[parent])
            for request in group:
                if not self._draw(request, logits[parent]):
                    continue
                sequence = request.sequence
                if not self._walk(request):
                    continue
                if request.sequence != sequence:  # it walked past what its row's keys and values hold
                    late.append(request)
                elif sequence in rows:
                    rows[sequence].append(request)
                else:
                    rows[sequence] = [request]
                    parents.append(parent)
        return rows, parents

    def _walk(self, request: Request) -> bool:
        """Draw from the memo as long as it knows the way; whether the request goes on."""
        while (row := self._memo.get(request.sequence)) is not None:
            self._stats.memo_hits += 1
            if not self._draw(request, row):
                return False
        return not request.future.cancelled()

    def _draw(self, request: Request, logits: Any) -> bool:
        """Draw one token; whether the request goes on."""
        if request.future.cancelled():
            return False
        request.draw(logits)
        if (answer := request.finished(self._tokenizer, self._stops)) is not None:
            request.resolve(answer)
        return answer is None


def _fail(batch: Batch, waiting: list[Request], cause: Exception) -> None:
    error = ModelError(f"the local model failed on a batch: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    for request in [*waiting, *(request for group in batch.rows.values() for request in group)]:
        request.resolve(error)


_engines: "weakref.WeakValueDictionary[Any, Engine]" = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


def shared_engine(key: Any, make: Callable[[], Engine]) -> Engine:
    """The process's engine for ``key``; it lives as long as somebody holds it."""
    with _engines_lock:
        if (engine := _engines.get(key)) is None:
            engine = _engines[key] = make()
        return engine
