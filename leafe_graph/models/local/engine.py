"""Sampling from a causal language model: many callers, one worker thread, one running batch.

A row of the batch is a *distinct token sequence* with the requests that stand there, so equal prompts are computed once
and part only where their samples do. Each round takes in what has arrived (prefill), then decodes one token for all; a
request that ends is answered at once, and never waits for a longer one. A turn of a short action costs little but its
prefill, which three things keep small: equal rows, shared prefixes, and a bounded memo of next-token logits by exact
sequence. The memo keeps the *distribution*, a pure function of the tokens: every draw is still fresh. An answer that
the memo knows all of is drawn by the caller, without the worker.
"""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from ...errors import ModelError
from ...processes import daemon
from .batch import PREFIX_BYTES, Batch, Rows, Stats
from .memo import Ids, Memo, Row
from .sampling import Answer, Request, Sampling

IDLE_SECONDS = 5.0
"""The worker thread ends after so long without a call; the next call starts another."""
EXIT_SECONDS = 30.0
"""When the interpreter ends, a step of the model that is being computed is waited for so long."""
MEMO_DEPTH = 8
"""Logits of so many new tokens are memoised: a long free text never comes again, and would evict what does."""


class Engine:
    """A model, its running batch and the worker thread that owns them.

    ``load`` gives the model and its tokenizer and is called at first use. At most ``max_batch_size`` requests are
    decoded together; an idle worker starts once as many calls wait as did at once before, else when none came for
    ``batch_window`` seconds; the memo of logits takes at most ``memo_bytes``, what prompts have in common
    ``prefix_bytes``. ``alone``: each answer is computed by itself, or is all remembered from one that was, so that it
    is the same to the last bit.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Any, Any]],
        *,
        max_batch_size: int,
        batch_window: float,
        memo_bytes: int,
        alone: bool = False,
    ) -> None:
        self._load, self._max_batch_size, self._batch_window = load, 1 if alone else max_batch_size, batch_window
        self._memo_bytes, self._prefix_bytes, self._alone = memo_bytes, 0 if alone else PREFIX_BYTES, alone
        self._stats = Stats()
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self._wake = threading.Condition()  # guards what follows
        self._arrived: list[Request] = []
        self._open = 0  # requests that the worker has not answered yet
        self._most = self._expected = max_batch_size  # most of them at once since the worker was idle, and before that
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
                model, tokenizer = self._load()
                ends = model.generation_config.eos_token_id
                self._stops = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
                self._decode = _decoder(tokenizer)
                self._memo = Memo(self._memo_bytes)
                self._loaded = model, tokenizer
            return self._loaded

    @property
    def ready(self) -> bool:
        """Whether model and tokenizer are there, so that `loaded` does not wait."""
        return self._loaded is not None

    def submit(self, prompt: Ids, sampling: Sampling) -> "Answer | Future[Answer]":
        """The answer where the memo knows all of it, else its future.

        The future can be cancelled, and raises ModelError when its batch failed.

        Raises:
            ModelError: the logits that the memo knows are not numbers.
        """
        self.loaded()
        request = Request(prompt, sampling)
        answer, known = self._follow(request)
        with self._wake:
            self._stats.requests += 1
            self._stats.memo_hits += known
            if answer is not None:
                return answer
            request.future = Future()
            request.future.add_done_callback(self._answered)
            self._arrived.append(request)
            self._open += 1
            self._most = max(self._most, self._open)
            if self._thread is None:
                self._thread = daemon.start(self._work, name="leafe-local", stop=self._stop, patience=EXIT_SECONDS)
            if len(self._arrived) in (1, self._expected):
                self._wake.notify()
            return request.future

    def _answered(self, _: "Future[Answer]") -> None:
        with self._wake:
            self._open -= 1

    def _follow(self, request: Request) -> tuple[Answer | None, int]:
        """Draw from the memo as long as it knows the way: the answer if that ended it, and how many tokens were drawn.

        On the caller's thread or the worker's.
        """
        if self._alone and request.tokens:  # it is being computed, and goes on so
            return None, 0
        known = 0
        while (row := self._memo.get(self._key(request))) is not None:
            known += 1
            request.draw(row)
            if (answer := request.finished(self._decode, self._stops)) is not None:
                return answer, known
        if self._alone and known:
            request.restart()
            return None, 0
        return None, known

    def _key(self, request: Request) -> Ids:
        """What the memo knows the sequence by; to the last bit, tokens of a prompt differ from those decoded."""
        return (len(request.prompt), *request.sequence) if self._alone else request.sequence

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

        model, _ = self.loaded()
        batch: Batch = Batch(model, self._stats, self._prefix_bytes)
        waiting: list[Request] = []
        with torch.inference_mode():
            while self._gather(batch, waiting):
                try:
                    waiting = self._round(batch, waiting)
                except Exception as error:
                    _fail(batch, waiting, error)
                    batch, waiting = Batch(model, self._stats, self._prefix_bytes), []

    def _gather(self, batch: Batch, waiting: list[Request]) -> bool:
        """Add what has arrived to ``waiting``; an idle worker waits until no more come. Whether to go on."""
        with self._wake:
            if not (batch.rows or waiting):
                self._expected, self._most = min(self._most, self._max_batch_size), self._open
                self._wake.wait_for(lambda: self._arrived or self._closing, IDLE_SECONDS)
                deadline, seen = time.monotonic() + 10 * self._batch_window, 0
                while seen < len(self._arrived) < self._expected and time.monotonic() < deadline:
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
            if (room > 0 or not self._alone) and not self._walk(request):
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
        for parent, group in enumerate(groups.values()):
            again = any(len(request.tokens) < MEMO_DEPTH for request in group)
            row = self._memo.keep(self._key(group[0]), logits[parent]) if again else Row(logits[parent])
            for request in group:
                if not self._draw(request, row):
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
        if request.cancelled:
            return False
        answer, known = self._follow(request)
        with self._wake:
            self._stats.memo_hits += known
        if answer is not None:
            request.resolve(answer)
        return answer is None

    def _draw(self, request: Request, row: Row) -> bool:
        """Draw one token; whether the request goes on."""
        if request.cancelled:
            return False
        request.draw(row)
        if (answer := request.finished(self._decode, self._stops)) is not None:
            request.resolve(answer)
        return answer is None


def _fail(batch: Batch, waiting: list[Request], cause: Exception) -> None:
    error = ModelError(f"the local model failed on a batch: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    for request in [*waiting, *(request for group in batch.rows.values() for request in group)]:
        request.resolve(error)


def _decoder(tokenizer: Any) -> Callable[[Ids], str]:
    """The tokenizer's ``decode``, with short texts decoded once."""

    def decode(ids: Ids) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    once = lru_cache(maxsize=10_000)(decode)
    return lambda ids: (once if len(ids) <= MEMO_DEPTH else decode)(ids)


_engines: "weakref.WeakValueDictionary[Any, Engine]" = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


def shared_engine(key: Any, make: Callable[[], Engine]) -> Engine:
    """The process's engine for ``key``; it lives as long as somebody holds it."""
    with _engines_lock:
        if (engine := _engines.get(key)) is None:
            engine = _engines[key] = make()
        return engine
