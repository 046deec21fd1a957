"""What is kept of what was computed: next-token logits by exact token sequence, and whatever else comes again."""

import math
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from ...errors import ModelError

Ids = tuple[int, ...]
"""Token ids."""
Value = TypeVar("Value")

SMALL = 4096
"""Entries of a vocabulary whose distributions are kept beside the logits. Those of a larger one would take six times
the logits' memory, to save what is little beside a forward of the model that has it."""


class Row:
    """The next-token logits of one sequence; what draws from them need is computed once."""

    def __init__(self, logits: Any) -> None:
        self.logits = logits
        self._drawn: tuple[tuple[float, float], Any, Any] | None = None  # by the latest settings
        self._logprobs: Any = None

    @property
    def size(self) -> int:
        """Bytes at most, what is computed later included."""
        return int(self.logits.numel()) * (4 if self.logits.numel() > SMALL else 24)

    def draw(self, uniform: float, temperature: float, top_p: float) -> int:
        """The token at ``uniform``, 0 to 1, of the distribution; see `Sampling` for the rest."""
        drawn = self._drawn
        if drawn is None or drawn[0] != (temperature, top_p):
            drawn = (temperature, top_p), *self._cumulative(temperature, top_p)
            if self.logits.numel() <= SMALL:
                self._drawn = drawn
        _, cumulative, ids = drawn
        index = min(bisect_right(cumulative, uniform * cumulative[-1]), len(cumulative) - 1)
        return int(index if ids is None else ids[index])

    def logprob(self, token: int) -> float:
        """Natural-log probability of a token, at temperature 1 and with nothing filtered.

        Raises:
            ModelError: it is no number.
        """
        if self._logprobs is not None:
            found = float(self._logprobs[token])
        elif self.logits.numel() > SMALL:
            found = float(self.logits[token] - self.logits.logsumexp(-1))
        else:
            self._logprobs = logprobs = (self.logits - self.logits.logsumexp(-1)).numpy()
            found = float(logprobs[token])
        if math.isnan(found):
            raise ModelError(
                "the model's logits are not numbers (NaN): its weights hold values that are none, or overflow in their "
                "number format; nothing it says would mean anything"
            )
        return found

    def _cumulative(self, temperature: float, top_p: float) -> tuple[Any, Any]:
        """Cumulative probabilities, and the tokens they are of where these are not all in their order."""
        import torch

        if temperature == 0:
            return [1.0], [int(self.logits.argmax())]
        # The maximum is taken off first: dividing by a tiny temperature must not overflow.
        probs = torch.softmax((self.logits - self.logits.max()) / temperature, -1, dtype=torch.float64)
        if top_p == 1:
            return probs.cumsum(-1).numpy(), None
        probs, ids = probs.sort(descending=True, stable=True)
        probs = probs[: int((probs.cumsum(-1) < top_p).sum()) + 1]
        return probs.cumsum(-1).numpy(), ids[: len(probs)].numpy().copy()


class Recent(Generic[Value]):
    """Values by key, at most ``limit`` bytes of them; the least recently used go first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, or None."""
        with self._lock:
            if (held := self._held.get(key)) is None:
                return None
            self._held.move_to_end(key)
            return held[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of so many bytes, key included, unless one is kept already."""
        with self._lock:
            if key in self._held or size > self.limit:
                return
            self._held[key] = value, size
            self.size += size
            while self.size > self.limit:
                self.size -= self._held.popitem(last=False)[1][1]


class Memo(Recent[Row]):
    """Next-token logits by exact token sequence."""

    def keep(self, ids: Ids, logits: Any) -> Row:
        """The row of these logits, kept as a copy: a view would hold the whole batch in memory."""
        size = Row(logits).size + bytes_of(ids)
        if size > self.limit:
            return Row(logits)
        self.put(ids, row := Row(logits.clone()), size)
        return row


def bytes_of(ids: Ids) -> int:
    """Memory of token ids: a Python int and its slot in the tuple, each."""
    return 36 * len(ids)
