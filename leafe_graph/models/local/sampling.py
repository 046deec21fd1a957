"""One answer on its way: how it is drawn, what was drawn so far, and when it ends. And the memo of logits it reads."""

import math
import random
from collections import OrderedDict
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError, ModelError

Ids = tuple[int, ...]
"""Token ids."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one answer is drawn."""

    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Draw from the smallest set of most probable tokens whose probability reaches this."""
    max_tokens: int = 64
    """Most new tokens, the stop token included."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    seed: int | None = None
    """Same seed and prompt, same answer, whoever shares the batch (up to rounding of the logits). None draws afresh."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ConfigError(f"got {self}; expected temperature >= 0, 0 < top_p <= 1 and max_tokens >= 1")


@dataclass(frozen=True)
class Answer:
    """A finished request. ``tokens`` includes the stop token; ``text`` does not."""

    text: str
    tokens: list[int]
    logprobs: list[float]
    """Natural-log probability of each token under the model's own distribution: temperature 1, nothing filtered."""
    finish_reason: str
    """"stop": a stop token or text; "length": ``max_tokens``."""


@dataclass(eq=False)
class Request:
    """A prompt and what was sampled after it."""

    prompt: Ids
    sampling: Sampling
    future: "Future[Answer]" = field(default_factory=Future)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.sampling.seed)

    @property
    def sequence(self) -> Ids:
        """Prompt and sampled tokens."""
        return self.prompt + tuple(self.tokens)

    def draw(self, logits: Any) -> None:
        """Sample a token from a row of logits, by one uniform number whatever the settings."""
        import torch

        uniform, temperature, top_p = self._random.random(), self.sampling.temperature, self.sampling.top_p
        if temperature == 0:
            token = int(logits.argmax())
        else:
            # The maximum is taken off first: dividing by a tiny temperature must not overflow.
            probs, ids = torch.softmax((logits - logits.max()) / temperature, -1, dtype=torch.float64), None
            if top_p < 1:
                probs, ids = probs.sort(descending=True, stable=True)
                probs = probs[: int((probs.cumsum(-1) < top_p).sum()) + 1]
            cumulative = probs.cumsum(-1)
            index = min(int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)), len(probs) - 1)
            token = index if ids is None else int(ids[index])
        logprob = float(logits[token] - logits.logsumexp(-1))
        if math.isnan(logprob):
            raise ModelError(
                "the model's logits are not numbers (NaN): its weights hold values that are none, or overflow in their "
                "number format; nothing it says would mean anything"
            )
        self.tokens.append(token)
        self.logprobs.append(logprob)

    def finished(self, tokenizer: Any, stops: set[int]) -> Answer | None:
        """The answer if the last token ended it: a token of ``stops``, a stop text, or the last that was allowed."""
        stopped = self.tokens[-1] in stops
        full = len(self.tokens) >= self.sampling.max_tokens
        if not (stopped or full or self.sampling.stop):
            return None
        ids = self.tokens[:-1] if stopped else self.tokens
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if cuts := [at for stop in self.sampling.stop if (at := text.find(stop)) >= 0]:
            text, stopped = text[: min(cuts)], True
        if not (stopped or full):
            return None
        return Answer(text, self.tokens, self.logprobs, "stop" if stopped else "length")

    def resolve(self, outcome: Answer | Exception) -> None:
        """Hand the outcome over; a caller that went away, or has one already, is left alone."""
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass


class Memo:
    """Next-token logits by exact token sequence, at most ``limit`` bytes; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._rows: OrderedDict[Ids, Any] = OrderedDict()

    def get(self, ids: Ids) -> Any:
        """The row of logits, or None."""
        if (row := self._rows.get(ids)) is not None:
            self._rows.move_to_end(ids)
        return row

    def put(self, ids: Ids, row: Any) -> None:
        """Keep a copy of ``row``: a view would hold the whole batch in memory."""
        if ids in self._rows or self._bytes(ids, row) > self.limit:
            return
        self._rows[ids] = row.clone()
        self.size += self._bytes(ids, row)
        while self.size > self.limit:
            self.size -= self._bytes(*self._rows.popitem(last=False))

    @staticmethod
    def _bytes(ids: Ids, row: Any) -> int:
        return int(row.numel() * row.element_size() + 36 * len(ids))  # a Python int and its slot in the tuple
